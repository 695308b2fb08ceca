//! What time brings: limits that have passed, and who must be asked for capacity.
//!
//! Instead of a timer for each client or server connection a worker looks over its server
//! connections, of which there are few, and the heads of its queues, which are in order.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use pgimbal_config::PoolMode;
use pgimbal_wire::encode::TransactionStatus;
use pgimbal_wire::error::{Report, SqlState};

use super::pools::Pools;
use super::{Pool, Reserve, dial, fair_share, queue, retire, yielding};
use crate::action::{Action, Actions};
use crate::cancel::request;
use crate::cluster::{hold, readers, reads, route};
use crate::core::Core;
use crate::error::error_body;
use crate::ids::{PoolId, ServerId, SessionId, WorkerId};
use crate::listener::steps;
use crate::server::{Server, ServerState};
use crate::session::pin::PinReason;
use crate::session::sessions::Service;
use crate::session::{Link, Phase, Presence, Session, dismissal, drain, place, setup};

/// How often `Pooler::handle_timeout` is to be called (2 ms) while a client waits for something
/// that other workers may free: a server connection of a pool of which they have open ones, or a
/// place among the pool's pinned sessions (`max_pinned`). Twice the age (1 ms) from which a wait
/// makes this worker ask the others.
pub const WAITING_TICK: Duration = Duration::from_millis(2);

/// How often `Pooler::handle_timeout` is to be called (20 ms) while those who wait can only be
/// helped by this worker itself, because no other one has a server connection of the pool: what
/// remains to be done for them is to look at the longest wait.
pub const LOCAL_WAITING_TICK: Duration = Duration::from_millis(20);

/// How often `Pooler::handle_timeout` is to be called (100 ms) while nobody waits, and how often
/// server connections and clients are checked against their limits; the finest limit that anybody
/// sets is a second or so.
pub const QUIET_TICK: Duration = Duration::from_millis(100);

/// How long a connection is idle that is closed because another replica has clients that wait for
/// one to its server: its pool has not needed it for so long that it is not the next one it needs.
const LEND_AFTER: Duration = Duration::from_secs(5);

/// How old a waiter is when other workers are asked for capacity.
const ASK_AFTER: Duration = Duration::from_millis(1);

/// How long a client waits for the server to say what it has left: a question takes well below a
/// millisecond, unless the server has other troubles.
const QUESTION_LIMIT: Duration = Duration::from_secs(1);

/// How long an answer to a request for a server connection is awaited before the next one.
const ASK_AGAIN: Duration = Duration::from_millis(5);

/// Does what is due at `now`. Server connections are looked over every [`QUIET_TICK`] only.
pub(crate) fn tick(core: &mut Core, now: Instant) {
    readers::wake_readers(core, now);
    for id in core.pools.ids() {
        if core.pools[id].has_anybody_waiting() {
            help_waiters(core, id, now);
        }
        if !core.pools[id].place_waiters().is_empty() {
            place::give_places(core, id, now);
        }
    }
    if core.looked_over.is_none_or(|last| now >= last + QUIET_TICK) {
        core.looked_over = Some(now);
        for id in core.pools.ids() {
            keep_size(core, id, now);
            steps::tick(core, id, now);
            route::send_to_replicas(core, id, now);
        }
        reads::bound_decisions(core.pools.iter_mut().filter_map(Pool::reads_mut));
        yielding::give_up_idle(core, now);
        look_over_servers(core, now);
        look_over_clients(core, now);
        retire::retire_unused(core, now);
    }
}

/// How long until the next tick is due.
pub(crate) fn pause(core: &Core) -> Duration {
    let pools = &core.pools;
    if core.clusters.have_readers() || pools.iter().any(|pool| !pool.place_waiters().is_empty()) {
        return WAITING_TICK;
    }
    let mut pause = QUIET_TICK;
    for pool in pools.iter().filter(|pool| pool.has_anybody_waiting()) {
        // Other workers have server connections of the pool, or one to its server may be closed.
        if pool.shared().open_count() > pool.open_here() || pool.has_claim() {
            return WAITING_TICK;
        }
        pause = LOCAL_WAITING_TICK;
    }
    pause
}

