//! What the harness's Vault and its stand-in do, without pgimbal: the ground the rotation tests
//! stand on.

use std::time::Duration;

use pgimbal_tests::certificates::Certificates;
use pgimbal_tests::vault::api::Api;
use pgimbal_tests::vault::reads;
use pgimbal_tests::vault_stand_in::Answer;
use pgimbal_tests::{Postgres, Vault, VaultStandIn, eventually};
use serde_json::{Value, json};

#[test]
fn vault_rotates_a_role_by_itself() {
    let pg = Postgres::start();
    pg.run("create role shop login");
    let vault = Vault::before(&pg);
    vault.static_role("shop", 5);
    let first = vault.role("shop");
    let stored = || pg.value("select rolpassword from pg_authid where rolname = 'shop'");
    let verifier = stored();
    let passwords = vault.record(&["shop"]);
    let rotated = || vault.role("shop").password != first.password;
    let took = eventually("the role is rotated", Duration::from_secs(15), rotated);
    assert!(took > Duration::from_secs(2), "after {took:?}");
    assert_ne!(stored(), verifier);
    eventually("both are recorded", Duration::from_secs(5), || passwords.count() == 2);
    passwords.appear_nowhere(&[("nowhere", "nothing")]);
    let told = std::panic::catch_unwind(|| {
        passwords.appear_nowhere(&[("a log", &format!("x{}y", first.password))]);
    });
    assert!(told.is_err());
}

#[test]
fn vault_seals_and_says_who_may_read() {
    let pg = Postgres::start();
    pg.run("create role shop login; create role other login");
    let vault = Vault::before(&pg);
    vault.static_role("shop", 3600);
    vault.static_role("other", 3600);
    assert_ne!(vault.rotate("shop"), vault.rotate("other"));
    let token = vault.token(&reads("database/static-creds/shop"));
    let api = vault.root().with_token(&token);
    let status = |path: &str| api.call("GET", path, &Value::Null).expect("an answer").0;
    assert_eq!(status("database/static-creds/shop"), 200);
    assert_eq!(status("database/static-creds/other"), 403);
    vault.seal();
    assert_eq!(status("database/static-creds/shop"), 503);
    assert_eq!(vault.try_role("shop"), None);
    vault.unseal();
    assert_eq!(status("database/static-creds/shop"), 200);
    let [role_id, secret_id] = vault.approle(&reads("database/static-creds/shop"), "60s");
    let login = json!({ "role_id": role_id, "secret_id": secret_id });
    let token = vault.root().write("auth/approle/login", &login)["auth"]["client_token"].clone();
    let api = vault.root().with_token(token.as_str().expect("a token"));
    assert!(api.read("database/static-creds/shop")["data"]["password"].is_string());
}

#[test]
fn vault_speaks_tls_with_our_certificates() {
    let vault = Vault::with_tls(&Certificates::new());
    assert!(vault.address().starts_with("https://"));
    assert!(vault.authority().exists());
    assert_eq!(vault.root().read("sys/health")["sealed"], false);
    let stranger = Api::new(vault.port, Some(Certificates::new().client(&[])));
    assert!(stranger.call("GET", "sys/health", &Value::Null).is_err());
}

#[test]
fn the_stand_in_says_what_it_is_told_and_remembers() {
    let stand_in = VaultStandIn::start();
    let api = Api::new(stand_in.port, None).with_token("a token");
    stand_in.role("a", Answer::role("a", "one", "2026-01-01T00:00:00Z", 5));
    stand_in.role("ab", Answer::error(503, "Vault is sealed").after(Duration::from_millis(50)));
    assert_eq!(api.read("database/static-creds/a")["data"]["password"], "one");
    let get = |path: &str| api.call("GET", path, &Value::Null).expect("an answer");
    assert_eq!(get("database/static-creds/ab").0, 503);
    assert_eq!(get("database/static-creds/b").0, 404);
    stand_in.forget("static-creds/a");
    assert_eq!(get("database/static-creds/a").0, 404);
    assert_eq!(stand_in.asked("static-creds/"), 4);
    let requests = stand_in.requests();
    assert_eq!(requests[0].headers["x-vault-token"], "a token");
    assert_eq!((requests[0].method.as_str(), requests[0].body.as_str()), ("GET", ""));
    assert!(requests[1].at >= requests[0].at);
}
