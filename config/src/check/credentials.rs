//! Checks of password sources, Vaults and the state directory.

use std::path::Path;

use super::files::{Pem, pem};
use super::findings::Findings;
use crate::config::{Config, WILDCARD};
use crate::credential::MAX_SHARED_GENERATIONS;
use crate::user::{PasswordForm, SourceConfig, UserConfig};
use crate::vault::VaultConfig;
use crate::words::{HistoryPlace, StoreKind, VaultLogin};

/// A rule's source that is nothing but the name that a client gives.
const PLACEHOLDER: &str = "{user}";

/// Notes every contradiction in the options of passwords.
pub(super) fn check(config: &Config, found: &mut Findings<'_>) {
    let own = &config.credentials;
    if own.state_dir.is_none() {
        let cause = "needs state_dir, the directory where it is kept";
        if own.history == HistoryPlace::File {
            found.add("credential_history", Some("\"file\"".to_owned()), cause);
        }
        if own.password_cache {
            found.add("password_cache", Some("true".to_owned()), cause);
        }
    }
    grace(config, found);
    for (name, vault) in &config.vaults {
        login(vault, &format!("vaults.{name}"), found);
    }
    for (name, user) in &config.users {
        let path = format!("users.{name}");
        source(user, &path, found);
        which_vault(config, user, &path, found);
        if name == WILDCARD {
            rule(user, &path, found);
            open_directory(config, user, &path, found);
        } else if !user.names.is_empty() {
            let cause = "belongs to the rule [users.\"*\"]: this is a user by name";
            found.add(&format!("{path}.names"), None, cause);
        }
        if user.accept_also.as_ref().map(PasswordForm::of) == Some(PasswordForm::Md5) {
            let cause = "an md5 hash cannot be used with SCRAM; give the password or its verifier";
            found.add(&format!("{path}.accept_also"), None, cause);
        }
    }
}

/// Checks that no more passwords of a user are to be accepted than replicas and restarts know of.
fn grace(config: &Config, found: &mut Findings<'_>) {
    let own = &config.credentials;
    let is_kept = own.history == HistoryPlace::File || config.store.kind != StoreKind::Memory;
    if !is_kept && config.peers.listen.is_none() {
        return;
    }
    let users = config.users.iter();
    let users = users.filter_map(|(name, user)| {
        Some((format!("users.{name}.grace_generations"), user.grace_generations?))
    });
    let all = ("grace_generations".to_owned(), own.grace_generations);
    for (key, count) in users.chain([all]).filter(|(_, count)| *count > MAX_SHARED_GENERATIONS) {
        let cause = format!(
            "no more than {MAX_SHARED_GENERATIONS} are shared with other replicas or kept over a \
             restart: the older ones would be accepted here, and refused there and then"
        );
        found.add(&key, Some(count.to_string()), cause);
    }
}

/// A rule stands for whoever asks, so nothing of it may let all of them in, or lead a name of the
/// client's choice to something that is no password.
fn rule(user: &UserConfig, path: &str, found: &mut Findings<'_>) {
    if !user.has_placeholder() {
        let cause = "the rule for all users needs {user} in vault_role, password_file or \
                     password_env: they must not share one password";
        found.add(path, None, cause);
    }
    if user.accept_also.is_some() {
        let cause = "every user of the rule would be let in with it: give it to a user by name";
        found.add(&format!("{path}.accept_also"), None, cause);
    }
    if user.password_env.as_deref() == Some(PLACEHOLDER) {
        let cause = "a client named HOME or PATH would log in with what these hold: put a prefix \
                     of its own before {user}";
        let value = format!("{PLACEHOLDER:?}");
        found.add(&format!("{path}.password_env"), Some(value), cause);
    }
}

/// A directory that holds other things than passwords of users.
fn open_directory(config: &Config, user: &UserConfig, path: &str, found: &mut Findings<'_>) {
    const OTHERS: [&str; 8] =
        ["/", "/etc", "/root", "/home", "/proc", "/sys", "/dev", "/var/run/secrets/kubernetes.io"];
    let Some(file) = user.password_file.as_ref().filter(|_| user.accepts_any_file()) else {
        return;
    };
    let directory = file.parent().unwrap_or(file);
    let is_of_secrets = directory.ends_with("kubernetes.io/serviceaccount");
    let is_state = config.credentials.state_dir.as_deref() == Some(directory);
    if is_state || is_of_secrets || OTHERS.iter().any(|other| directory == Path::new(other)) {
        let cause = "every file of that directory would be a user with what it holds: keep users' \
                     passwords in a directory of their own, or say whom the rule is for (names)";
        let value = Some(format!("{:?}", file.display().to_string()));
        found.add(&format!("{path}.password_file"), value, cause);
    }
}