fn help_waiters(core: &mut Core, id: PoolId, now: Instant) {
    queue::tell_standing_failure(core, id, now);
    let pool = &core.pools[id];
    if !pool.logins().is_empty() && pool.shared().welcome().is_some() {
        // Another worker's server connection has told what they wait for.
        queue::wake_logins(core, id);
    }
    refuse_overdue(core, id, now);
    dismiss_overdue_logins(core, id, now);
    if hold::hold_of(&core.pools[id], &core.clusters).is_some() {
        hold::ask_for_primary(&core.pools[id], &mut core.clusters, &mut core.actions, now);
    }
    dial::dial_if_wanted(core, id, now);
    let longest = queue::longest_waiter(&core.sessions, &mut core.pools, id);
    let waited = longest.map(|waiter| now - waiter.since);
    let Some(waited) = waited.filter(|waited| *waited >= ASK_AFTER) else { return };
    if ask(&mut core.pools, &mut core.actions, id, now) {
        return;
    }
    if core.pools[id].wants_dial() && !dial::dial(core, id, Reserve::Kept, now) {
        let config = &core.pools[id].config().pool;
        if config.reserve_size > 0 && waited >= config.reserve_timeout {
            dial::dial(core, id, Reserve::Open, now);
        }
    }
}

/// Those who have waited for `query_wait_timeout`, or as long as a hold may last, are told.
fn refuse_overdue(core: &mut Core, id: PoolId, now: Instant) {
    let limit = core.pools[id].config().pool.query_wait_timeout;
    while let Some(waiter) = queue::longest_waiter(&core.sessions, &mut core.pools, id) {
        let waited = now - waiter.since;
        let pool = &mut core.pools[id];
        let hold = hold::hold_of(pool, &core.clusters)
            .filter(|hold| (now - hold.since).min(waited) >= hold.limit);
        let error = if hold.is_some() {
            pool.stats_mut().error(SqlState::CANNOT_CONNECT_NOW);
            pool.count_failed();
            hold::hold_is_over(pool, &core.clusters)
        } else if waited < limit {
            return;
        } else {
            pool.stats_mut().error(SqlState::TOO_MANY_CONNECTIONS);
            core.lockouts.of(pool).map(Arc::clone).unwrap_or_else(none_became_free)
        };
        queue::refuse(core, waiter.session, &error, Some(Arc::clone(&error)));
    }
}

/// Logins that have waited as long for the pool's first server connection are told too.
fn dismiss_overdue_logins(core: &mut Core, id: PoolId, now: Instant) {
    let pool = &core.pools[id];
    let hold = hold::hold_of(pool, &core.clusters);
    let limit = pool.config().pool.query_wait_timeout;
    let limit = hold.map_or(limit, |hold| limit.min(hold.limit));
    let is_overdue = |login: &SessionId| {
        let session = core.sessions.get(*login);
        session.is_none_or(|session| now - session.connected_at() >= limit)
    };
    let overdue: Vec<SessionId> = pool.logins().iter().copied().filter(is_overdue).collect();
    for login in overdue {
        core.pools[id].remove_login(login);
        if hold.is_some() {
            let error = hold::hold_is_over(&core.pools[id], &core.clusters);
            dismissal::dismiss_with(core, login, SqlState::CANNOT_CONNECT_NOW, &error);
            continue;
        }
        dismissal::dismiss(
            core,
            login,
            SqlState::TOO_MANY_CONNECTIONS,
            "no server connection could be opened within query_wait_timeout",
        );
    }
}

/// Asks a worker that has an idle server connection, or more than its share of them. Returns
/// whether there is such a worker.
fn ask(pools: &mut Pools, actions: &mut Actions, id: PoolId, now: Instant) -> bool {
    let (worker, workers) = (pools.worker(), pools.workers());
    let pool = &mut pools[id];
    let Some(other) = worker_with_most_idle(pool, worker, workers) else { return false };
    if pool.may_ask(now, ASK_AGAIN) {
        actions.push(Action::Ask(id, other));
    }
    true
}

