//! Whether the configured limits fit the machine's file descriptors and each server's
//! `max_connections`.

use std::collections::BTreeMap;

use pgimbal_config::{Config, Host, ResolvedPool, ServerBudget, ServerLimit};

use super::expiry::OpenConnections;
use super::findings::Findings;
use crate::descriptors::{self, Requirement};

/// Whether the limit of open files leaves a descriptor for each client and server connection.
pub(super) fn descriptors(config: &Config, report: &Findings) {
    // A warning and no failure: the service may have another limit than whoever asks.
    match Requirement::by(config).warning(descriptors::raise_limit()) {
        None => report.ok("open files", "ok"),
        Some(warning) => report.warn("open files", warning),
    }
}

/// The server connections that the pools may open at each server.
#[derive(Debug, Default)]
pub(super) struct Load {
    servers: BTreeMap<(String, u16), Server>,
    replicas: u32,
}

#[derive(Debug)]
struct Server {
    host: Host,
    /// Of each database: what its pools may open, and its own limit.
    databases: BTreeMap<String, (u64, Option<u32>)>,
    budget: ServerBudget,
    /// The role that looks at its processes, where that is a cluster's prober.
    looks: Option<String>,
    /// What `min_pool_size` of all pools asks for.
    least: u64,
}

impl Load {
    /// Makes it without pools, for a deployment of so many replicas.
    pub(super) const fn new(replicas: u32) -> Self {
        Self { servers: BTreeMap::new(), replicas }
    }

    /// Notes a pool of `database` that leads there.
    pub(super) fn add(&mut self, host: &Host, port: u16, database: &str, pool: &ResolvedPool) {
        let server = self.servers.entry((host.to_string(), port)).or_insert_with(|| Server {
            host: host.clone(),
            databases: BTreeMap::new(),
            budget: pool.server_budget,
            looks: pool.cluster.as_ref().and_then(|cluster| cluster.config.probe_user.clone()),
            least: 0,
        });
        server.least += u64::from(pool.pool.min_size);
        let most = u64::from(pool.pool.size + pool.pool.reserve_size);
        let entry = server.databases.entry(database.to_owned());
        entry.or_insert((0, pool.max_db_connections)).0 += most;
    }

    /// Asks each server how many connections it has for them.
    pub(super) async fn check(self, open_connections: &mut OpenConnections, report: &Findings) {
        for ((name, port), server) in self.servers {
            let wanted: u64 = server
                .databases
                .values()
                .map(|(most, limit)| limit.map_or(*most, |limit| (*most).min(u64::from(limit))))
                .sum();
            let Some(room) = open_connections.connections(&server.host, port).await else {
                continue;
            };
            let limit = server.budget.limit;
            if let Some((budget, least)) = server.too_little(room, self.replicas) {
                report.fail(
                    format!("server {name}:{port}"),
                    format!(
                        "this replica may have {budget} connections for pools \
                         (max_server_connections = {limit}), and {least}"
                    ),
                );
            } else if wanted > room {
                report.warn(
                    format!("server {name}:{port}"),
                    format!(
                        "the pools may open {wanted} connections, and it has {room} for them \
                         (max_connections without those that are reserved): lower pool_size, or \
                         set max_db_connections"
                    ),
                );
            }
            let looks = server.looks.as_deref();
            if self.replicas > 1
                && open_connections.sees_others(&server.host, port, looks).await == Some(false)
            {
                report.warn(
                    format!("server {name}:{port}"),
                    "the role that looks at its processes has no pg_read_all_stats (a part of \
                     pg_monitor): whose connections others than pgimbal have cannot be seen",
                );
            }
        }
    }
}

impl Server {
    /// This replica's connections for pools, with what is more than that, in words.
    fn too_little(&self, room: u64, replicas: u32) -> Option<(u32, String)> {
        let all = match self.budget.limit {
            ServerLimit::Off => return None,
            ServerLimit::Connections(limit) => limit,
            ServerLimit::Auto => {
                self.budget.of_settings(u32::try_from(room).unwrap_or(u32::MAX), 0)
            }
        };
        let share = self.budget.of_pools(all, replicas);
        let more = if self.least > u64::from(share) {
            format!("min_pool_size of all pools asks for {}", self.least)
        } else if share == 0 {
            let least = self.budget.least(replicas);
            format!(
                "{replicas} replicas need at least {least} of the server: lower max_replicas, or \
                     raise the server's max_connections"
            )
        } else {
            return None;
        };
        Some((share, more))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_is_too_small_for_so_many_replicas_is_told() {
        let server = |least, reserved| Server {
            host: Host::Tcp("one".to_owned()),
            databases: BTreeMap::new(),
            budget: ServerBudget { reserved, ..ServerBudget::default() },
            least,
            looks: None,
        };
        // 95 % of 9 are 8.
        assert_eq!(server(1, 0).too_little(9, 4), None);
        let (share, why) = server(0, 1).too_little(9, 4).expect("too little");
        assert!(share == 0 && why.contains("at least 12") && why.contains("max_replicas"), "{why}");
        let (share, why) = server(5, 0).too_little(9, 2).expect("too little");
        assert!(share == 3 && why.contains("min_pool_size of all pools asks for 5"), "{why}");
    }
}