/// Checks that a user has one source, and no option that it would not use.
fn source(user: &UserConfig, path: &str, found: &mut Findings<'_>) {
    let given: Vec<&str> = [
        ("password", user.password.is_some()),
        ("vault_role", user.vault_role.is_some()),
        ("password_file", user.password_file.is_some()),
        ("password_env", user.password_env.is_some()),
    ]
    .into_iter()
    .filter_map(|(key, is_given)| is_given.then_some(key))
    .collect();
    if let [_, second, ..] = given[..] {
        let cause = format!("a password has one source, and {} is given too", given[0]);
        found.add(&format!("{path}.{second}"), None, cause);
    }
    if user.source() != SourceConfig::Inline && user.server_password.is_some() {
        let cause = format!("would never be used: {} says the password", given.join(", "));
        found.add(&format!("{path}.server_password"), None, cause);
    }
    if user.vault.is_some() && user.vault_role.is_none() {
        found.add(&format!("{path}.vault"), None, "needs vault_role beside it");
    }
    for (key, is_given) in [
        ("grace_generations", user.grace_generations.is_some()),
        ("grace_age", user.grace_age.is_some()),
    ] {
        if is_given && user.source() == SourceConfig::Inline {
            let cause = "would not be used: a password in the configuration does not rotate; \
                         accept_also takes an old one";
            found.add(&format!("{path}.{key}"), None, cause);
        }
    }
}

fn which_vault(config: &Config, user: &UserConfig, path: &str, found: &mut Findings<'_>) {
    if user.vault_role.is_none() {
        return;
    }
    if let Some(role) = user.vault_role.as_ref().filter(|role| !is_segment(role)) {
        let cause = "is no name of a role: it is one segment of a path, without / ? # %";
        found.add(&format!("{path}.vault_role"), Some(format!("{role:?}")), cause);
    }
    let key = format!("{path}.vault");
    match &user.vault {
        Some(name) if !config.vaults.contains_key(name) => {
            found.add(&key, Some(format!("{name:?}")), "there is no [vaults] entry of that name");
        }
        None if config.vaults.is_empty() => {
            let key = format!("{path}.vault_role");
            found.add(&key, None, "there is no Vault: add [vaults.NAME] with its address");
        }
        None if config.vaults.len() > 1 => {
            let names: Vec<&str> = config.vaults.keys().map(String::as_str).collect();
            found.add(&key, None, format!("say which Vault it is: {}", names.join(", ")));
        }
        _ => {}
    }
}

/// Whether `role` stays where it is put in a path.
fn is_segment(role: &str) -> bool {
    let odd = |c: char| c.is_control() || matches!(c, '/' | '\\' | '?' | '#' | '%');
    role != "." && role != ".." && !role.contains(odd)
}

/// Checks that a Vault's login method has the options that it needs.
fn login(vault: &VaultConfig, path: &str, found: &mut Findings<'_>) {
    let needs = match vault.login {
        VaultLogin::Token if vault.token.is_none() => Some("token"),
        VaultLogin::TokenFile if vault.token_file.is_none() => Some("token_file"),
        VaultLogin::AppRole if vault.role_id.is_none() => Some("role_id"),
        VaultLogin::AppRole if vault.secret_id.is_none() && vault.secret_id_file.is_none() => {
            Some("secret_id or secret_id_file")
        }
        VaultLogin::Kubernetes if vault.kubernetes_role.is_none() => Some("kubernetes_role"),
        _ => None,
    };
    if let Some(needs) = needs {
        let value = format!("\"{}\"", vault.login.as_str());
        found.add(&format!("{path}.login"), Some(value), format!("needs {needs} beside it"));
    }
    unused(vault, path, found);
    if vault.secret_id.is_some() && vault.secret_id_file.is_some() {
        let cause = "secret_id is given too: only one of them can be meant";
        found.add(&format!("{path}.secret_id_file"), None, cause);
    }
    if vault.cert_file.is_some() != vault.key_file.is_some() {
        let (given, missing) = match vault.cert_file {
            Some(_) => ("cert_file", "key_file"),
            None => ("key_file", "cert_file"),
        };
        found.add(&format!("{path}.{given}"), None, format!("needs {missing} beside it"));
    }
    for (file, holds, key) in [
        (&vault.ca_file, Pem::Certificate, "ca_file"),
        (&vault.cert_file, Pem::Certificate, "cert_file"),
        (&vault.key_file, Pem::Key, "key_file"),
    ] {
        if let Some(file) = file {
            if !vault.address.iter().any(|url| url.starts_with("https://")) {
                let cause = "would not be used: no address begins with https://";
                found.add(&format!("{path}.{key}"), None, cause);
            }
            pem(file, holds, &format!("{path}.{key}"), found);
        }
    }
}

/// Notes the options of other login methods.
fn unused(vault: &VaultConfig, path: &str, found: &mut Findings<'_>) {
    use VaultLogin::{AppRole, Kubernetes, Token, TokenFile};
    let jwt_file = found.is_set(&format!("{path}.kubernetes_jwt_file"));
    let keys: [(&str, bool, &[VaultLogin]); 8] = [
        ("login_mount", vault.login_mount.is_some(), &[AppRole, Kubernetes]),
        ("token", vault.token.is_some(), &[Token]),
        ("token_file", vault.token_file.is_some(), &[TokenFile]),
        ("role_id", vault.role_id.is_some(), &[AppRole]),
        ("secret_id", vault.secret_id.is_some(), &[AppRole]),
        ("secret_id_file", vault.secret_id_file.is_some(), &[AppRole]),
        ("kubernetes_role", vault.kubernetes_role.is_some(), &[Kubernetes]),
        ("kubernetes_jwt_file", jwt_file, &[Kubernetes]),
    ];
    for (key, is_given, logins) in keys {
        if is_given && !logins.contains(&vault.login) {
            let cause = format!("would not be used: login is \"{}\"", vault.login.as_str());
            found.add(&format!("{path}.{key}"), None, cause);
        }
    }
}
