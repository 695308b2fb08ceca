//! Guards of the option tables: what they say is what happens, for every single option.

use std::collections::BTreeSet;

use super::*;
use crate::reference::reference;
use crate::reload::reload_changes;
use crate::sources::{Layer, Origin};
use crate::table::OnReload;

/// An option as the file names it.
struct Listed {
    /// Names of the tables it stands in.
    path: Vec<&'static str>,
    key: &'static str,
    example: &'static str,
    on_reload: OnReload,
}

impl Listed {
    fn name(&self) -> String {
        [self.path.as_slice(), &[self.key]].concat().join(".")
    }

    /// A layer that sets only this.
    fn layer(&self) -> Layer {
        let leaf = Dict::from([(self.key.to_owned(), Value::from(self.example))]);
        Layer::new(
            Origin::Flags,
            self.path
                .iter()
                .rev()
                .fold(leaf, |inner, table| Dict::from([((*table).to_owned(), Value::from(inner))])),
        )
    }
}

#[derive(Default)]
struct Listing(Vec<Listed>);

impl Listing {
    fn add<T: Settings>(&mut self, path: &[&'static str]) {
        self.0.extend(T::TABLE.iter().map(|entry| Listed {
            path: path.to_vec(),
            key: entry.key,
            example: entry.example,
            on_reload: entry.on_reload,
        }));
    }
}

impl PartVisitor for Listing {
    fn part<T: Settings>(
        &mut self,
        table: &'static str,
        _: fn(&Config) -> &T,
        _: fn(&mut Config) -> &mut T,
    ) {
        sound::<T>();
        let path = [table];
        self.add::<T>(if table.is_empty() { &[] } else { &path });
    }
}

/// Every option that there is.
fn listing() -> Vec<Listed> {
    let mut listing = Listing::default();
    top_level(&mut listing);
    sound::<DatabaseConfig>();
    sound::<UserConfig>();
    listing.add::<DatabaseConfig>(&["databases", "app"]);
    listing.add::<PoolConfig>(&["databases", "app"]);
    listing.add::<ServerTls>(&["databases", "app", "server_tls"]);
    listing.add::<UserConfig>(&["users", "ann"]);
    sound::<VaultConfig>();
    sound::<ClusterConfig>();
    sound::<NodeConfig>();
    listing.add::<VaultConfig>(&["vaults", "main"]);
    listing.add::<ClusterConfig>(&["clusters", "main"]);
    listing.add::<ServerTls>(&["clusters", "main", "server_tls"]);
    listing.add::<NodeConfig>(&["clusters", "main", "nodes", "a"]);
    listing.0
}

/// Each entry of a table writes its own field and no other, and its default is the default.
fn sound<T: Settings>() {
    for entry in T::TABLE {
        let mut changed = T::default();
        (entry.set)(&mut changed, &Value::from(entry.example)).expect(entry.key);
        for other in T::TABLE {
            let differs = (other.differs)(&T::default(), &changed);
            assert_eq!(differs, other.key == entry.key, "{} changes {}", entry.key, other.key);
        }
        if !entry.default.is_empty() {
            (entry.set)(&mut changed, &Value::from(entry.default)).expect(entry.key);
            assert!(!(entry.differs)(&T::default(), &changed), "{}: default", entry.key);
        }
        assert!(entry.doc.concat().trim().ends_with('.'), "{}: no sentence", entry.key);
    }
}

fn base() -> Layer {
    let empty = |name: &str| Value::from(Dict::from([(name.to_owned(), Value::from(Dict::new()))]));
    let tables = [("databases", "app"), ("users", "ann"), ("vaults", "main")];
    let node = Dict::from([("nodes".to_owned(), empty("a"))]);
    let cluster = Value::from(Dict::from([("main".to_owned(), Value::from(node))]));
    let tables = tables.map(|(table, name)| (table.to_owned(), empty(name)));
    let values = tables.into_iter().chain([("clusters".to_owned(), cluster)]);
    Layer::new(Origin::Environment, values.collect())
}

fn read_layers(layers: impl IntoIterator<Item = Layer>) -> Config {
    let read = read(&Sources::merged(layers), String::new());
    assert_eq!(read.errors, []);
    read.config
}

#[test]
fn every_option_has_an_effect_and_reload_says_so() {
    let before = read_layers([base()]);
    for option in listing() {
        let after = read_layers([base(), option.layer()]);
        assert_ne!(before, after, "{} is parsed and ignored", option.name());
        let reload = reload_changes(&before, &after);
        let (told, silent) = match option.on_reload {
            OnReload::Applied => (reload.applied, reload.needs_restart),
            OnReload::Restart => (reload.needs_restart, reload.applied),
        };
        assert_eq!(told, [option.name()]);
        assert!(silent.is_empty(), "{silent:?}");
    }
}

#[test]
fn every_option_is_in_the_reference_once() {
    let reference = reference();
    let rows: Vec<&str> = reference.lines().filter(|line| line.starts_with("| `")).collect();
    let mut names = BTreeSet::new();
    for option in listing() {
        // Pool and TLS options of a database are documented where their defaults stand.
        let path = match (option.path.as_slice(), option.key) {
            (["databases", "app", "server_tls"], _) => vec!["server_tls"],
            (["databases", "app"], key) if PoolConfig::keys().any(|pool| pool == key) => vec![],
            (["databases", "app"], _) => vec!["databases", "name"],
            (["users", "ann"], _) => vec!["users", "name"],
            (["vaults", "main"], _) => vec!["vaults", "name"],
            (["clusters", "main", "server_tls"], _) => vec!["server_tls"],
            (["clusters", "main"], _) => vec!["clusters", "name"],
            (["clusters", "main", "nodes", "a"], _) => vec!["clusters", "name", "nodes", "node"],
            (path, _) => path.to_vec(),
        };
        let variable = crate::sources::env_name(&[path.as_slice(), &[option.key]].concat());
        let found = rows.iter().filter(|row| row.contains(&format!("`{variable}`"))).count();
        assert_eq!(found, 1, "{variable}");
        names.insert(variable);
    }
    assert_eq!(rows.len(), names.len(), "the reference has rows for options that are not read");
}

#[test]
fn options_of_the_top_level_have_names_of_their_own() {
    let mut seen = BTreeSet::new();
    for option in listing() {
        assert!(seen.insert(option.name()), "{} twice", option.name());
    }
}
