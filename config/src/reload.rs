//! What changed between two configurations, and what a reload can do about it.

use std::collections::BTreeMap;

use crate::cluster::ClusterConfig;
use crate::config::{Config, PartVisitor, top_level};
use crate::pool::DatabaseConfig;
use crate::table::{OnReload, Settings};

/// The keys that differ, in the file's form: `pool_size`, `databases.app.host`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reload {
    /// What takes effect with the new configuration.
    pub applied: Vec<String>,
    /// What stays as it was until a restart.
    pub needs_restart: Vec<String>,
}

/// Compares the configuration in force with a new one. A database or user that came or went is
/// one key, `databases.app`; a default that changed is not repeated for every database.
#[must_use]
pub fn reload_changes(old: &Config, new: &Config) -> Reload {
    let mut comparison = Comparison { old, new, reload: Reload::default() };
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

struct Comparison<'a> {
    old: &'a Config,
    new: &'a Config,
    reload: Reload,
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
fn differences<T: Settings>(path: &str, old: &T, new: &T, reload: &mut Reload) {
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
    reload: &mut Reload,
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
    reload: &mut Reload,
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
    reload: &mut Reload,
    compare: impl Fn(&str, &T, &T, &mut Reload),
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
