//! What time brings: limits that have passed, and who must be asked for capacity.
//!
//! Instead of a timer for each client or server connection a worker looks over its server
//! connections, of which there are few, and the heads of its queues, which are in order.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use pgimbal_wire::encode::TransactionStatus;
use pgimbal_wire::error::{Report, SqlState};

use crate::ids::{PoolId, ServerId, SessionId, WorkerId};
use crate::pool::{Pool, Reserve, fair_share};
use crate::pooler::{Action, Pooler, error_body};
use crate::server::{Server, ServerState};
use crate::session::pin::PinReason;
use crate::session::setup;
use crate::session::{Link, Phase, Presence};

/// How often [`Pooler::tick`] is to be called while somebody waits: the age from which a waiter may
/// be helped by another worker, twice over.
pub const WAITING_TICK: Duration = Duration::from_millis(2);

/// How often it is to be called while those who wait can only be helped by this worker itself:
/// what remains to be done for them is to look at the longest wait.
pub const LOCAL_WAITING_TICK: Duration = Duration::from_millis(20);

/// How often it is to be called otherwise; the finest limit that anybody sets is a second or so.
pub const QUIET_TICK: Duration = Duration::from_millis(100);

/// How old a waiter is when other workers are asked for capacity.
const ASK_AFTER: Duration = Duration::from_millis(1);

/// How long a client waits for the server to say what it has left: a question takes well below a
/// millisecond, unless the server has other troubles.
const QUESTION_LIMIT: Duration = Duration::from_secs(1);

/// How long an answer to that is awaited before the next question.
const ASK_AGAIN: Duration = Duration::from_millis(5);

impl Pooler {
    /// Does what is due at `now`. Server connections are looked over every [`QUIET_TICK`] only.
    pub fn tick(&mut self, now: Instant, looked_over: &mut Instant) {
        for index in 0..self.pools.len() {
            let pool = PoolId(index as u32);
            if self.pools[index].waiting > 0 || !self.pools[index].logins.is_empty() {
                self.help_waiters(pool, now);
            }
            if !self.pools[index].place_waiters.is_empty() {
                self.give_places(pool, now);
            }
        }
        if now >= *looked_over + QUIET_TICK {
            *looked_over = now;
            for index in 0..self.pools.len() {
                self.keep_size(PoolId(index as u32), now);
                self.send_to_replicas(PoolId(index as u32), now);
            }
            self.look_over_servers(now);
            self.look_over_clients(now);
            self.retire_unused(now);
        }
    }

    /// When the next tick is due.
    #[must_use]
    pub fn pause(&self) -> Duration {
        if self.pools.iter().any(|pool| !pool.place_waiters.is_empty()) {
            return WAITING_TICK;
        }
        let mut pause = QUIET_TICK;
        for pool in self.pools.iter().filter(|pool| pool.waiting > 0 || !pool.logins.is_empty()) {
            if self.has_others(pool) {
                return WAITING_TICK;
            }
            pause = LOCAL_WAITING_TICK;
        }
        pause
    }

    /// Whether other workers have server connections of the pool.
    fn has_others(&self, pool: &Pool) -> bool {
        let mine = pool.shared.share(self.worker).open.load(Relaxed);
        pool.shared.open_count() > mine
    }

    fn help_waiters(&mut self, id: PoolId, now: Instant) {
        self.tell_standing_failure(id, now);
        let pool = &self.pools[id.index()];
        if !pool.logins.is_empty() && pool.shared.welcome().is_some() {
            // Another worker's server connection has told what they wait for.
            self.wake_logins(id);
        }
        self.refuse_overdue(id, now);
        self.dismiss_overdue_logins(id, now);
        if self.hold_of(&self.pools[id.index()]).is_some() {
            self.ask_for_primary(id, now);
        }
        self.dial_if_wanted(id, now);
        let Some(waited) = self.longest_wait(id, now).filter(|waited| *waited >= ASK_AFTER) else {
            return;
        };
        if self.ask(id, now) {
            return;
        }
        if self.pools[id.index()].wants_dial() && !self.dial(id, Reserve::Kept, now) {
            let pool = &self.pools[id.index()].config.pool;
            if pool.reserve_size > 0 && waited >= pool.reserve_timeout {
                self.dial(id, Reserve::Open, now);
            }
        }
    }

