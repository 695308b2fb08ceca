//! What the configuration says of one user's passwords.

use std::time::Duration;

use pgimbal_auth::account::LoginKeys;
use pgimbal_auth::rotation::Grace;
use pgimbal_auth::verifier::{SaltKey, SaltParameters};
use pgimbal_config::{Config, SourceConfig, UserConfig};

/// One user's settings, made anew at each reload.
pub(in crate::credentials) struct RoleSettings {
    /// Whether the configuration names the user; otherwise only a rule covers it.
    pub(super) is_listed: bool,
    /// How long old passwords are accepted.
    pub(super) grace: Grace,
    /// How often the password is fetched; `None` when its source tells changes itself.
    pub(super) poll_interval: Option<Duration>,
    /// What verifiers are made with, so that a client is shown one salt for all passwords.
    pub(super) salt_parameters: SaltParameters,
    /// What is accepted beside all generations (`accept_also`).
    pub(super) extra: Option<LoginKeys>,
}

/// The settings of a user. Derives the keys of `accept_also`, which takes milliseconds.
pub(in crate::credentials) fn role_settings(
    config: &Config,
    name: &str,
    user: &UserConfig,
    salts: &SaltKey,
) -> RoleSettings {
    let all = &config.credentials;
    let generations = user.grace_generations.unwrap_or(all.grace_generations) as usize;
    let grace = Grace { generations, age: user.grace_age.unwrap_or(all.grace_age) };
    let salt_parameters = SaltParameters::of_user(name, user.accept_also.iter(), salts);
    let salt_parameters = salt_parameters.unwrap_or_else(|_| SaltParameters::of_key(name, salts));
    let extra =
        user.accept_also.as_ref().map(|also| LoginKeys::derive(name, also, &salt_parameters));
    RoleSettings {
        is_listed: config.users.contains_key(name),
        grace,
        poll_interval: poll_interval(config, user),
        salt_parameters,
        extra: extra.and_then(Result::ok),
    }
}

fn poll_interval(config: &Config, user: &UserConfig) -> Option<Duration> {
    match user.source() {
        SourceConfig::Vault { vault, .. } => {
            let only = config.vaults.values().next().filter(|_| vault.is_empty());
            config.vaults.get(&vault).or(only).map(|vault| vault.poll_interval)
        }
        SourceConfig::Inline | SourceConfig::File(_) | SourceConfig::Env(_) => None,
    }
}
