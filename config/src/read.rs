//! Reads merged values into a [`Config`] through the option tables, and collects what is wrong.

use std::collections::BTreeMap;

use figment::value::{Dict, Value};

use crate::cluster::{ClusterConfig, NodeConfig};
use crate::config::{Config, PartVisitor, top_level};
use crate::elsewhere::{unknown, why_unknown};
use crate::error::ConfigError;
use crate::pgbouncer;
use crate::pool::{DatabaseConfig, PoolConfig};
use crate::sources::Sources;
use crate::table::Settings;
use crate::tls::ServerTls;
use crate::user::UserConfig;
use crate::vault::VaultConfig;

/// What was read, and where each option that is set came from.
pub(crate) struct Read {
    pub(crate) config: Config,
    pub(crate) origins: Origins,
    pub(crate) errors: Vec<ConfigError>,
}

/// The file, variable or flag of each option, by its key.
pub(crate) struct Origins {
    set: BTreeMap<String, String>,
    /// Where one would set what nothing set: the file, if there is one.
    place: String,
}

impl Origins {
    /// Of a configuration whose values have been read before.
    pub(crate) const fn nowhere(place: String) -> Self {
        Self { set: BTreeMap::new(), place }
    }

    /// Where `key` was set, or would be.
    pub(crate) fn of(&self, key: &str) -> &str {
        self.set.get(key).unwrap_or(&self.place)
    }

    /// Whether anything set `key`.
    pub(crate) fn is_set(&self, key: &str) -> bool {
        self.set.contains_key(key)
    }
}

/// Reads every value there is. `place` is where one would add what is missing.
pub(crate) fn read(sources: &Sources, place: String) -> Read {
    let mut values = sources.values();
    let databases = values.remove("databases");
    let users = values.remove("users");
    let vaults = values.remove("vaults");
    let clusters = values.remove("clusters");
    let mut reading = Reading {
        sources,
        config: Config::default(),
        origins: Origins { set: BTreeMap::new(), place },
        errors: Vec::new(),
        rest: values,
        names: vec!["databases", "users", "vaults", "clusters"],
    };
    top_level(&mut reading);
    let rest = std::mem::take(&mut reading.rest);
    let names = std::mem::take(&mut reading.names);
    reading.refuse(&rest, &[], &names);
    reading.databases(databases);
    reading.users(users);
    reading.vaults(vaults);
    reading.clusters(clusters);
    Read { config: reading.config, origins: reading.origins, errors: reading.errors }
}

struct Reading<'a> {
    sources: &'a Sources,
    config: Config,
    origins: Origins,
    errors: Vec<ConfigError>,
    /// Values of the top level that no table has claimed yet.
    rest: Dict,
    /// Names that the top level knows.
    names: Vec<&'static str>,
}

impl PartVisitor for Reading<'_> {
    fn part<T: Settings>(
        &mut self,
        table: &'static str,
        _: fn(&Config) -> &T,
        part: fn(&mut Config) -> &mut T,
    ) {
        let mut config = std::mem::take(&mut self.config);
        if table.is_empty() {
            let mut rest = std::mem::take(&mut self.rest);
            self.fill(part(&mut config), &mut rest, &[]);
            self.rest = rest;
            self.names.extend(T::keys());
        } else {
            self.names.push(table);
            if let Some(value) = self.rest.remove(table) {
                let mut inner = self.table(value, &[table]);
                self.fill(part(&mut config), &mut inner, &[table]);
                self.refuse(&inner, &[table], &T::keys().collect::<Vec<_>>());
            }
        }
        self.config = config;
    }
}

