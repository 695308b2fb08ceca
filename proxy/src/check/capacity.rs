//! Whether what is configured fits: descriptors of this machine, connections of each server.

use std::collections::BTreeMap;

use pgimbal_config::{Config, Host, ResolvedPool};
use rustix::process::{Resource, getrlimit};

use super::expiry::Witnesses;
use super::report::Report;

/// Descriptors for listeners, runtimes, HTTP, files and probes.
const OTHER_DESCRIPTORS: u64 = 64;

/// Whether the limit of open files leaves a descriptor for each client and server connection.
pub(super) fn descriptors(config: &Config, report: &Report) {
    let users = config.users.len().max(1) as u64;
    let servers: u64 = config
        .databases
        .values()
        .map(|database| {
            let pools = if database.user.is_some() { 1 } else { users };
            let most = pools * u64::from(database.pool.size + database.pool.reserve_size);
            database.max_db_connections.map_or(most, |limit| most.min(u64::from(limit)))
        })
        .sum();
    let needed = u64::from(config.clients.max_client_conn) + servers + OTHER_DESCRIPTORS;
    match getrlimit(Resource::Nofile).maximum {
        Some(limit) if limit < needed => report.warn(
            "open files",
            format!(
                "the limit is {limit}, and max_client_conn with the pools may need {needed}: raise \
                 it (LimitNOFILE=, ulimit -Hn), or lower max_client_conn"
            ),
        ),
        _ => {}
    }
}

/// The pools that lead to each server.
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
    pub(super) async fn judge(self, witnesses: &mut Witnesses, report: &Report) {
        for ((name, port), server) in self.0 {
            let wanted: u64 = server
                .databases
                .values()
                .map(|(most, limit)| limit.map_or(*most, |limit| (*most).min(u64::from(limit))))
                .sum();
            let Some(room) = witnesses.connections(&server.host, port).await else { continue };
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
