//! Clients whose next statement would pin them, and who wait for a place among the pinned sessions
//! of their pool. They hold no server connection meanwhile.

use std::sync::Arc;
use std::time::Instant;

use pgimbal_wire::error::{Report, SqlState};

use crate::core::Core;
use crate::error::error_body;
use crate::ids::{PoolId, SessionId};
use crate::pool::{Waiter, checkout};
use crate::session::Link;

/// The session's next message stopped with [`Stop::WaitForPlace`](crate::plan::Stop::WaitForPlace):
/// gives its server connection back and lets it wait, for `query_wait_timeout` at most: for a
/// place, or until the connection that it shares with others listens. It is woken.
pub(crate) fn await_place(core: &mut Core, id: SessionId, now: Instant) {
    let Some(session) = core.sessions.get(id) else { return };
    let pool = session.pool;
    if let Some(server) = session.link.server() {
        checkout::checkin(core, server, now);
    }
    if let Some(session) = core.sessions.get_mut(id) {
        session.link = Link::AwaitingPlace(now);
        if session.channels.waits() {
            // The connection that listens wakes it.
            return;
        }
        core.pools[pool].place_waiters_mut().push_back(Waiter { session: id, since: now });
    }
}

/// Gives places to those who wait for one, longest first, and tells those who have waited for too
/// long.
pub(crate) fn give_places(core: &mut Core, id: PoolId, now: Instant) {
    while let Some(waiter) = core.pools[id].place_waiters().front().copied() {
        let pool = &mut core.pools[id];
        let slot = pool.shared().pin(pool.config().max_pinned);
        if slot.is_none() && now - waiter.since < pool.config().pool.query_wait_timeout {
            return;
        }
        pool.place_waiters_mut().pop_front();
        let Some(session) = core.sessions.get_mut(waiter.session) else { continue };
        session.link = Link::Unlinked;
        match slot {
            Some(slot) => session.pin.hold(slot),
            None => {
                session.refuse(none_became_free());
                pool.stats_mut().error(SqlState::CONFIGURATION_LIMIT_EXCEEDED);
            }
        }
        core.actions.wake(waiter.session);
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
