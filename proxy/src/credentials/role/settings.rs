//! The options of the configuration for one user's passwords.

use std::time::Duration;

use pgimbal_auth::account::LoginKeys;
use pgimbal_auth::rotation::Grace;
use pgimbal_auth::verifier::{SaltKey, SaltParameters};
use pgimbal_config::{Config, SourceConfig, UserConfig};

/// The options of one user, made anew at each reload.
pub(in crate::credentials) struct RoleSettings {
    /// Whether the configuration lists the user; otherwise only a rule covers it.
    pub(super) is_listed: bool,
    /// How long old passwords are accepted from clients.
    pub(super) grace: Grace,
    /// Interval of fetches, the option `poll_interval` of the Vault; `None` for a source that is
    /// not a Vault.
    pub(super) poll_interval: Option<Duration>,
    /// The salt and iterations with which verifiers are made, so that a client is shown the same
    /// salt for all passwords.
    pub(super) salt_parameters: SaltParameters,
    /// The keys of the password that is accepted beside all generations (`accept_also`); `None`
    /// when there is none, or it cannot be used.
    pub(super) extra: Option<LoginKeys>,
}

/// Reads the options of `user`, whose name is `name`; what it does not set comes from the section
/// `credentials`. Derives the keys of `accept_also`, which takes milliseconds; one that is
/// malformed is left out. Called when a role is made and at each reload.
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
