//! Checks of the store.

use super::findings::Findings;
use crate::config::Config;
use crate::words::StoreKind::{self, File, Kubernetes, Vault};

/// Notes every contradiction in the options of the store.
pub(super) fn check(config: &Config, found: &mut Findings<'_>) {
    let store = &config.store;
    let kind = format!("\"{}\"", store.kind.as_str());
    let of: [(&str, StoreKind); 7] = [
        ("file", File),
        ("secret", Kubernetes),
        ("namespace", Kubernetes),
        ("kubeconfig", Kubernetes),
        ("vault", Vault),
        ("vault_mount", Vault),
        ("vault_path", Vault),
    ];
    for (key, _) in of.iter().filter(|(_, kind)| *kind != store.kind) {
        if found.is_set(&format!("store.{key}")) {
            let cause = format!("would not be used: kind is {kind}");
            found.add(&format!("store.{key}"), None, cause);
        }
    }
    match store.kind {
        File if store.file.is_none() && config.credentials.state_dir.is_none() => {
            let cause = "needs file beside it, or state_dir, the directory where it is kept";
            found.add("store.kind", Some(kind), cause);
        }
        Kubernetes => {
            name(&store.secret, "store.secret", found);
            if let Some(namespace) = &store.namespace {
                name(namespace, "store.namespace", found);
            }
        }
        Vault => vault(config, found),
        _ => {}
    }
}

fn vault(config: &Config, found: &mut Findings<'_>) {
    let store = &config.store;
    match &store.vault {
        Some(name) if !config.vaults.contains_key(name) => {
            let cause = "there is no [vaults] entry of that name";
            found.add("store.vault", Some(format!("{name:?}")), cause);
        }
        None if config.vaults.is_empty() => {
            let cause = "there is no Vault: add [vaults.NAME] with its address";
            found.add("store.kind", Some("\"vault\"".to_owned()), cause);
        }
        None if config.vaults.len() > 1 => {
            let names: Vec<&str> = config.vaults.keys().map(String::as_str).collect();
            let cause = format!("say which Vault it is: {}", names.join(", "));
            found.add("store.vault", None, cause);
        }
        _ => {}
    }
    for (key, path) in [("vault_mount", &store.vault_mount), ("vault_path", &store.vault_path)] {
        if !is_path(path) {
            let cause =
                "is no path: names with / between them, without . and .. and odd characters";
            found.add(&format!("store.{key}"), Some(format!("{path:?}")), cause);
        }
    }
}

/// A name of Kubernetes, which becomes a segment of a URL: RFC 1123's labels with dots between
/// them.
fn name(name: &str, key: &str, found: &mut Findings<'_>) {
    let is_alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let is_label = |label: &str| {
        label.starts_with(is_alphanumeric)
            && label.ends_with(is_alphanumeric)
            && label.chars().all(|c| is_alphanumeric(c) || c == '-')
    };
    // Kubernetes' own limit of a name.
    if name.len() > 253 || !name.split('.').all(is_label) {
        let cause = "is no name of Kubernetes: lower-case letters, digits, - and .";
        found.add(key, Some(format!("{name:?}")), cause);
    }
}

/// Whether each part between the slashes stays where it is put in a URL.
fn is_path(path: &str) -> bool {
    let odd = |c: char| !(c.is_ascii_alphanumeric() || "-_.@".contains(c));
    let is_part =
        |part: &str| !part.is_empty() && !matches!(part, "." | "..") && !part.contains(odd);
    path.trim_matches('/').split('/').all(is_part)
}
