//! The store in a KV secret, at a real Vault.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use pgimbal::store::{LIMIT, Store, StoreError};
use pgimbal_config::{Config, Secret, StoreKind, VaultConfig};
use pgimbal_tests::Vault;
use pgimbal_tests::port::free_port;
use rustix::process::Signal;
use serde_json::{Value, json};

use super::{
    block_on, eventually, keeps_four_aside, keeps_what_is_written, loses_no_write,
    loses_no_write_when_interrupted, write,
};

/// A Vault with a KV engine at `kv`, which the tests share; each has a path of its own.
fn shared() -> &'static Vault {
    static SHARED: OnceLock<Vault> = OnceLock::new();
    SHARED.get_or_init(started)
}

fn started() -> Vault {
    let vault = Vault::start();
    vault.kv("kv", 2);
    vault
}

fn config(vault: &Vault, path: &str, token: &str) -> Config {
    let mut config = Config::default();
    let vault = VaultConfig {
        address: vec![vault.address()],
        token: Some(Secret::from(token)),
        ..VaultConfig::default()
    };
    config.vaults.insert("main".to_owned(), vault);
    config.store.kind = StoreKind::Vault;
    config.store.vault_mount = "kv".to_owned();
    config.store.vault_path = path.to_owned();
    config
}

/// The policy that the documentation gives, for the path.
fn policy(path: &str) -> String {
    let all = "[\"create\", \"read\", \"update\"]";
    format!(
        "path \"kv/data/{path}\" {{ capabilities = {all} }}\n\
         path \"kv/data/{path}-unreadable-*\" {{ capabilities = {all} }}\n\
         path \"kv/metadata/{path}\" {{ capabilities = [\"create\", \"update\"] }}\n"
    )
}

fn store(path: &str) -> Store {
    let token = shared().token(&policy(path));
    Store::new(&config(shared(), path, &token)).unwrap()
}

#[test]
fn vault_keeps_what_is_written_and_two_versions() {
    block_on(async {
        let store = store("kept/by/name");
        assert_eq!(store.location(), "vault main, kv/kept/by/name");
        keeps_what_is_written(&store).await;
        keeps_four_aside(&store).await;
        let metadata = shared().root().read("kv/metadata/kept/by/name");
        assert_eq!(metadata["data"]["max_versions"], 2);
        assert_eq!(metadata["data"]["versions"].as_object().unwrap().len(), 2);
        let largest = vec![7; store.max_document()];
        write(&store, &largest).await;
        assert_eq!(*store.read().await.unwrap().bytes, largest);
    });
}

#[test]
fn vault_loses_no_write_of_two_replicas() {
    block_on(async {
        loses_no_write(store("counted"), store("counted"), 25).await;
    });
}

#[test]
fn vault_goes_on_after_a_deletion_with_the_version_that_is_next() {
    block_on(async {
        let (store, root) = (store("deleted"), shared().root());
        let none = store.read().await.unwrap().version;
        write(&store, b"first").await;
        write(&store, b"second").await;
        let second = store.read().await.unwrap().version;

        let deleted = root.call("DELETE", "kv/data/deleted", &Value::Null).unwrap();
        assert_eq!(deleted.0, 204);
        let read = store.read().await.unwrap();
        assert_eq!((read.bytes.len(), &read.version), (0, &second));
        let conflict = store.replace(b"third", &none).await.unwrap_err();
        assert!(conflict.is_conflict(), "a secret that was deleted is no new one: {conflict}");
        let third = store.replace(b"third", &read.version).await.unwrap();

        root.write("kv/destroy/deleted", &json!({ "versions": [3] }));
        let read = store.read().await.unwrap();
        assert_eq!((read.bytes.len(), &read.version), (0, &third));
        write(&store, b"fourth").await;

        let forgotten = root.call("DELETE", "kv/metadata/deleted", &Value::Null).unwrap();
        assert_eq!(forgotten.0, 204);
        let read = store.read().await.unwrap();
        assert_eq!((read.bytes.len(), &read.version), (0, &none));
        assert!(store.replace(b"x", &third).await.unwrap_err().is_conflict());
        store.replace(b"first again", &none).await.unwrap();
    });
}

#[test]
fn vault_names_the_policy_that_is_missing() {
    block_on(async {
        let path = "forbidden";
        let without = shared().token("path \"kv/data/other\" { capabilities = [\"read\"] }");
        let store = Store::new(&config(shared(), path, &without)).unwrap();
        for error in [store.read().await.unwrap_err(), store.check_rights().await.unwrap_err()] {
            assert!(matches!(error, StoreError::Forbidden { .. }), "{error}");
            assert_eq!(error.hint(), Some(&*policy(path)), "{error}");
        }
        let reads = shared().token("path \"kv/data/forbidden\" { capabilities = [\"read\"] }");
        store.reload(&config(shared(), path, &reads)).unwrap();
        let at = store.read().await.unwrap().version;
        let error = store.check_rights().await.unwrap_err().to_string();
        assert!(error.ends_with("to create, update it"), "{error}");
        let error = store.replace(b"x", &at).await.unwrap_err();
        assert!(matches!(error, StoreError::Forbidden { .. }), "{error}");

        let all = shared().token(&policy(path));
        store.reload(&config(shared(), path, &all)).unwrap();
        store.check_rights().await.unwrap();
        store.replace(b"x", &at).await.unwrap();

        store.reload(&config(shared(), path, "s.nobodys-token")).unwrap();
        let error = store.read().await.unwrap_err();
        assert!(matches!(error, StoreError::Forbidden { .. }), "{error}");
        assert!(!format!("{error:?} {store:?}").contains("nobodys-token"));
    });
}

