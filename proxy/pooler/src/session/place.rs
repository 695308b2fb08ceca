//! Clients whose next statement would pin them, and who wait for a place among the pinned sessions
//! of their pool. They hold no server connection meanwhile.

use std::sync::Arc;
use std::time::Instant;

use pgimbal_wire::error::{Report, SqlState};

use crate::ids::{PoolId, SessionId};
use crate::pool::Waiter;
use crate::pooler::{Pooler, error_body};
use crate::session::Link;

impl Pooler {
    /// The session's next message stopped with
    /// [`Stop::WaitForPlace`](crate::plan::Stop::WaitForPlace): gives its server connection back
    /// and lets it wait, for `query_wait_timeout` at most. It is woken.
    pub fn await_place(&mut self, id: SessionId, now: Instant) {
        let Some(session) = self.session(id) else { return };
        let pool = session.pool;
        if let Some(server) = session.link.server() {
            self.checkin(server, now);
        }
        if let Some(session) = self.sessions.get_mut(id.index()) {
            session.link = Link::AwaitingPlace(now);
            let waiter = Waiter { session: id, since: now };
            self.pools[pool.index()].place_waiters.push_back(waiter);
        }
    }

    /// Gives places to those who wait for one, longest first, and tells those who have waited for
    /// too long.
    pub(crate) fn give_places(&mut self, id: PoolId, now: Instant) {
        while let Some(waiter) = self.pools[id.index()].place_waiters.front().copied() {
            let pool = &self.pools[id.index()];
            let limit = pool.config.pool.query_wait_timeout;
            let slot = pool.shared.pin(pool.config.max_pinned);
            if slot.is_none() && now - waiter.since < limit {
                return;
            }
            self.pools[id.index()].place_waiters.pop_front();
            let Some(session) = self.sessions.get_mut(waiter.session.index()) else { continue };
            if session.id != waiter.session {
                continue;
            }
            session.link = Link::Unlinked;
            match slot {
                Some(slot) => session.pin.hold(slot),
                None => {
                    session.refuse(none_became_free());
                    self.pools[id.index()].stats.error(SqlState::CONFIGURATION_LIMIT_EXCEEDED);
                }
            }
            self.wake(waiter.session);
        }
    }
}

fn none_became_free() -> Arc<[u8]> {
    error_body(
        &Report::error(
            SqlState::CONFIGURATION_LIMIT_EXCEEDED,
            "too many sessions of this pool keep their server connection",
        )
        .detail(
            "The statement would tie session state to one server connection, or is too long to tell \
             (max_statement_bytes), and none of the pinned sessions became free within \
             query_wait_timeout.",
        )
        .hint("See SHOW CLIENTS for who is pinned and why, or raise max_pinned."),
    )
}
