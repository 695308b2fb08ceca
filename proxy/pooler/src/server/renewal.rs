//! Server connections that are to be opened anew although nothing is wrong with them: an operator
//! wants it, or the address that they lead to is no longer the server's.

use std::time::Instant;

use pgimbal_config::Host;
use pgimbal_wire::error::SqlState;

use crate::core::Core;
use crate::ids::{PoolId, ServerId, SessionId};
use crate::pool::pools::Pools;
use crate::pool::{Pool, dial};
use crate::server::servers::Servers;
use crate::session::dismissal;

/// How an operator has the connections of a database renewed (the console commands RECONNECT and
/// KILL, in `Pooler::renew`, on every worker). Either way a login that has failed is no longer held
/// against the pools concerned: the next attempt need not wait for the end of its pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// Each server connection ends as soon as no session has it; clients stay connected.
    Reconnect,
    /// As `Reconnect`, and the database's clients are dismissed at once (57P01).
    Kill,
}

/// How many connections a renewal concerned, of this worker; zeros if the database has none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Renewed {
    /// The number of clients that were dismissed; always 0 for [`Renewal::Reconnect`].
    pub clients: usize,
    /// The number of server connections that end: idle ones now, those in use once they are free.
    /// Those that were to end before, or are closing, are not counted.
    pub servers: usize,
}

/// Renews the connections of a database, or of all (`None`).
pub(crate) fn renew(
    core: &mut Core,
    database: Option<&str>,
    how: Renewal,
    now: Instant,
) -> Renewed {
    let is_meant = |name: &str| database.is_none_or(|database| database == name);
    let pools = core.pools.iter().filter(|pool| is_meant(&pool.key().database));
    let pools: Vec<PoolId> = pools.map(Pool::id).collect();
    let clients: Vec<SessionId> = match how {
        Renewal::Reconnect => Vec::new(),
        Renewal::Kill => {
            let meant = core.sessions.iter().filter(|session| pools.contains(&session.pool()));
            meant.map(|session| session.id()).collect()
        }
    };
    for client in &clients {
        let text = "terminating connection due to administrator command";
        dismissal::dismiss(core, *client, SqlState::ADMIN_SHUTDOWN, text);
    }
    let servers = core.servers.iter().filter(|server| pools.contains(&server.pool));
    let servers: Vec<ServerId> = servers.map(|server| server.id).collect();
    for pool in pools {
        // What failed before may work now.
        core.pools[pool].shared().forget_failure();
    }
    Renewed { clients: clients.len(), servers: retire(core, servers, now) }
}

/// The server connections of pools whose server is this name and no cluster's.
pub(crate) fn servers_of_name(servers: &Servers, pools: &Pools, name: &str) -> Vec<ServerId> {
    let is_meant = |pool: PoolId| {
        let config = pools[pool].config();
        config.cluster.is_none() && matches!(&config.host, Host::Tcp(host) if host == name)
    };
    servers.iter().filter(|server| is_meant(server.pool)).map(|server| server.id).collect()
}

/// These server connections end, those that are in use when they are free. How many were not to
/// end before.
pub(crate) fn retire(core: &mut Core, servers: Vec<ServerId>, now: Instant) -> usize {
    let mut count = 0;
    for id in servers {
        let Some(server) = core.servers.get_mut(id) else { continue };
        if server.is_closing() || server.retire_at <= now {
            continue;
        }
        count += 1;
        server.retire_at = now;
        if core.pools[server.pool].idle().contains(&id) {
            dial::close_server(&mut core.servers, &mut core.pools, &mut core.actions, id);
        }
    }
    count
}