    /// Those who have waited for `query_wait_timeout` are told.
    fn refuse_overdue(&mut self, id: PoolId, now: Instant) {
        let limit = self.pools[id.index()].config.pool.query_wait_timeout;
        while let Some((waiter, waited)) = self.first_waiter(id, now) {
            let hold = self
                .hold_of(&self.pools[id.index()])
                .filter(|hold| (now - hold.since).min(waited) >= hold.limit);
            if hold.is_some() {
                let error = self.hold_is_over(&self.pools[id.index()]);
                self.pools[id.index()].stats.error(SqlState::CANNOT_CONNECT_NOW);
                self.count_failed(id);
                self.refuse_waiter(waiter, &error);
                continue;
            }
            if waited < limit {
                return;
            }
            let lockout = self.lockout(&self.pools[id.index()]).map(Arc::clone);
            let error = lockout.unwrap_or_else(none_became_free);
            self.pools[id.index()].stats.error(SqlState::TOO_MANY_CONNECTIONS);
            self.refuse_waiter(waiter, &error);
        }
    }

    /// Logins that have waited as long for the pool's first server connection are told too.
    fn dismiss_overdue_logins(&mut self, id: PoolId, now: Instant) {
        let limit = self.pools[id.index()].config.pool.query_wait_timeout;
        let hold = self.hold_of(&self.pools[id.index()]);
        let limit = hold.map_or(limit, |hold| limit.min(hold.limit));
        let logins = self.pools[id.index()].logins.iter().copied();
        let overdue: Vec<SessionId> = logins
            .filter(|login| self.session(*login).is_none_or(|s| now - s.connected_at >= limit))
            .collect();
        for login in overdue {
            self.pools[id.index()].logins.retain(|other| *other != login);
            if hold.is_some() {
                let error = self.hold_is_over(&self.pools[id.index()]);
                self.dismiss_with(login, SqlState::CANNOT_CONNECT_NOW, &error);
                continue;
            }
            self.dismiss(
                login,
                SqlState::TOO_MANY_CONNECTIONS,
                "no server connection could be opened within query_wait_timeout",
            );
        }
    }

    pub(crate) fn longest_wait(&mut self, id: PoolId, now: Instant) -> Option<Duration> {
        self.first_waiter(id, now).map(|(_, waited)| waited)
    }

    /// The longest waiter; entries of those who wait no more are dropped on the way.
    fn first_waiter(&mut self, id: PoolId, now: Instant) -> Option<(SessionId, Duration)> {
        while let Some(waiter) = self.pools[id.index()].waiters.front().copied() {
            if self.still_waits(waiter) {
                return Some((waiter.session, now - waiter.since));
            }
            self.pools[id.index()].waiters.pop_front();
        }
        None
    }

    /// Asks a worker that has an idle server connection, or more than its share of them.
    fn ask(&mut self, id: PoolId, now: Instant) -> bool {
        let worker = self.worker;
        let pool = &mut self.pools[id.index()];
        let Some(other) = worker_with_most_idle(pool, worker, self.workers) else { return false };
        if pool.asked_at.is_none_or(|asked| now - asked >= ASK_AGAIN) {
            pool.asked_at = Some(now);
            self.actions.push(Action::Ask(id, other));
        }
        true
    }

    /// Opens what `min_pool_size` asks for, and gives up an idle connection where a limit that
    /// several pools share stands in somebody's way.
    fn keep_size(&mut self, id: PoolId, now: Instant) {
        let pool = &self.pools[id.index()];
        if pool.is_retired {
            return;
        }
        let open = pool.shared.open_count();
        if open < pool.config.pool.min_size && pool.dialing == 0 && !self.draining {
            self.dial(id, Reserve::Kept, now);
        }
        let pool = &self.pools[id.index()];
        if pool.waiting == 0
            && let Some(idle) = pool.idle.first().copied()
            && (pool.shared.database.open.was_crowded() || pool.shared.user_open.was_crowded())
        {
            self.close_server(idle);
        }
    }

    fn look_over_servers(&mut self, now: Instant) {
        let mut due = Vec::new();
        for (_, server) in &self.servers {
            let pool = &self.pools[server.pool.index()];
            if let Some(what) = self.due(server, pool, now) {
                due.push((server.id, what));
            }
        }
        for (server, what) in due {
            match what {
                Due::Close => self.close_server(server),
                Due::Cancel => self.cancel_overdue(server),
                Due::Dismiss(session, code, message) => self.dismiss(session, code, message),
                Due::GoOn(session) => self.go_on_unanswered(session, now),
            }
        }
    }