/// Opens what `min_pool_size` asks for, and gives up an idle connection where a limit that several
/// pools share stands in somebody's way.
fn keep_size(core: &mut Core, id: PoolId, now: Instant) {
    let pool = &core.pools[id];
    let wanted = pool.shared().open_count() < pool.config().pool.min_size;
    if wanted && pool.dialing() == 0 && core.sessions.service() == Service::Open {
        dial::dial(core, id, Reserve::Kept, now);
    }
    let pool = &core.pools[id];
    if pool.waiting() == 0
        && let Some(idle) = pool.idle().first().copied()
        && pool.shared().stands_in_the_way()
    {
        dial::close_server(&mut core.servers, &mut core.pools, &mut core.actions, idle);
    }
}

fn look_over_servers(core: &mut Core, now: Instant) {
    let due = core.servers.iter().filter_map(|server| Some((server.id(), due(core, server, now)?)));
    let mut lent: Vec<PoolId> = Vec::new();
    for (server, due) in due.collect::<Vec<_>>() {
        match due {
            Due::Close => {
                dial::close_server(&mut core.servers, &mut core.pools, &mut core.actions, server);
            }
            // One of each pool at a time, so that min_pool_size of them stay.
            Due::Lend(pool) if !lent.contains(&pool) => {
                lent.push(pool);
                lend(core, server);
            }
            Due::Lend(_) => {}
            Due::Cancel => cancel_overdue(core, server),
            Due::Dismiss(session, code, message) => {
                dismissal::dismiss(core, session, code, message);
            }
            Due::GoOn(session) => go_on_unanswered(core, session, now),
        }
    }
}

/// What is due for a server connection; `None` mostly.
fn due(core: &Core, server: &Server, now: Instant) -> Option<Due> {
    let pool = &core.pools[server.pool()];
    match server.state() {
        ServerState::Idle(since) => {
            let config = &pool.config().pool;
            let spare = pool.shared().open_count() > config.min_size;
            let idle = spare && now - since >= config.server_idle_timeout;
            let ends = idle || server.retire_at() <= now;
            let is_lent = spare && now - since >= LEND_AFTER && server.slot().is_lendable();
            match core.lockouts.of(pool) {
                Some(_) => None,
                None if ends => Some(Due::Close),
                None => is_lent.then_some(Due::Lend(server.pool())),
            }
        }
        ServerState::AwaitingCancels(since) => {
            (now - since >= pool.config().pool.cancel_wait_timeout).then_some(Due::Close)
        }
        ServerState::Linked(session, since) => {
            let client = core.sessions.get(session)?;
            if client.presence() != Presence::Here {
                return None;
            }
            let stalled = client.stalled_since().map(|since| now - since);
            if stalled.is_some_and(|it| it >= core.sessions.options().client_stall_timeout) {
                return Some(Due::Dismiss(
                    session,
                    SqlState::CONNECTION_FAILURE,
                    "the client does not read its result (client_stall_timeout)",
                ));
            }
            due_in_use(client, server, pool, now - since, now)
        }
        ServerState::Dialing | ServerState::Listening | ServerState::Closing => None,
    }
}