impl Reading<'_> {
    /// Takes what `T` knows out of `values`.
    fn fill<T: Settings>(&mut self, target: &mut T, values: &mut Dict, path: &[&str]) {
        for entry in T::TABLE {
            let Some(value) = values.remove(entry.key) else { continue };
            let keys = [path, &[entry.key]].concat();
            let origin = self.sources.origin(value.tag(), &keys);
            match (entry.set)(target, &value) {
                Ok(()) => {
                    self.origins.set.insert(keys.join("."), origin);
                }
                Err(cause) => {
                    let shown = (!entry.secret).then(|| shown(&value));
                    self.errors.push(ConfigError {
                        origin,
                        key: keys.join("."),
                        value: shown,
                        cause,
                    });
                }
            }
        }
    }

    /// Refuses what nobody took. The values are not shown: a mistyped `password` is unknown too.
    fn refuse(&mut self, rest: &Dict, path: &[&str], known: &[&str]) {
        for (key, value) in rest {
            let keys = [path, &[key.as_str()]].concat();
            self.errors.push(ConfigError {
                origin: self.origin(value, &keys),
                key: keys.join("."),
                value: None,
                cause: match value {
                    // A mistyped table: its name says more than what an option is called.
                    Value::Dict(..) if key != pgbouncer::SECTION => unknown(key, known),
                    _ => why_unknown(key, path, known),
                },
            });
        }
    }

    fn databases(&mut self, value: Option<Value>) {
        for (name, value) in self.named(value, "databases") {
            let path = ["databases", name.as_str()];
            let mut values = self.table(value, &path);
            let mut database = DatabaseConfig {
                tls: self.config.server_tls.clone(),
                pool: self.config.pool.clone(),
                ..DatabaseConfig::default()
            };
            self.fill(&mut database, &mut values, &path);
            self.fill(&mut database.pool, &mut values, &path);
            if let Some(tls) = values.remove("server_tls") {
                let path = ["databases", name.as_str(), "server_tls"];
                let mut tls = self.table(tls, &path);
                self.fill(&mut database.tls, &mut tls, &path);
                self.refuse(&tls, &path, &ServerTls::keys().collect::<Vec<_>>());
            }
            let known = DatabaseConfig::keys().chain(PoolConfig::keys()).chain(["server_tls"]);
            self.refuse(&values, &path, &known.collect::<Vec<_>>());
            self.config.databases.insert(name, database);
        }
    }

    fn users(&mut self, value: Option<Value>) {
        for (name, value) in self.named(value, "users") {
            let user = self.whole::<UserConfig>(value, &["users", name.as_str()]);
            self.config.users.insert(name, user);
        }
    }

    fn vaults(&mut self, value: Option<Value>) {
        for (name, value) in self.named(value, "vaults") {
            let path = ["vaults", name.as_str()];
            let vault = self.whole::<VaultConfig>(value, &path);
            self.config.vaults.insert(name, vault);
        }
    }

    fn clusters(&mut self, value: Option<Value>) {
        for (name, value) in self.named(value, "clusters") {
            let path = ["clusters", name.as_str()];
            let mut values = self.table(value, &path);
            let mut cluster =
                ClusterConfig { tls: self.config.server_tls.clone(), ..ClusterConfig::default() };
            self.fill(&mut cluster, &mut values, &path);
            if let Some(tls) = values.remove("server_tls") {
                let path = [path[0], path[1], "server_tls"];
                let mut tls = self.table(tls, &path);
                self.fill(&mut cluster.tls, &mut tls, &path);
                self.refuse(&tls, &path, &ServerTls::keys().collect::<Vec<_>>());
            }
            if let Some(nodes) = values.remove("nodes") {
                for (node, value) in self.table(nodes, &[path[0], path[1], "nodes"]) {
                    let path = [path[0], path[1], "nodes", node.as_str()];
                    let read = self.whole::<NodeConfig>(value, &path);
                    cluster.nodes.insert(node, read);
                }
            }
            let known = ClusterConfig::keys().chain(["server_tls", "nodes"]);
            self.refuse(&values, &path, &known.collect::<Vec<_>>());
            self.config.clusters.insert(name, cluster);
        }
    }

    /// A table that holds the options of `T` and nothing else.
    fn whole<T: Settings>(&mut self, value: Value, path: &[&str]) -> T {
        let mut values = self.table(value, path);
        let mut target = T::default();
        self.fill(&mut target, &mut values, path);
        self.refuse(&values, path, &T::keys().collect::<Vec<_>>());
        target
    }

    /// The entries of a table of names.
    fn named(&mut self, value: Option<Value>, table: &str) -> Dict {
        let Some(value) = value else { return Dict::new() };
        let origin = self.origin(&value, &[table]);
        self.origins.set.insert(table.to_owned(), origin);
        self.table(value, &[table])
    }

    /// The inside of a table; anything else in its place is an error.
    fn table(&mut self, value: Value, path: &[&str]) -> Dict {
        let origin = self.origin(&value, path);
        if let Value::Dict(_, inner) = value {
            self.origins.set.insert(path.join("."), origin);
            return inner;
        }
        let key = path.join(".");
        let is_connection = value.as_str().is_some_and(pgbouncer::is_connection);
        let cause = match is_connection {
            true => {
                format!("is PgBouncer's form: here it is a table, [{key}], with host and the like")
            }
            false => format!("expected a table, [{key}]"),
        };
        self.errors.push(ConfigError { origin, key, value: None, cause });
        Dict::new()
    }

    /// Where a value came from; for a table, where its first value did.
    fn origin(&self, value: &Value, keys: &[&str]) -> String {
        match value.as_dict().and_then(|inner| inner.iter().next()) {
            Some((key, first)) => self.origin(first, &[keys, &[key.as_str()]].concat()),
            None => self.sources.origin(value.tag(), keys),
        }
    }
}

/// A value as an error shows it, cut to what fits a line. What looks like a URI may hold a
/// password, whatever the option.
fn shown(value: &Value) -> String {
    const LONGEST: usize = 80;
    let text = match value {
        Value::String(_, text) if text.contains("://") || text.contains('@') => {
            "\"***\"".to_owned()
        }
        Value::String(_, text) => format!("{text:?}"),
        Value::Bool(_, flag) => flag.to_string(),
        Value::Array(_, items) => {
            format!("[{}]", items.iter().map(shown).collect::<Vec<_>>().join(", "))
        }
        Value::Dict(..) => "a table".to_owned(),
        number => match (number.to_i128(), number.to_u128(), number.to_f64()) {
            (Some(n), ..) => n.to_string(),
            (None, Some(n), _) => n.to_string(),
            (None, None, Some(n)) => n.to_string(),
            _ => "a value of another kind".to_owned(),
        },
    };
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests;
