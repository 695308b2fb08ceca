//! Who gets which server connection, and when it is given back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Waiter, dial, fair_share, queue};
use crate::action::Action;
use crate::cluster::route::{self, Request};
use crate::cluster::{Gate, consistency, hold, readers};
use crate::core::Core;
use crate::ids::{PoolId, ServerId, SessionId};
use crate::server::ServerState;
use crate::session::state::reset::CLOSED;
use crate::session::{Link, drain};

/// What became of a session's request for a server connection (`Pooler::checkout`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checkout {
    /// The session is linked to this server connection. The driver looks whether the server has
    /// closed it meanwhile: then `Pooler::handle_server_gone`, and the request is repeated.
    Linked(ServerId),
    /// The session waits in a queue, or has left. It is woken when it is linked to a server
    /// connection or refused, after `query_wait_timeout` at the latest.
    Waiting,
    /// No server can serve the session now: its cluster refuses writes, `max_held` clients wait
    /// already, no replica can be read from, or the pool has no server connection and the last
    /// attempt to open one has failed. The session has an error, which its next segment is answered
    /// with: process the same bytes again.
    Refused,
}

/// Links a session to an idle server connection, or puts it in the queue.
pub(crate) fn checkout(core: &mut Core, id: SessionId, now: Instant) -> Checkout {
    let Some(session) = core.sessions.get(id) else { return Checkout::Waiting };
    match session.link() {
        Link::Unlinked => {}
        Link::Waiting(_) | Link::AwaitingPlace(_) | Link::AwaitingRead(_) => {
            return Checkout::Waiting;
        }
        Link::Fresh(server)
        | Link::Setup(server)
        | Link::Ready(server)
        | Link::Cleaning(server) => return Checkout::Linked(server),
    }
    let request = Request::of(session, &core.pools[session.pool()], &core.tables, now);
    let home = session.pool();
    if readers::await_replica(core, id, request, now) {
        return Checkout::Waiting;
    }
    match find(core, home, request, now) {
        Ok(Found::Server(server)) => {
            link(core, id, server, Duration::ZERO, now);
            Checkout::Linked(server)
        }
        Ok(Found::Queue(pool)) => {
            let waiter = Waiter { session: id, since: now };
            queue::wait(&mut core.sessions, &mut core.pools, waiter, pool);
            dial::dial_if_wanted(core, pool, now);
            Checkout::Waiting
        }
        Err(error) => {
            if let Some(session) = core.sessions.get_mut(id) {
                session.serve_none(Arc::clone(&error), Some(error));
            }
            Checkout::Refused
        }
    }
}

/// Where a session's request leads.
enum Found {
    /// To this server connection, which is no longer among the idle ones.
    Server(ServerId),
    /// Into this pool's queue.
    Queue(PoolId),
}

/// What serves the next transaction of a session whose own pool is `home`.
///
/// # Errors
/// The body of an ErrorResponse when nothing does.
fn find(core: &mut Core, home: PoolId, request: Request, now: Instant) -> Result<Found, Arc<[u8]>> {
    let pool = route::choose_pool(&mut core.pools, &core.clusters, home, request, now)?;
    if pool == home
        && request.wants_replica()
        && let Some(cluster) = core.pools[home].cluster()
    {
        let (clusters, actions) = (&mut core.clusters, &mut core.actions);
        consistency::ask_for_fresher(clusters, actions, cluster, request.need, now);
    }
    match core.clusters.gate(&core.pools[pool]) {
        Gate::Open => {
            if let Some(server) = core.pools[pool].take_idle() {
                return Ok(Found::Server(server));
            }
            if let Some(error) = core.pools[pool].shared().standing_failure(now) {
                return Err(error);
            }
        }
        Gate::Held => {
            hold::admit_held(&core.pools, &mut core.clusters, &mut core.actions, pool, now)?;
        }
        Gate::Refused(error) => {
            core.pools[pool].count_failed();
            return Err(error);
        }
    }
    Ok(Found::Queue(pool))
}

