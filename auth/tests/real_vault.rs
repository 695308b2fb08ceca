//! The Vault client against a real Vault, which rotates roles of a real PostgreSQL.
#![cfg(feature = "sources")]
#![allow(missing_docs, reason = "a test's name is its documentation")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "in a test a failed expectation is the point"
)]

use std::time::{Duration, Instant, SystemTime};

use pgimbal_auth::SourceError;
use pgimbal_auth::source::VaultClient;
use pgimbal_config::{Secret, VaultConfig, VaultLogin};
use pgimbal_tests::certificates::Certificates;
use pgimbal_tests::postgres::Postgres;
use pgimbal_tests::vault::{Vault, reads};
use serde_json::{Value, json};

const DEADLINE: Duration = Duration::from_secs(20);

fn config(vault: &Vault, token: &str) -> VaultConfig {
    VaultConfig {
        address: vec![vault.address()],
        token: Some(Secret::from(token)),
        ..VaultConfig::default()
    }
}

fn client(config: &VaultConfig) -> VaultClient {
    VaultClient::new("main", config).expect("a client")
}

fn approle(vault: &Vault, [role_id, secret_id]: [String; 2]) -> VaultConfig {
    VaultConfig {
        login: VaultLogin::AppRole,
        token: None,
        role_id: Some(role_id),
        secret_id: Some(Secret::new(secret_id)),
        ..config(vault, "")
    }
}

/// A PostgreSQL with the role `shop`, and a Vault that rotates it every `period` seconds.
fn rotated(period: u32) -> (Postgres, Vault) {
    let pg = Postgres::start();
    pg.run("CREATE ROLE shop LOGIN");
    let vault = Vault::before(&pg);
    vault.static_role("shop", period);
    (pg, vault)
}

fn label(outcome: Result<pgimbal_auth::SourcePassword, SourceError>) -> &'static str {
    outcome.expect_err("an error").result_label()
}

/// How many tokens there are.
fn tokens(vault: &Vault) -> usize {
    let (_, list) =
        vault.root().call("LIST", "auth/token/accessors", &Value::Null).expect("a list");
    list["data"]["keys"].as_array().map_or(0, Vec::len)
}

#[tokio::test]
async fn a_static_role_is_read_with_all_that_is_known_of_its_rotation() {
    let (_pg, vault) = rotated(3600);
    let client = client(&config(&vault, &vault.reader()));
    let answer = client.read("shop").await.expect("an answer");
    let truth = vault.role("shop");
    assert_eq!(answer.password.expose(), truth.password);
    assert_eq!(answer.username.as_deref(), Some("shop"));
    assert_eq!(answer.rotation_period, Some(Duration::from_secs(3600)));
    let rotated_at = answer.rotated_at.expect("a time");
    let age = SystemTime::now().duration_since(rotated_at).expect("the past");
    let ttl = answer.ttl.expect("a ttl");
    assert!(age < DEADLINE && ttl > Duration::from_secs(3500), "{age:?} {ttl:?}");
    vault.rotate("shop");
    let after = client.read("shop").await.expect("an answer");
    assert_eq!(after.password.expose(), vault.role("shop").password);
    assert!(after.rotated_at.expect("a time") > rotated_at);
    assert_ne!(after.password, answer.password);
}

#[tokio::test]
async fn a_role_on_a_schedule_has_no_period() {
    let (_pg, vault) = rotated(3600);
    let schedule = json!({ "db_name": "app", "username": "shop",
        "rotation_schedule": "0 0 * * SAT", "rotation_window": "1h" });
    vault.root().write("database/static-roles/weekly", &schedule);
    let answer = client(&config(&vault, &vault.reader())).read("weekly").await.expect("an answer");
    assert_eq!((answer.rotation_period, answer.ttl.is_some()), (None, true));
    assert_eq!(answer.password.expose(), vault.role("weekly").password);
}

