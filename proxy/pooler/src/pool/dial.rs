//! When a server connection is opened, and when one is closed with a Terminate.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::budget::{ConnectionBudget, Wish};
use super::shared::{NoPlace, Slot};
use super::{Pool, Reserve, fair_share, yielding};
use crate::action::{Action, Actions};
use crate::cluster::Clusters;
use crate::core::Core;
use crate::ids::{PoolId, ServerId};
use crate::pool::pools::Pools;
use crate::server::Server;
use crate::server::servers::Servers;
use crate::topology::NodeId;

/// Opens server connections while a session waits for which none is under way and the limits allow
/// it. Beyond its fair share a worker opens one only when no other worker has
/// one to give (see [`timers`](crate::pool::timers)).
pub(crate) fn dial_if_wanted(core: &mut Core, id: PoolId, now: Instant) {
    while core.pools[id].wants_dial() {
        let pool = &core.pools[id];
        let share = fair_share(pool.config().pool.size, core.pools.workers());
        if pool.open_here() >= share || !dial(core, id, Reserve::Kept, now) {
            return;
        }
    }
}

/// Opens one server connection if the limits allow it. Returns whether it does.
pub(crate) fn dial(core: &mut Core, id: PoolId, reserve: Reserve, now: Instant) -> bool {
    let worker = core.pools.worker();
    let pool = &mut core.pools[id];
    let Ok(node) = core.clusters.next_node(pool) else { return false };
    let budget = budget_of(pool, &core.clusters, node);
    let config = pool.config();
    let is_awaited = pool.has_anybody_waiting();
    let wish = Wish { budget: &budget, role: &config.user, database: &config.dbname, is_awaited };
    let slot = pool.shared().open(worker, pool.limits(reserve), &wish, now);
    pool.note_claim(slot.is_none() && budget.is_contended());
    let Some(slot) = slot else {
        yielding::ask_for_idle(core, &budget, now);
        return false;
    };
    pool.begin_dial();
    begin(core, id, slot, node, now);
    true
}

/// What became of the wish for a connection that listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ListenerDial {
    /// It is being opened.
    Begun(ServerId),
    /// None can be opened now.
    Later,
    /// A limit of the database, the user or the server is reached.
    Full,
}

/// Opens the connection over which this worker listens for the clients of a pool.
pub(crate) fn dial_listener(core: &mut Core, id: PoolId, now: Instant) -> ListenerDial {
    let worker = core.pools.worker();
    let pool = &mut core.pools[id];
    let Ok(node) = core.clusters.next_node(pool) else { return ListenerDial::Later };
    let budget = budget_of(pool, &core.clusters, node);
    let config = pool.config();
    let (role, database) = (&*config.user, &*config.dbname);
    let wish = Wish { budget: &budget, role, database, is_awaited: false };
    match pool.shared().open_apart(worker, pool.limits(Reserve::Kept), &wish, now) {
        Err(NoPlace::Later) => ListenerDial::Later,
        Err(NoPlace::Full) => ListenerDial::Full,
        Ok(slot) => {
            let server = begin(core, id, slot, node, now);
            if let Some(server) = core.servers.get_mut(server) {
                server.serve_listener();
            }
            ListenerDial::Begun(server)
        }
    }
}

/// Has the driver open a server connection that has this place.
fn begin(core: &mut Core, id: PoolId, slot: Slot, node: Option<NodeId>, now: Instant) -> ServerId {
    let lifetime = core.pools[id].config().pool.server_lifetime;
    let serial = core.serials.next();
    let reported = core.tables.reported.intern([]);
    // A pool that was opened at once is not replaced at once.
    let retire_at = now + lifetime - spread_over(lifetime / 4, serial);
    let server = core
        .servers
        .insert(serial, |server| Server::dialing(server, id, slot, node, reported, now, retire_at));
    core.actions.push(Action::Dial(server));
    server
}

/// The budget of the server that a pool's next connection leads to.
fn budget_of(pool: &Pool, clusters: &Clusters, node: Option<NodeId>) -> Arc<ConnectionBudget> {
    let config = pool.config();
    let node = node.and_then(|node| clusters.of(pool)?.node(node));
    let (host, port) = node.map_or((&config.host, config.port), |node| (&node.host, node.port));
    pool.shared().budgets().of(host, port, config.server_budget)
}

/// Says Terminate to a server; its place stays taken until `Pooler::handle_closed`.
///
/// `Pooler::handle_closed`: crate::pooler::Pooler::handle_closed
pub(crate) fn close_server(
    servers: &mut Servers,
    pools: &mut Pools,
    actions: &mut Actions,
    id: ServerId,
) {
    let Some(server) = servers.get_mut(id).filter(|server| !server.is_closing()) else { return };
    server.begin_to_close();
    let pool = &mut pools[server.pool()];
    pool.stats_mut().server_closes += 1;
    pool.remove_idle(id);
    actions.push(Action::Close(id));
}

/// A part of `span` that differs from one server connection to the next: the serial numbers fill
/// the interval evenly.
pub(crate) fn spread_over(span: Duration, serial: u32) -> Duration {
    let fraction = serial.wrapping_mul(0x9e37_79b9) >> 16;
    span * fraction / 65_536
}