/// Gives a server connection back once everything was written: to the longest waiter, to a worker
/// that asked for one, or to the idle ones.
pub(crate) fn checkin(core: &mut Core, id: ServerId, now: Instant) {
    let Some(server) = core.servers.get_mut(id) else { return };
    let served = server.session();
    if let ServerState::Linked(session, since) = server.state() {
        core.pools[server.pool()].stats_mut().held_nanos += (now - since).as_nanos() as u64;
        if let Some(session) = core.sessions.get_mut(session) {
            session.on_checkin();
        }
    }
    if server.awaits_cancels() {
        server.await_cancels(now);
    } else {
        release(core, id, now);
    }
    if let Some(session) = served {
        drain::after_transaction(core, session, now);
    }
}

/// A server connection that nobody holds any more goes to whoever needs it most.
pub(crate) fn release(core: &mut Core, id: ServerId, now: Instant) {
    let Some(server) = core.servers.get_mut(id) else { return };
    server.make_idle(now);
    let (pool_id, epoch) = (server.pool(), server.epoch());
    let started_at_micros = server.started_at_micros();
    let pool = &mut core.pools[pool_id];
    let gives_way = server.slot().is_contended() && {
        let is_wanted = pool.waiting() > 0;
        server.slot_mut().token_mut().gives_way(is_wanted, now)
    };
    let retires = server.retire_at() <= now && core.lockouts.of(pool).is_none();
    // What it carries may only end with it.
    let carries = server.residue().meets(CLOSED);
    let is_current = core.clusters.is_current(pool, epoch, started_at_micros);
    if gives_way || retires || carries || !is_current {
        dial::close_server(&mut core.servers, &mut core.pools, &mut core.actions, id);
        dial::dial_if_wanted(core, pool_id, now);
        return;
    }
    let share = fair_share(pool.config().pool.size, core.pools.workers());
    let pool = &mut core.pools[pool_id];
    let surplus = pool.open_here() > share || pool.waiting() == 0;
    if surplus && let Some(worker) = pool.pop_asking_worker() {
        core.actions.push(Action::Give(id, worker));
        return;
    }
    let open = pool.has_waiters() && core.clusters.gate(pool) == Gate::Open;
    if open && give_to_waiter(core, pool_id, id, now) {
        return;
    }
    core.pools[pool_id].put_idle(id);
}

/// Hands a server connection to the longest waiter; `false` when nobody waits.
fn give_to_waiter(core: &mut Core, pool: PoolId, id: ServerId, now: Instant) -> bool {
    while let Some(waiter) = core.pools[pool].pop_waiter() {
        if !queue::still_waits(&core.sessions, waiter) {
            continue;
        }
        core.pools[pool].end_wait();
        link(core, waiter.session, id, now - waiter.since, now);
        core.actions.wake(waiter.session);
        return true;
    }
    false
}

/// The idle server connections of a pool that was held go to those who have waited.
pub(crate) fn serve_waiters(core: &mut Core, id: PoolId, now: Instant) {
    while let Some(server) = core.pools[id].take_idle() {
        if !give_to_waiter(core, id, server, now) {
            core.pools[id].put_idle(server);
            break;
        }
    }
}

/// Gives a session, which has waited for that long, its server connection.
fn link(core: &mut Core, session: SessionId, server: ServerId, waited: Duration, now: Instant) {
    let linked = (core.sessions.get_mut(session), core.servers.get_mut(server));
    if let (Some(session), Some(server)) = linked {
        session.link_to(server.id(), server.pool());
        let is_home = session.serving() == session.pool();
        if let Some(routed) = session.routing().and_then(|routing| routing.served(is_home)) {
            *core.pools[session.pool()].stats_mut().routed.entry(routed).or_default() += 1;
        }
        server.link_to(session.id(), waited, now);
        core.pools[server.pool()].stats_mut().waits.record(waited);
        let (home, serving) = (session.pool(), server.pool());
        route::count_turn(&mut core.pools, &core.clusters, home, serving, now);
    }
}
