//! Reload: which options differ between two configurations, and which of them apply without a
//! restart.

use std::collections::BTreeMap;

use crate::check;
use crate::cluster::ClusterConfig;
use crate::config::{Config, PartVisitor, top_level};
use crate::error::ConfigErrors;
use crate::pool::DatabaseConfig;
use crate::read::Origins;
use crate::table::{OnReload, Settings};

/// The keys whose values differ between two configurations, in the file's form: `pool_size`,
/// `databases.app.host`. Both lists are empty when nothing changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReloadChanges {
    /// Keys whose new values take effect with the reload, in the form `databases.app.host`.
    pub applied: Vec<String>,
    /// Keys whose old values stay in force until a restart, kept by [`config_after_reload`]. Only
    /// options of the top level are among them.
    pub needs_restart: Vec<String>,
}

/// Compares the configuration in force with a new one, for the report of a reload; neither is
/// changed. A database, user, Vault or cluster that was added or removed is one key, such as
/// `databases.app`. A changed default is listed once, not again for every database that follows it.
/// Only keys are told, never values. The contents of files, such as certificates, are not compared.
#[must_use]
pub fn reload_changes(old: &Config, new: &Config) -> ReloadChanges {
    let mut comparison = Comparison { old, new, reload: ReloadChanges::default() };
    top_level(&mut comparison);
    let mut reload = comparison.reload;
    each(&old.databases, &new.databases, "databases", &mut reload, |path, a, b, reload| {
        database(path, (old, a), (new, b), reload);
    });
    each(&old.users, &new.users, "users", &mut reload, |path, a, b, reload| {
        differences(path, a, b, reload);
    });
    each(&old.vaults, &new.vaults, "vaults", &mut reload, |path, a, b, reload| {
        differences(path, a, b, reload);
    });
    each(&old.clusters, &new.clusters, "clusters", &mut reload, |path, a, b, reload| {
        cluster(path, (old, a), (new, b), reload);
    });
    reload
}

/// The configuration in force after a reload: `new`, with the values of `running` for the options
/// that need a restart. Nothing takes effect yet: the caller puts the result in place of `running`.
///
/// # Errors
/// [`ConfigErrors`] when the mixture contradicts itself although `new` alone does not; such a
/// change needs a restart. `new` is dropped then, and `running` stays in force.
pub fn config_after_reload(running: &Config, new: Config) -> Result<Config, ConfigErrors> {
    let mut keeping = Keeping { running, config: new };
    top_level(&mut keeping);
    let config = keeping.config;
    let place = "until a restart".to_owned();
    match ConfigErrors::from_found(check::check(&config, &Origins::nowhere(place))) {
        None => Ok(config),
        Some(errors) => Err(errors),
    }
}

struct Keeping<'a> {
    running: &'a Config,
    config: Config,
}

impl PartVisitor for Keeping<'_> {
    fn part<T: Settings>(
        &mut self,
        _: &'static str,
        of: fn(&Config) -> &T,
        of_mut: fn(&mut Config) -> &mut T,
    ) {
        let kept = T::TABLE.iter().filter(|entry| entry.on_reload == OnReload::Restart);
        for entry in kept {
            (entry.take)(of_mut(&mut self.config), of(self.running));
        }
    }
}

struct Comparison<'a> {
    old: &'a Config,
    new: &'a Config,
    reload: ReloadChanges,
}

impl PartVisitor for Comparison<'_> {
    fn part<T: Settings>(
        &mut self,
        table: &'static str,
        of: fn(&Config) -> &T,
        _: fn(&mut Config) -> &mut T,
    ) {
        let path = if table.is_empty() { String::new() } else { format!("{table}.") };
        differences(&path, of(self.old), of(self.new), &mut self.reload);
    }
}

