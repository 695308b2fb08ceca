mod addresses;
mod answers;
mod login;
mod server;
mod tls;

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::*;
use pgimbal_config::VaultLogin;
use server::{Received, Reply, Server};

/// A Vault at these addresses, with the token `s.given`.
fn config(addresses: &[&str]) -> VaultConfig {
    VaultConfig {
        address: addresses.iter().map(|&url| url.to_owned()).collect(),
        token: Some(Secret::from("s.given")),
        ..VaultConfig::default()
    }
}

fn client(config: &VaultConfig) -> VaultClient {
    VaultClient::new("main", config).expect("a client")
}

/// Answers as an active Vault does whose token lives for ever; roles have the password
/// `secret-of-ROLE`.
fn healthy(asked: &Received) -> Reply {
    match asked.path() {
        "/v1/sys/health" => Reply::json(200, r#"{"sealed":false,"version":"1.21.0"}"#),
        "/v1/auth/token/lookup-self" => Reply::json(200, r#"{"data":{"ttl":0}}"#),
        path => match path.strip_prefix("/v1/database/static-creds/") {
            Some(role) => Reply::json(
                200,
                &format!(r#"{{"data":{{"username":"{role}","password":"secret-of-{role}"}}}}"#),
            ),
            None => Reply::json(404, r#"{"errors":["no handler for route"]}"#),
        },
    }
}

/// As healthy, but for roles and health.
fn with_role(status: u16, health: u16, body: &'static str) -> impl Fn(&Received) -> Reply {
    move |asked| match asked.path() {
        "/v1/sys/health" => Reply::json(health, "{}"),
        path if path.contains("/static-creds/") => Reply::json(status, body),
        _ => healthy(asked),
    }
}

/// An error with all its texts, none of which may hold a secret.
fn texts(error: &SourceError) -> String {
    let text = format!("{error} {error:?} {:?}", error.hint());
    for secret in ["s.given", "s.made", "hunter2", "secret-of"] {
        assert!(!text.contains(secret), "{text}");
    }
    text
}
