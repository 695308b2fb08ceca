//! Checks of the budget of connections to each server.

use std::collections::BTreeMap;

use super::findings::Findings;
use crate::budget::{ServerBudget, ServerLimit};
use crate::config::{Config, WILDCARD};
use crate::pool::{DatabaseConfig, ResolvedPool};
use crate::words::StoreKind;

/// Notes every contradiction in the options of budgets.
pub(super) fn check(config: &Config, found: &mut Findings<'_>) {
    if config.max_replicas > 1 && config.store.kind == StoreKind::Memory {
        let cause = "needs a store that all replicas share, for who may open how many connections \
                     stands there: set store.kind";
        found.add("max_replicas", Some(config.max_replicas.to_string()), cause);
    }
    let plain = config.databases.iter().filter(|(_, database)| database.cluster.is_none());
    let plain = plain.map(|(name, it)| (format!("databases.{name}"), it.max_server_connections, 0));
    let clusters = config.clusters.iter();
    let clusters =
        clusters.map(|(name, it)| (format!("clusters.{name}"), it.max_server_connections, 1));
    for (section, limit, reserved) in plain.chain(clusters) {
        let ServerLimit::Connections(limit) = limit else { continue };
        let least = ServerBudget { reserved, ..ServerBudget::default() }.least(config.max_replicas);
        if limit < least {
            let each = match (config.max_replicas > 1, reserved) {
                (true, 0) => "each replica has one that looks whose connections are there",
                (true, _) => {
                    "each replica has one that looks whose connections are there, and a prober"
                }
                (false, _) => "the prober has one",
            };
            let cause = format!("{each}, so that none is left for clients: at least {least}");
            found.add(&format!("{section}.max_server_connections"), Some(limit.to_string()), cause);
        }
    }
    for (server, (key, share, wanted)) in least(config) {
        if wanted > share {
            let cause = format!(
                "leaves this replica {share} connections for pools, and min_pool_size of all pools \
                 at {server} together asks for {wanted}"
            );
            found.add(&key, None, cause);
        }
    }
}

/// The database that sets the limit of a pool's server.
fn limited<'a>(config: &'a Config, pool: &ResolvedPool) -> Option<&'a str> {
    let limits = |database: &DatabaseConfig| {
        database.cluster.is_none()
            && (&database.host, database.port) == (&pool.host, pool.port)
            && database.max_server_connections == pool.server_budget.limit
    };
    config.databases.iter().find(|(_, database)| limits(database)).map(|(name, _)| name.as_str())
}

/// By server where the limit is a number: the option, this replica's share for pools, and what the
/// listed pools keep open at the least.
fn least(config: &Config) -> BTreeMap<String, (String, u64, u64)> {
    let mut servers = BTreeMap::new();
    let names = |name: &&String| *name != WILDCARD;
    for database in config.databases.keys().filter(names) {
        for user in config.users.keys().filter(names) {
            let Some(pool) = config.pool(database, user) else { continue };
            let ServerLimit::Connections(limit) = pool.server_budget.limit else { continue };
            let key = match &pool.cluster {
                Some(cluster) => format!("clusters.{}", cluster.name),
                None => format!("databases.{}", limited(config, &pool).unwrap_or(database)),
            };
            let share = u64::from(pool.server_budget.of_pools(limit, config.max_replicas));
            let server = match &pool.cluster {
                Some(cluster) => format!("each node of {}", cluster.name),
                None => format!("{}:{}", pool.host, pool.port),
            };
            let key = format!("{key}.max_server_connections");
            let entry = servers.entry(server).or_insert((key, share, 0));
            entry.2 += u64::from(pool.pool.min_size);
        }
    }
    servers
}