/// Notes the options of `T` that differ. `path` is empty or ends in a dot.
fn differences<T: Settings>(path: &str, old: &T, new: &T, reload: &mut ReloadChanges) {
    for entry in T::TABLE.iter().filter(|entry| (entry.differs)(old, new)) {
        let key = format!("{path}{}", entry.key);
        match entry.on_reload {
            OnReload::Applied => reload.applied.push(key),
            OnReload::Restart => reload.needs_restart.push(key),
        }
    }
}

/// Notes what differs in a database, apart from defaults that it merely follows.
fn database(
    path: &str,
    (old_config, old): (&Config, &DatabaseConfig),
    (new_config, new): (&Config, &DatabaseConfig),
    reload: &mut ReloadChanges,
) {
    differences(path, old, new, reload);
    if old.pool != old_config.pool || new.pool != new_config.pool {
        differences(path, &old.pool, &new.pool, reload);
    }
    if old.tls != old_config.server_tls || new.tls != new_config.server_tls {
        differences(&format!("{path}server_tls."), &old.tls, &new.tls, reload);
    }
}

/// Notes what differs in a cluster and its nodes.
fn cluster(
    path: &str,
    (old_config, old): (&Config, &ClusterConfig),
    (new_config, new): (&Config, &ClusterConfig),
    reload: &mut ReloadChanges,
) {
    differences(path, old, new, reload);
    if old.tls != old_config.server_tls || new.tls != new_config.server_tls {
        differences(&format!("{path}server_tls."), &old.tls, &new.tls, reload);
    }
    let nodes = format!("{path}nodes");
    each(&old.nodes, &new.nodes, &nodes, reload, |path, a, b, reload| {
        differences(path, a, b, reload);
    });
}

/// Compares the entries that both have, and notes those that only one has.
fn each<T>(
    old: &BTreeMap<String, T>,
    new: &BTreeMap<String, T>,
    table: &str,
    reload: &mut ReloadChanges,
    compare: impl Fn(&str, &T, &T, &mut ReloadChanges),
) {
    for (name, entry) in new {
        match old.get(name) {
            Some(before) => compare(&format!("{table}.{name}."), before, entry, reload),
            None => reload.applied.push(format!("{table}.{name}")),
        }
    }
    let gone = old.keys().filter(|name| !new.contains_key(*name));
    reload.applied.extend(gone.map(|name| format!("{table}.{name}")));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words::AuthType;

    #[test]
    fn what_waits_for_a_restart_stays_and_is_said_until_it_is_changed_back() {
        let running = Config::default();
        let mut new = Config::default();
        new.databases.insert("app".to_owned(), DatabaseConfig::default());
        new.clients.auth_type = AuthType::Trust;
        new.pool.size = 33;
        new.workers = 3;
        new.listen.addresses = vec!["127.0.0.1:7000".parse().expect("an address")];
        let changes = reload_changes(&running, &new);
        assert_eq!(changes.needs_restart, ["listen", "workers"]);
        let force = config_after_reload(&running, new.clone()).expect("usable");
        assert_eq!((force.workers, force.pool.size), (running.workers, 33));
        assert_eq!(force.listen, running.listen);
        // Once more: it still waits. Changed back: nothing does.
        assert_eq!(reload_changes(&force, &new).needs_restart, ["listen", "workers"]);
        assert_eq!(reload_changes(&force, &new).applied, [""; 0]);
        new.workers = running.workers;
        new.listen = running.listen.clone();
        assert_eq!(reload_changes(&force, &new), ReloadChanges::default());
    }

    #[test]
    fn what_would_only_be_safe_after_the_restart_is_refused() {
        let mut running = Config::default();
        running.listen.addresses = vec!["0.0.0.0:6432".parse().expect("an address")];
        let mut new = Config::default();
        new.databases.insert("app".to_owned(), DatabaseConfig::default());
        new.clients.auth_type = AuthType::Trust;
        let refused =
            config_after_reload(&running, new).expect_err("trust on the network").to_string();
        assert!(refused.contains("until a restart: auth_type"), "{refused}");
    }
}
