//! Checks of the budget of connections to each server.

use std::collections::BTreeMap;

use super::findings::Findings;
use crate::budget::ServerLimit;
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
    for (name, cluster) in &config.clusters {
        if cluster.max_server_connections == ServerLimit::Connections(1) {
            let cause = "the prober has one, so that none is left for clients: at least 2";
            let key = format!("clusters.{name}.max_server_connections");
            found.add(&key, Some("1".to_owned()), cause);
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
            let share = limit / config.max_replicas.max(1);
            let share = u64::from(share.saturating_sub(pool.server_budget.reserved));
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
