//! What the configuration says of one user's passwords.

use std::time::Duration;

use pgimbal_auth::rotation::Grace;
use pgimbal_config::{Config, SourceConfig, UserConfig};

/// How long old passwords of `user` are accepted.
pub(super) fn grace(config: &Config, user: &UserConfig) -> Grace {
    let all = &config.credentials;
    let generations = user.grace_generations.unwrap_or(all.grace_generations);
    Grace { generations: generations as usize, age: user.grace_age.unwrap_or(all.grace_age) }
}

/// How often the source of `user` is asked; `None` for one that tells changes itself or has none.
pub(super) fn poll_interval(config: &Config, user: &UserConfig) -> Option<Duration> {
    match user.source() {
        SourceConfig::Vault { vault, .. } => {
            let only = config.vaults.values().next().filter(|_| vault.is_empty());
            config.vaults.get(&vault).or(only).map(|vault| vault.poll_interval)
        }
        SourceConfig::Inline | SourceConfig::File(_) | SourceConfig::Env(_) => None,
    }
}