#[tokio::test]
async fn what_is_wrong_is_told_from_vaults_own_answers() {
    let (_pg, vault) = rotated(3600);
    let root = client(&config(&vault, &vault.token("path \"*\" { capabilities = [\"read\"] }")));
    assert_eq!(label(root.read("nobody").await), "unknown_role");
    for (mount, kind) in [("nowhere", ""), ("kv", "kv")] {
        if !kind.is_empty() {
            vault.root().write(&format!("sys/mounts/{mount}"), &json!({ "type": kind }));
        }
        let mut config = config(&vault, &vault.token("path \"*\" { capabilities = [\"read\"] }"));
        config.mount = mount.to_owned();
        assert_eq!(label(client(&config).read("shop").await), "wrong_mount", "{mount}");
    }
    let denied = client(&config(&vault, &vault.token(&reads("other"))));
    let error = denied.read("shop").await.expect_err("no permission");
    let policy = error.hint().expect("a policy");
    assert_eq!(policy, "path \"database/static-creds/shop\" { capabilities = [\"read\"] }");
    // The text that is given helps.
    let client = client(&config(&vault, &vault.token(&policy)));
    client.read("shop").await.expect("an answer");
    assert_eq!(label(self::client(&config(&vault, "s.wrong")).read("shop").await), "token_refused");
}

#[tokio::test]
async fn a_sealed_vault_is_told_and_forgotten_when_it_is_unsealed() {
    let (_pg, vault) = rotated(3600);
    let client = client(&config(&vault, &vault.reader()));
    client.read("shop").await.expect("an answer");
    vault.seal();
    assert_eq!(label(client.read("shop").await), "sealed");
    let health = client.health().await;
    assert_eq!(health[0].fault.as_ref().map(SourceError::result_label), Some("sealed"));
    vault.unseal();
    let begun = Instant::now();
    while client.read("shop").await.is_err() {
        assert!(begun.elapsed() < DEADLINE, "still sealed");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let health = &client.health().await[0];
    assert!(health.fault.is_none() && health.version.is_some(), "{health:?}");
    let skew = SystemTime::now().duration_since(health.clock.expect("a clock"));
    assert!(skew.is_ok_and(|skew| skew < DEADLINE));
}

#[tokio::test]
async fn approle_logs_in_again_when_its_token_ends() {
    let (_pg, vault) = rotated(3600);
    let ids = vault.approle(&reads("database/static-creds/*"), "2s");
    let client = client(&approle(&vault, ids));
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(5) {
        client.read("shop").await.expect("an answer at any time");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_token_is_renewed_rather_than_replaced() {
    let (_pg, vault) = rotated(3600);
    let ids = vault.approle(&reads("database/static-creds/*"), "2s");
    let body = json!({ "token_policies": ["approle"], "token_ttl": "2s", "token_max_ttl": "1h" });
    vault.root().write("auth/approle/role/pgimbal", &body);
    let client = client(&approle(&vault, ids));
    client.read("shop").await.expect("an answer");
    let before = tokens(&vault);
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(5) {
        client.read("shop").await.expect("an answer at any time");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(tokens(&vault), before, "no token was made");
}

#[tokio::test]
async fn a_revoked_token_is_replaced_at_once_and_a_wrong_secret_is_told() {
    let (_pg, vault) = rotated(3600);
    let [role_id, secret_id] = vault.approle(&reads("database/static-creds/*"), "1h");
    let good = client(&approle(&vault, [role_id.clone(), secret_id]));
    good.read("shop").await.expect("an answer");
    vault.root().write("sys/leases/revoke-prefix/auth/approle/login", &Value::Null);
    good.read("shop").await.expect("an answer with a new token");
    let bad = client(&approle(&vault, [role_id, "wrong-secret".to_owned()]));
    let error = bad.read("shop").await.expect_err("a refused login");
    assert_eq!(error.result_label(), "login_refused");
    assert!(error.to_string().contains("invalid role or secret ID"), "{error}");
}

#[tokio::test]
async fn tls_is_verified_with_the_ca_that_is_named() {
    let pg = Postgres::start();
    pg.run("CREATE ROLE shop LOGIN");
    let vault = Vault::with_tls(&Certificates::new());
    vault.serve(pg.port);
    vault.static_role("shop", 3600);
    let mut config = config(&vault, &vault.reader());
    config.address = vec![format!("https://localhost:{}", vault.port)];
    assert_eq!(label(client(&config).read("shop").await), "tls");
    config.ca_file = Some(vault.authority().to_owned());
    client(&config).read("shop").await.expect("an answer");
    config.address = vec![format!("http://localhost:{}", vault.port)];
    assert_eq!(label(client(&config).read("shop").await), "tls");
}