/// What is due for a server connection that has served `client` for as long as `lasted`.
fn due_in_use(
    client: &Session,
    server: &Server,
    pool: &Pool,
    lasted: Duration,
    now: Instant,
) -> Option<Due> {
    let config = &pool.config().pool;
    if let Some((_, since)) = server.asking()
        && now - *since >= QUESTION_LIMIT
        && client.phase() == Phase::Barrier
    {
        return Some(Due::GoOn(client.id()));
    }
    let passed = |limit: Option<Duration>, lasted| limit.is_some_and(|limit| lasted >= limit);
    let quiet = now - client.active_at();
    if server.pending().is_empty() {
        if server.status() != TransactionStatus::Idle
            && passed(config.idle_transaction_timeout, quiet)
        {
            return Some(Due::Dismiss(
                client.id(),
                SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT,
                "terminating connection due to idle_transaction_timeout",
            ));
        }
    } else if passed(config.query_timeout, quiet) && !server.is_cancelled() {
        return Some(Due::Cancel);
    }
    let pinned = client.pin().is_set() || config.mode == PoolMode::Session;
    (!pinned && passed(config.transaction_timeout, lasted)).then_some(Due::Dismiss(
        client.id(),
        SqlState::TRANSACTION_TIMEOUT,
        "terminating connection due to transaction_timeout",
    ))
}

/// A question takes too long: its client goes on, pinned, and is asked again later.
fn go_on_unanswered(core: &mut Core, id: SessionId, now: Instant) {
    let Some(session) = core.sessions.get_mut(id) else { return };
    session.set_phase(Phase::Open);
    let server = session.link().server().and_then(|id| core.servers.get_mut(id));
    if let Some(server) = server {
        server.let_client_go_on();
    }
    session.pin_mut().set(PinReason::Unknown, true, now);
    let pool = &mut core.pools[session.pool()];
    setup::hold_place(session, pool);
    pool.stats_mut().questions_failed += 1;
    core.actions.wake(id);
}

/// Closes a connection so that its part of the budget can be lent, unless enough are closed
/// already.
fn lend(core: &mut Core, id: ServerId) {
    let server = core.servers.get_mut(id);
    if server.is_some_and(|server| server.slot_mut().token_mut().lend()) {
        dial::close_server(&mut core.servers, &mut core.pools, &mut core.actions, id);
    }
}

fn cancel_overdue(core: &mut Core, id: ServerId) {
    if let Some(server) = core.servers.get_mut(id) {
        server.note_cancelled();
    }
    // It may have ended meanwhile.
    let _ = request::cancel_running(core, id);
}

fn look_over_clients(core: &mut Core, now: Instant) {
    drain::look(core, now);
    let Some(limit) = core.sessions.options().client_idle_timeout else { return };
    let overdue = core
        .sessions
        .iter()
        .filter(|session| session.link() == Link::Unlinked && now - session.active_at() >= limit);
    for id in overdue.map(|session| session.id()).collect::<Vec<_>>() {
        dismissal::dismiss(
            core,
            id,
            SqlState::IDLE_SESSION_TIMEOUT,
            "terminating connection due to client_idle_timeout",
        );
    }
}

fn none_became_free() -> Arc<[u8]> {
    error_body(
        &Report::error(
            SqlState::TOO_MANY_CONNECTIONS,
            "no server connection became free within query_wait_timeout",
        )
        .hint("Look at SHOW POOLS; raise pool_size, or find what holds the connections."),
    )
}

/// What is due for a server connection.
enum Due {
    Close,
    /// Another replica has more use for its part of the budget.
    Lend(PoolId),
    Cancel,
    Dismiss(SessionId, SqlState, &'static str),
    /// The session's next message waits for the answer to a question that does not come.
    GoOn(SessionId),
}

/// The other worker with the most idle server connections, or else one with more than its share
/// when this one has less.
fn worker_with_most_idle(pool: &Pool, me: WorkerId, workers: u16) -> Option<WorkerId> {
    let share = fair_share(pool.config().pool.size, workers);
    let below = pool.shared().share(me).open.load(Relaxed) < share;
    let others = (0..pool.shared().shares.len() as u16).map(WorkerId).filter(|other| *other != me);
    others
        .map(|other| {
            let part = pool.shared().share(other);
            let surplus = part.open.load(Relaxed).saturating_sub(share);
            (part.idle.load(Relaxed), if below { surplus } else { 0 }, other)
        })
        .filter(|(idle, surplus, _)| *idle > 0 || *surplus > 0)
        .max_by_key(|(idle, surplus, _)| (*idle, *surplus))
        .map(|(_, _, other)| other)
}