    fn due(&self, server: &Server, pool: &Pool, now: Instant) -> Option<Due> {
        let config = &pool.config.pool;
        match server.state {
            ServerState::Idle(since) => {
                let spare = pool.shared.open_count() > config.min_size;
                let idle = spare && now - since >= config.server_idle_timeout;
                let ends = idle || server.retire_at <= now;
                (ends && self.lockout(pool).is_none()).then_some(Due::Close)
            }
            ServerState::AwaitingCancels(since) => {
                (now - since >= config.cancel_wait_timeout).then_some(Due::Close)
            }
            ServerState::Linked(session, since) => {
                let client = self.session(session)?;
                if client.presence != Presence::Here {
                    return None;
                }
                if client
                    .stalled_since
                    .is_some_and(|s| now - s >= self.options.client_stall_timeout)
                {
                    return Some(Due::Dismiss(
                        session,
                        SqlState::CONNECTION_FAILURE,
                        "the client does not read its result (client_stall_timeout)",
                    ));
                }
                if let Some((_, since)) = &server.asking
                    && now - *since >= QUESTION_LIMIT
                    && client.phase == Phase::Barrier
                {
                    return Some(Due::GoOn(session));
                }
                let passed =
                    |limit: Option<Duration>, since| limit.is_some_and(|l| now - since >= l);
                if server.pending.is_empty() {
                    let idle = passed(config.idle_transaction_timeout, client.active_at);
                    if idle && server.status != TransactionStatus::Idle {
                        return Some(Due::Dismiss(
                            session,
                            SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT,
                            "terminating connection due to idle_transaction_timeout",
                        ));
                    }
                } else if passed(config.query_timeout, client.active_at)
                    && !server.since_ready.cancelled
                {
                    return Some(Due::Cancel);
                }
                let pinned = client.pin.is_set() || self.is_session_mode(server.pool);
                (!pinned && passed(config.transaction_timeout, since)).then_some(Due::Dismiss(
                    session,
                    SqlState::TRANSACTION_TIMEOUT,
                    "terminating connection due to transaction_timeout",
                ))
            }
            ServerState::Dialing | ServerState::Closing => None,
        }
    }

    /// A question takes too long: its client goes on, pinned, and is asked again later.
    fn go_on_unanswered(&mut self, id: SessionId, now: Instant) {
        let Some(session) = self.sessions.get_mut(id.index()).filter(|s| s.id == id) else {
            return;
        };
        session.phase = Phase::Open;
        let server = session.link.server().and_then(|id| self.servers.get_mut(id.index()));
        if let Some((asking, _)) = server.and_then(|server| server.asking.as_mut()) {
            asking.let_client_go_on();
        }
        session.pin.set(PinReason::Unknown, true, now);
        let pool = &mut self.pools[session.pool.index()];
        setup::hold_place(session, pool);
        pool.stats.questions_failed += 1;
        self.wake(id);
    }

    fn cancel_overdue(&mut self, id: ServerId) {
        if let Some(server) = self.servers.get_mut(id.index()) {
            server.since_ready.cancelled = true;
        }
        // It may have ended meanwhile.
        let _ = self.cancel_running(id);
    }

    fn look_over_clients(&mut self, now: Instant) {
        let Some(limit) = self.options.client_idle_timeout else { return };
        let overdue: Vec<SessionId> = self
            .sessions
            .iter()
            .filter(|(_, s)| s.link == Link::Unlinked && now - s.active_at >= limit)
            .map(|(_, session)| session.id)
            .collect();
        for id in overdue {
            self.dismiss(
                id,
                SqlState::IDLE_SESSION_TIMEOUT,
                "terminating connection due to client_idle_timeout",
            );
        }
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
    Cancel,
    Dismiss(SessionId, SqlState, &'static str),
    /// The session's next message waits for the answer to a question that does not come.
    GoOn(SessionId),
}

/// The other worker with the most idle server connections, or else one with more than its share
/// when this one has less.
fn worker_with_most_idle(pool: &Pool, me: WorkerId, workers: u16) -> Option<WorkerId> {
    let share = fair_share(pool.config.pool.size, workers);
    let below = pool.shared.share(me).open.load(Relaxed) < share;
    let others = (0..pool.shared.shares.len() as u16).map(WorkerId).filter(|other| *other != me);
    others
        .map(|other| {
            let part = pool.shared.share(other);
            let surplus = part.open.load(Relaxed).saturating_sub(share);
            (part.idle.load(Relaxed), if below { surplus } else { 0 }, other)
        })
        .filter(|(idle, surplus, _)| *idle > 0 || *surplus > 0)
        .max_by_key(|(idle, surplus, _)| (*idle, *surplus))
        .map(|(_, _, other)| other)
}