#[test]
fn vault_is_away_while_it_is_sealed_frozen_or_gone() {
    block_on(async {
        let vault = started();
        let token = vault.token(&policy("facts"));
        let store = Store::new(&config(&vault, "facts", &token)).unwrap();
        write(&store, b"before").await;
        let at = store.read().await.unwrap().version;

        vault.seal();
        let error = store.read().await.unwrap_err();
        assert!(error.is_away() && error.to_string().contains("Vault is sealed"), "{error}");
        vault.unseal();
        eventually("it is unsealed", async || store.read().await.ok()).await;

        vault.signal(Signal::STOP);
        let start = Instant::now();
        let error = store.replace(b"x", &at).await.unwrap_err();
        assert!(error.is_away(), "{error}");
        assert!(start.elapsed() < LIMIT + Duration::from_secs(1), "{:?}", start.elapsed());
        vault.signal(Signal::CONT);
        let read = eventually("it thaws", async || store.read().await.ok()).await;
        // The call that was given up may have been made nevertheless.
        assert!(read.version == at || **read.bytes == *b"x");

        drop(vault);
        let error = store.read().await.unwrap_err();
        assert!(error.is_away() && error.to_string().contains("cannot be reached"), "{error}");
    });
}

#[test]
fn vault_loses_no_write_when_it_is_sealed_in_the_middle_of_one() {
    block_on(async {
        let vault = started();
        let store = || {
            let token = vault.token(&policy("facts"));
            Store::new(&config(&vault, "facts", &token)).unwrap()
        };
        let stores = [store(), store()];
        loses_no_write_when_interrupted(
            3,
            stores,
            vault,
            |vault: &mut Vault| vault.seal(),
            |vault: &mut Vault| vault.unseal(),
        )
        .await;
    });
}

#[test]
fn vault_that_is_away_at_the_start_is_asked_again() {
    block_on(async {
        let mut config = config(shared(), "late", &shared().token(&policy("late")));
        let there = config.vaults["main"].address[0].clone();
        let nobody = format!("http://127.0.0.1:{}", free_port());
        config.vaults.get_mut("main").unwrap().address = vec![nobody.clone()];
        let store = Store::new(&config).unwrap();
        let error = store.read().await.unwrap_err();
        assert!(error.is_away(), "{error}");
        // Of two addresses one is enough.
        config.vaults.get_mut("main").unwrap().address = vec![nobody, there];
        store.reload(&config).unwrap();
        write(&store, b"x").await;
    });
}

#[test]
fn vault_is_told_from_another_engine_and_from_what_others_write() {
    block_on(async {
        let (vault, root) = (shared(), shared().root());
        vault.kv("kv1", 1);
        let token = vault.token("path \"*\" { capabilities = [\"create\", \"read\", \"update\"] }");
        for mount in ["nowhere", "kv1"] {
            let mut config = config(vault, "facts", &token);
            config.store.vault_mount = mount.to_owned();
            let store = Store::new(&config).unwrap();
            let error = match store.read().await {
                // Version 1 answers like version 2 for a secret that never was.
                Ok(read) => store.replace(b"x", &read.version).await.unwrap_err(),
                Err(error) => error,
            };
            assert!(matches!(error, StoreError::Unusable { .. }), "{error}");
            assert!(error.to_string().contains("set `vault_mount`"), "{error}");
        }
        let store = Store::new(&config(vault, "edited", &token)).unwrap();
        root.write("kv/data/edited", &json!({ "data": { "document": "{by hand}" } }));
        assert_eq!(**store.read().await.unwrap().bytes, *b"{by hand}");
        root.write("kv/data/edited", &json!({ "data": {} }));
        assert_eq!(store.read().await.unwrap().bytes.len(), 0);
        root.write("kv/data/edited", &json!({ "data": { "document": "A".repeat(1 << 20) } }));
        assert_eq!(store.read().await.unwrap().bytes.len(), 3 << 18);
    });
}

#[test]
fn vault_leaves_a_secret_of_somebody_else_as_it_is() {
    block_on(async {
        let (store, root) = (store("an/application"), shared().root());
        let theirs = [
            json!({ "username": "app", "password": "theirs" }),
            json!({ "document": { "a": 1 } }),
            json!({ "document": null, "password": "theirs" }),
        ];
        for fields in &theirs {
            root.write("kv/data/an/application", &json!({ "data": fields }));
            let error = store.read().await.unwrap_err();
            assert!(matches!(error, StoreError::Unusable { .. }), "{error}");
            let told = error.to_string();
            assert!(told.starts_with("vault main, kv/an/application: the secret there"), "{told}");
            assert!(told.contains("set `vault_path`") && !told.contains("theirs"), "{told}");
        }
        // Theirs is at the first two of the names for unreadable documents, too.
        for (number, fields) in theirs.iter().enumerate().take(2) {
            let path = format!("kv/data/an/application-unreadable-{}", number + 1);
            root.write(&path, &json!({ "data": fields }));
        }
        for _ in 0..2 {
            let name = store.set_aside(b"not readable").await.unwrap();
            assert_eq!(name, "vault main, kv/an/application-unreadable-3");
        }
        for (number, fields) in theirs.iter().enumerate().take(2) {
            let path = format!("kv/data/an/application-unreadable-{}", number + 1);
            assert_eq!(root.read(&path)["data"]["data"], *fields);
        }
    });
}
