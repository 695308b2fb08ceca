//! The sessions that wait: for a server connection, for a place among the pinned ones, or to be
//! greeted.

use std::sync::Arc;
use std::time::Instant;

use super::Waiter;
use super::pools::Pools;
use crate::core::Core;
use crate::ids::{PoolId, SessionId};
use crate::session::Link;
use crate::session::sessions::Sessions;

/// Puts a session in a pool's queue.
pub(crate) fn wait(sessions: &mut Sessions, pools: &mut Pools, waiter: Waiter, pool: PoolId) {
    if let Some(session) = sessions.get_mut(waiter.session) {
        session.begin_wait(waiter.since, pool);
        pools[pool].enqueue(waiter);
    }
}

/// Whether an entry of the queue is that of a session which waits since then.
pub(crate) fn still_waits(sessions: &Sessions, waiter: Waiter) -> bool {
    let session = sessions.get(waiter.session);
    session.is_some_and(|session| session.link() == Link::Waiting(waiter.since))
}

/// The longest waiter of a pool; entries of those who wait no more are dropped on the way.
pub(crate) fn longest_waiter(sessions: &Sessions, pools: &mut Pools, id: PoolId) -> Option<Waiter> {
    while let Some(waiter) = pools[id].first_waiter() {
        if still_waits(sessions, waiter) {
            return Some(waiter);
        }
        pools[id].pop_waiter();
    }
    None
}

/// Takes a session out of the queue, if it is in one.
pub(crate) fn stop_waiting(sessions: &mut Sessions, pools: &mut Pools, id: SessionId) {
    let Some(session) = sessions.get_mut(id) else { return };
    match session.link() {
        Link::AwaitingPlace(_) => {
            session.set_link(Link::Unlinked);
            session.channels_mut().end_wait();
            let pool = session.pool();
            pools[pool].place_waiters_mut().retain(|waiter| waiter.session != id);
        }
        // Who reads it next finds that it does not wait.
        Link::AwaitingRead(_) => session.set_link(Link::Unlinked),
        Link::Waiting(_) => {
            session.set_link(Link::Unlinked);
            let pool = session.serving();
            if pools[pool].end_wait() {
                pools[pool].sweep_waiters(|waiter| still_waits(sessions, waiter));
            }
        }
        _ => {}
    }
}

/// Answers what a waiting session waits for with an error, and what it has pipelined behind that
/// with the error `rest`, if there is one. Nothing for a session that does not wait.
pub(crate) fn refuse(core: &mut Core, id: SessionId, error: &Arc<[u8]>, rest: Option<Arc<[u8]>>) {
    let waits = core.sessions.get(id).is_some_and(|session| session.link().waits());
    if !waits {
        return;
    }
    stop_waiting(&mut core.sessions, &mut core.pools, id);
    if let Some(session) = core.sessions.get_mut(id) {
        session.serve_none(Arc::clone(error), rest);
    }
    core.actions.wake(id);
}

/// If nothing can serve the pool for now, everybody who waits is told so.
pub(crate) fn tell_standing_failure(core: &mut Core, id: PoolId, now: Instant) {
    let Some(error) = core.pools[id].shared().standing_failure(now) else { return };
    wake_logins(core, id);
    for waiter in core.pools[id].take_waiters() {
        refuse(core, waiter.session, &error, Some(Arc::clone(&error)));
    }
}

/// Those who wait for a node that cannot serve them ask again, for another one.
pub(crate) fn send_elsewhere(core: &mut Core, id: PoolId) {
    wake_logins(core, id);
    for waiter in core.pools[id].take_waiters() {
        if still_waits(&core.sessions, waiter) {
            stop_waiting(&mut core.sessions, &mut core.pools, waiter.session);
            core.actions.wake(waiter.session);
        }
    }
}

/// What the logins of a pool wait for has come: their tasks ask again.
pub(crate) fn wake_logins(core: &mut Core, pool: PoolId) {
    for login in core.pools[pool].take_logins() {
        core.actions.wake(login);
    }
}
