//! Whether the configured limits fit the machine's file descriptors and each server's
//! `max_connections`.

use std::collections::BTreeMap;

use pgimbal_config::{Config, Host, ResolvedPool};

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
pub(super) struct Load(BTreeMap<(String, u16), Server>);

#[derive(Debug)]
struct Server {
    host: Host,
    /// Of each database: what its pools may open, and its own limit.
    databases: BTreeMap<String, (u64, Option<u32>)>,
}

impl Load {
    /// Notes a pool of `database` that leads there.
    pub(super) fn add(&mut self, host: &Host, port: u16, database: &str, pool: &ResolvedPool) {
        let server = self
            .0
            .entry((host.to_string(), port))
            .or_insert_with(|| Server { host: host.clone(), databases: BTreeMap::new() });
        let most = u64::from(pool.pool.size + pool.pool.reserve_size);
        let entry = server.databases.entry(database.to_owned());
        entry.or_insert((0, pool.max_db_connections)).0 += most;
    }

    /// Asks each server how many connections it has for them.
    pub(super) async fn check(self, open_connections: &mut OpenConnections, report: &Findings) {
        for ((name, port), server) in self.0 {
            let wanted: u64 = server
                .databases
                .values()
                .map(|(most, limit)| limit.map_or(*most, |limit| (*most).min(u64::from(limit))))
                .sum();
            let Some(room) = open_connections.connections(&server.host, port).await else {
                continue;
            };
            if wanted > room {
                report.warn(
                    format!("server {name}:{port}"),
                    format!(
                        "the pools may open {wanted} connections, and it has {room} for them \
                         (max_connections without those that are reserved): lower pool_size, or \
                         set max_db_connections"
                    ),
                );
            }
        }
    }
}
