//! Server connections that are to be opened anew although nothing is wrong with them: an operator
//! wants it, or the address that they lead to is no longer the server's.

use std::time::Instant;

use pgimbal_config::Host;
use pgimbal_wire::error::SqlState;

use crate::ids::{PoolId, ServerId, SessionId};
use crate::pooler::Pooler;
use crate::server::ServerState;

/// How an operator wants a database's connections renewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// Each server connection once it is free.
    Reconnect,
    /// All, and the clients' too, at once.
    Kill,
}

/// How many connections that concerned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Renewed {
    /// Clients that were dismissed.
    pub clients: usize,
    /// Server connections that end.
    pub servers: usize,
}

impl Pooler {
    /// Renews the connections of a database, or of all.
    pub fn renew(&mut self, database: Option<&str>, how: Renewal, now: Instant) -> Renewed {
        let is_meant = |name: &str| database.is_none_or(|database| database == name);
        let pools = self.pools.iter().filter(|pool| is_meant(&pool.key.database));
        let pools: Vec<PoolId> = pools.map(|pool| pool.id).collect();
        let clients: Vec<SessionId> = match how {
            Renewal::Reconnect => Vec::new(),
            Renewal::Kill => {
                let sessions = self.sessions.iter().map(|(_, session)| session);
                let meant = sessions.filter(|session| pools.contains(&session.pool));
                meant.map(|session| session.id).collect()
            }
        };
        for client in &clients {
            let text = "terminating connection due to administrator command";
            self.dismiss(*client, SqlState::ADMIN_SHUTDOWN, text);
        }
        let servers = self.servers.iter().map(|(_, server)| server);
        let servers: Vec<ServerId> =
            servers.filter(|server| pools.contains(&server.pool)).map(|server| server.id).collect();
        for pool in pools {
            // What failed before may work now.
            self.pools[pool.index()].shared.forget_failure();
        }
        Renewed { clients: clients.len(), servers: self.retire(servers, now) }
    }

    /// The server connections of pools whose server is this name and no cluster's.
    #[must_use]
    pub fn servers_of_name(&self, name: &str) -> Vec<ServerId> {
        let is_meant = |pool: PoolId| {
            let config = &self.pools[pool.index()].config;
            config.cluster.is_none() && matches!(&config.host, Host::Tcp(host) if host == name)
        };
        let servers = self.servers.iter().map(|(_, server)| server);
        servers.filter(|server| is_meant(server.pool)).map(|server| server.id).collect()
    }

    /// These server connections end, those that are in use when they are free. How many did not
    /// before.
    pub fn retire(&mut self, servers: Vec<ServerId>, now: Instant) -> usize {
        let mut count = 0;
        for id in servers {
            let Some(server) = self.servers.get_mut(id.index()).filter(|server| server.id == id)
            else {
                continue;
            };
            if server.state == ServerState::Closing || server.retire_at <= now {
                continue;
            }
            count += 1;
            server.retire_at = now;
            if self.pools[server.pool.index()].idle.contains(&id) {
                self.close_server(id);
            }
        }
        count
    }
}
