use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use pgimbal_config::{Config, Secret, UserConfig, VaultConfig};

use super::scratch::Directory;
use super::*;

fn sources(vaults: &[&str]) -> Sources {
    let vaults = vaults.iter().map(|&name| {
        let token = Some(Secret::from("s.given"));
        (name.to_owned(), VaultConfig { token, ..VaultConfig::default() })
    });
    let config = Config { vaults: BTreeMap::from_iter(vaults), ..Config::default() };
    Sources::new(&config).expect("sources")
}

fn user(change: impl FnOnce(&mut UserConfig)) -> UserConfig {
    let mut user = UserConfig::default();
    change(&mut user);
    user
}

#[test]
fn each_kind_says_where_the_password_is() {
    let sources = sources(&["main"]);
    for (user, kind, location) in [
        (user(|user| user.password = Some("p".into())), "inline", "users.ann.password"),
        (user(|user| user.vault_role = Some("r".into())), "vault", "vault main, role r"),
        (user(|user| user.password_file = Some("/s/p".into())), "file", "/s/p"),
        (user(|user| user.password_env = Some("HOME".into())), "env", "$HOME"),
    ] {
        let source = sources.of_user("ann", &user).expect(kind);
        assert_eq!((source.kind(), &*source.location()), (kind, location));
        assert_eq!(source.changes().is_some(), kind == "file");
    }
    assert!(sources.of_user("ann", &UserConfig::default()).is_none());
}

#[test]
fn the_only_vault_need_not_be_named() {
    let role = |vault: Option<&str>| {
        user(|user| {
            user.vault_role = Some("r".into());
            user.vault = vault.map(str::to_owned);
        })
    };
    let location = |sources: &Sources, vault| {
        sources.of_user("ann", &role(vault)).map(|source| source.location())
    };
    let (one, two) = (sources(&["main"]), sources(&["a", "b"]));
    assert_eq!(location(&one, None).as_deref(), Some("vault main, role r"));
    assert_eq!(location(&two, Some("b")).as_deref(), Some("vault b, role r"));
    assert_eq!((location(&two, None), location(&one, Some("b"))), (None, None));
}

#[test]
fn roles_of_one_vault_share_its_client() {
    let sources = sources(&["main"]);
    let before = Arc::strong_count(sources.vault("main").expect("a client"));
    let user = user(|user| user.vault_role = Some("r".into()));
    let held: Vec<_> = (0..10).filter_map(|_| sources.of_user("ann", &user)).collect();
    assert_eq!(Arc::strong_count(sources.vault("").expect("a client")), before + held.len());
}

#[tokio::test]
async fn a_file_is_read_anew_and_its_change_is_told() {
    let (directory, sources) = (Directory::new(), sources(&[]));
    directory.publish("v", "..1", &[("username", "app"), ("password", "one")]);
    let user = user(|user| user.password_file = Some(directory.path("v")));
    let source = sources.of_user("ann", &user).expect("a source");
    assert_eq!(source.fetch().await.expect("an answer").password.expose(), "one");
    let mut changes = source.changes().expect("changes");
    for generation in 2.. {
        let name = format!("..{generation}");
        directory.publish("v", &name, &[("username", "app"), ("password", &name)]);
        // The first changes may come before inotify is there; then they are found by the next.
        let told = tokio::time::timeout(Duration::from_millis(500), changes.changed()).await;
        assert_eq!(source.fetch().await.expect("an answer").password.expose(), name);
        if told.is_ok() {
            break;
        }
        assert!(generation < 20, "no change was told");
    }
}
