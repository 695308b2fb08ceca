//! When a server connection is opened, and when one is closed with a Terminate.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::budget::{ConnectionBudget, Wish};
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
    let lifetime = pool.config().pool.server_lifetime;
    let serial = core.serials.next();
    let reported = core.tables.reported.intern([]);
    // A pool that was opened at once is not replaced at once.
    let retire_at = now + lifetime - spread_over(lifetime / 4, serial);
    let server = core
        .servers
        .insert(serial, |server| Server::dialing(server, id, slot, node, reported, now, retire_at));
    core.actions.push(Action::Dial(server));
    true
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
