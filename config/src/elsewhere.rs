//! Hints for unknown keys: the table that a key belongs to, or the name of PgBouncer's option here.

use crate::cluster::{ClusterConfig, NodeConfig};
use crate::config::{Config, PartVisitor, top_level};
use crate::http::HttpAccess;
use crate::peers::PeersConfig;
use crate::pgbouncer;
use crate::pool::{DatabaseConfig, PoolConfig};
use crate::store::StoreConfig;
use crate::suggest::{did_you_mean, nearest};
use crate::table::Settings;
use crate::telemetry::TelemetryConfig;
use crate::tls::{ClientTls, ServerTls};
use crate::user::UserConfig;
use crate::vault::VaultConfig;

/// The error for `key` in the table `path`, whose options are `known`, with the key that was
/// probably meant.
pub(crate) fn why_unknown(key: &str, path: &[&str], known: &[&str]) -> String {
    if path.is_empty() && key == pgbouncer::SECTION {
        return "is PgBouncer's section: here its options stand at the top of the file, before \
                the first table, and `pgimbal config reference` lists them"
            .to_owned();
    }
    if path.first() == Some(&pgbouncer::SECTION) || !is_known_somewhere(key) {
        if let Some(here) = pgbouncer::here(key) {
            return format!("is PgBouncer's name: here {here}");
        }
        return unknown(key, known);
    }
    if top_keys().any(|known| known == key) {
        return "is an option of the top level: write it at the top of the file, before the first \
                [table], for it belongs to the table that it follows"
            .to_owned();
    }
    let tables: Vec<&str> =
        TABLES.iter().filter(|(_, keys)| keys().contains(&key)).map(|(table, _)| *table).collect();
    format!("does not belong here: it is an option of {}", tables.join(" and "))
}

/// The error for a key that no table has, with the nearest of `known`.
pub(crate) fn unknown(key: &str, known: &[&str]) -> String {
    let hint = did_you_mean(nearest(key, known.iter().copied()));
    format!("unknown key{hint}; `pgimbal config reference` lists them")
}

type Keys = fn() -> Vec<&'static str>;

/// The tables that have a name, and what they know.
const TABLES: [(&str, Keys); 11] = [
    ("[databases.NAME]", || DatabaseConfig::keys().chain(PoolConfig::keys()).collect()),
    ("[users.NAME]", || UserConfig::keys().collect()),
    ("[vaults.NAME]", || VaultConfig::keys().collect()),
    ("[clusters.NAME]", || ClusterConfig::keys().collect()),
    ("[clusters.NAME.nodes.NODE]", || NodeConfig::keys().collect()),
    ("[peers]", || PeersConfig::keys().collect()),
    ("[client_tls]", || ClientTls::keys().collect()),
    ("[server_tls] or [databases.NAME.server_tls]", || ServerTls::keys().collect()),
    ("[http]", || HttpAccess::keys().collect()),
    ("[store]", || StoreConfig::keys().collect()),
    ("[telemetry]", || TelemetryConfig::keys().collect()),
];

fn is_known_somewhere(key: &str) -> bool {
    top_keys().any(|known| known == key) || TABLES.iter().any(|(_, keys)| keys().contains(&key))
}

/// The options that stand at the top of the file.
fn top_keys() -> impl Iterator<Item = &'static str> {
    struct Top(Vec<&'static str>);
    impl PartVisitor for Top {
        fn part<T: Settings>(
            &mut self,
            table: &'static str,
            _: fn(&Config) -> &T,
            _: fn(&mut Config) -> &mut T,
        ) {
            if table.is_empty() {
                self.0.extend(T::keys());
            }
        }
    }
    let mut top = Top(Vec::new());
    top_level(&mut top);
    top.0.into_iter()
}
