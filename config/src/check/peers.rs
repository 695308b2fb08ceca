//! Checks of the other replicas, and of the key that they share.

use std::collections::BTreeSet;

use super::findings::Findings;
use crate::config::Config;
use crate::peers::LEAST_DEPLOYMENT_KEY;
use crate::secret::Secret;

/// Number of different characters below which a key is no random one: 32 random hexadecimal digits
/// have fewer once in 10^8 keys.
const LEAST_VARIETY: usize = 8;

/// Notes every contradiction in the options of peers.
pub(super) fn check(config: &Config, found: &mut Findings<'_>) {
    let (peers, own) = (&config.peers, &config.credentials);
    let Some(listen) = peers.listen else {
        for key in ["dns", "addresses", "peer_id"] {
            let key = format!("peers.{key}");
            if found.is_set(&key) {
                found.add(&key, None, "needs listen beside it, the address for other replicas");
            }
        }
        return;
    };
    let key = "peers.listen";
    let shown = Some(listen.to_string());
    if listen.port() != 0 && config.listen.addresses.contains(&listen) {
        found.add(key, shown.clone(), "the address is one that clients connect to (listen)");
    }
    if listen.port() != 0 && config.http.listen == Some(listen) {
        found.add(key, shown.clone(), "the address is that of http_listen");
    }
    match (&peers.dns, peers.addresses.is_empty()) {
        (Some(_), false) => {
            let cause = "addresses are listed too: the replicas are the one or the other";
            found.add("peers.dns", None, cause);
        }
        (Some(_), true) if listen.port() == 0 => {
            found.add(key, shown, "dns needs a port: that of every replica");
        }
        (None, true) => {
            let cause = "there is no other replica: add dns, or addresses";
            found.add(key, shown, cause);
        }
        _ => {}
    }
    for (index, place) in peers.addresses.iter().enumerate() {
        if peers.addresses[..index].contains(place) {
            found.add("peers.addresses", Some(place.to_string()), "is listed twice");
        }
    }
    match &own.deployment_key {
        None => {
            let cause = "needs deployment_key, by which replicas know each other: the same in \
                         all, such as `openssl rand -hex 32` makes";
            found.add(key, Some(listen.to_string()), cause);
        }
        Some(secret) => strength("deployment_key", secret, found),
    }
    if let Some(secret) = &own.deployment_key_previous {
        strength("deployment_key_previous", secret, found);
        if own.deployment_key.as_ref() == Some(secret) {
            found.add("deployment_key_previous", None, "is deployment_key: leave it out");
        }
    }
}

/// Whoever reaches the port can try keys at home, so a key must be a random one.
fn strength(key: &str, secret: &Secret, found: &mut Findings<'_>) {
    let text = secret.expose();
    let variety: BTreeSet<char> = text.chars().collect();
    if text.chars().count() < LEAST_DEPLOYMENT_KEY || variety.len() < LEAST_VARIETY {
        let cause = format!(
            "is too easy to guess for [peers]: it needs at least {LEAST_DEPLOYMENT_KEY} random \
             characters, such as `openssl rand -hex 32` makes"
        );
        found.add(key, None, cause);
    }
}
