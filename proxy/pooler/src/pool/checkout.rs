//! Who gets which server connection, and when it is given back.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use pgimbal_config::PoolMode;

use crate::cluster::Gate;
use crate::ids::{PoolId, ServerId, SessionId};
use crate::pool::{Reserve, Waiter, fair_share};
use crate::pooler::{Action, Pooler};
use crate::server::{Server, ServerState};
use crate::session::Link;
use crate::session::state::reset::CLOSED;

/// What became of a request for a server connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checkout {
    /// The session has this one. The driver asks it whether its end has come meanwhile: then
    /// [`Pooler::server_gone`] and another try.
    Linked(ServerId),
    /// The session waits; it is woken.
    Waiting,
    /// The session has an error to tell instead.
    Refused,
}

impl Pooler {
    /// Links a session to an idle server connection, or puts it in the queue.
    pub fn checkout(&mut self, id: SessionId, now: Instant) -> Checkout {
        let Some(session) = self.session(id) else { return Checkout::Waiting };
        match session.link {
            Link::Unlinked => {}
            Link::Waiting(_) | Link::AwaitingPlace(_) => return Checkout::Waiting,
            Link::Fresh(server)
            | Link::Setup(server)
            | Link::Ready(server)
            | Link::Cleaning(server) => {
                return Checkout::Linked(server);
            }
        }
        let (home, request) = (session.pool, self.request_of(session));
        let refuse = |pooler: &mut Self, error| {
            if let Some(session) = pooler.sessions.get_mut(id.index()) {
                session.serve_none(Arc::clone(&error), Some(error));
            }
            Checkout::Refused
        };
        let pool_id = match self.choose_pool(home, request, now) {
            Ok(pool) => pool,
            Err(error) => return refuse(self, error),
        };
        match self.gate(&self.pools[pool_id.index()]) {
            Gate::Open => {
                let pool = &mut self.pools[pool_id.index()];
                if let Some(server) = pool.idle.pop() {
                    pool.publish_idle(self.worker);
                    self.link(id, server, now);
                    return Checkout::Linked(server);
                }
                if let Some(error) = pool.shared.standing_failure(now) {
                    return refuse(self, error);
                }
            }
            Gate::Held => {
                if let Err(error) = self.admit_held(pool_id, now) {
                    return refuse(self, error);
                }
            }
            Gate::Refused(error) => {
                self.count_failed(pool_id);
                return refuse(self, error);
            }
        }
        if let Some(session) = self.sessions.get_mut(id.index()) {
            session.link = Link::Waiting(now);
            session.serving = pool_id;
        }
        let pool = &mut self.pools[pool_id.index()];
        pool.waiters.push_back(Waiter { session: id, since: now });
        pool.begin_wait();
        self.dial_if_wanted(pool_id, now);
        Checkout::Waiting
    }

    /// Gives a server connection back once everything was written: to the longest waiter, to a
    /// worker that asked for one, or to the idle ones.
    pub fn checkin(&mut self, id: ServerId, now: Instant) {
        let Some(server) = self.servers.get_mut(id.index()).filter(|server| server.id == id) else {
            return;
        };
        let served = server.session();
        if let ServerState::Linked(session, since) = server.state {
            let pool = &mut self.pools[server.pool.index()];
            pool.stats.held_nanos += (now - since).as_nanos() as u64;
            if let Some(session) = self.sessions.get_mut(session.index()) {
                session.link = Link::Unlinked;
                session.portals.clear();
                session.pin.drop_unused_place();
                session.refused = None;
            }
        }
        if server.cancels > 0 {
            server.state = ServerState::AwaitingCancels(now);
        } else {
            self.release(id, now);
        }
        if let Some(session) = served.filter(|_| self.draining) {
            self.dismiss_drained(session);
        }
    }

    /// A server connection that nobody holds any more goes to whoever needs it most.
    pub(crate) fn release(&mut self, id: ServerId, now: Instant) {
        let Some(server) = self.servers.get_mut(id.index()) else { return };
        let pool = server.pool;
        server.state = ServerState::Idle(now);
        let epoch = server.epoch;
        let retires = server.retire_at <= now;
        // What it carries only ends with it.
        let carries = server.residue.meets(CLOSED);
        let retires = retires && self.lockout(&self.pools[pool.index()]).is_none();
        let retires = retires || carries;
        if retires || !self.is_current(&self.pools[pool.index()], epoch) {
            self.close_server(id);
            self.dial_if_wanted(pool, now);
            return;
        }
        let mine = self.pools[pool.index()].shared.share(self.worker).open.load(Relaxed);
        let share = fair_share(self.pools[pool.index()].config.pool.size, self.workers);
        let surplus = mine > share || self.pools[pool.index()].waiting == 0;
        if surplus && let Some(worker) = self.pools[pool.index()].asked_by.pop_front() {
            self.actions.push(Action::Give(id, worker));
            return;
        }
        let waits = !self.pools[pool.index()].waiters.is_empty();
        let open = waits && self.gate(&self.pools[pool.index()]) == Gate::Open;
        if open && self.give_to_waiter(pool, id, now) {
            return;
        }
        let pool = &mut self.pools[pool.index()];
        pool.idle.push(id);
        pool.publish_idle(self.worker);
    }

    /// Hands a server connection to the longest waiter; `false` when nobody waits.
    fn give_to_waiter(&mut self, pool: PoolId, id: ServerId, now: Instant) -> bool {
        while let Some(waiter) = self.pools[pool.index()].waiters.pop_front() {
            if !self.still_waits(waiter) {
                continue;
            }
            let pool = &mut self.pools[pool.index()];
            pool.end_wait();
            pool.stats.waits.record(now - waiter.since);
            self.link(waiter.session, id, now);
            self.wake(waiter.session);
            return true;
        }
        false
    }

    /// The idle server connections of a pool that was held go to those who have waited.
    pub(crate) fn serve_waiters(&mut self, id: PoolId, now: Instant) {
        while let Some(server) = self.pools[id.index()].idle.pop() {
            if !self.give_to_waiter(id, server, now) {
                self.pools[id.index()].idle.push(server);
                break;
            }
        }
        self.pools[id.index()].publish_idle(self.worker);
    }

    fn link(&mut self, session_id: SessionId, server_id: ServerId, now: Instant) {
        let (Some(session), Some(server)) =
            (self.sessions.get_mut(session_id.index()), self.servers.get_mut(server_id.index()))
        else {
            return;
        };
        session.link = Link::Fresh(server_id);
        session.serving = server.pool;
        server.state = ServerState::Linked(session_id, now);
    }

    /// Opens server connections while somebody waits for whom none is under way and the limits
    /// allow it. Beyond its fair share a worker opens one only when its waiters have seen that
    /// nobody else has one to give (see [`Pooler::tick`]).
    pub(crate) fn dial_if_wanted(&mut self, id: PoolId, now: Instant) {
        while self.pools[id.index()].wants_dial() {
            let pool = &self.pools[id.index()];
            let mine = pool.shared.share(self.worker).open.load(Relaxed);
            if mine >= fair_share(pool.config.pool.size, self.workers)
                || !self.dial(id, Reserve::Kept, now)
            {
                return;
            }
        }
    }

    /// Opens one server connection if the limits allow it.
    pub(crate) fn dial(&mut self, id: PoolId, reserve: Reserve, now: Instant) -> bool {
        let Ok(node) = self.next_node(&self.pools[id.index()]) else { return false };
        let serial = self.next_serial();
        let pool = &mut self.pools[id.index()];
        let Some(slot) = pool.shared.open(self.worker, pool.limits(reserve), now) else {
            return false;
        };
        pool.dialing += 1;
        let entry = self.servers.vacant_entry();
        let server = ServerId { slot: entry.key() as u32, serial };
        let lifetime = pool.config.pool.server_lifetime;
        let reported = self.tables.reported.intern([]);
        let retire_at = now + lifetime - spread(lifetime, serial);
        let dialing = Server::dialing(server, id, slot, reported, now, retire_at);
        entry.insert(Server { node, ..dialing });
        self.actions.push(Action::Dial(server));
        true
    }

    /// Says good-bye to a server connection; its place stays taken until [`Pooler::closed`].
    pub(crate) fn close_server(&mut self, id: ServerId) {
        let Some(server) = self.servers.get_mut(id.index()).filter(|server| server.id == id) else {
            return;
        };
        if server.state == ServerState::Closing {
            return;
        }
        server.state = ServerState::Closing;
        let pool = &mut self.pools[server.pool.index()];
        pool.stats.server_closes += 1;
        pool.idle.retain(|idle| *idle != id);
        pool.publish_idle(self.worker);
        self.actions.push(Action::Close(id));
    }

    /// Takes a session out of the queue, if it is in it.
    pub(crate) fn stop_waiting(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get_mut(id.index()).filter(|session| session.id == id)
        else {
            return;
        };
        if matches!(session.link, Link::AwaitingPlace(_)) {
            session.link = Link::Unlinked;
            let pool = session.pool;
            self.pools[pool.index()].place_waiters.retain(|waiter| waiter.session != id);
            return;
        }
        if matches!(session.link, Link::Waiting(_)) {
            session.link = Link::Unlinked;
            let pool = &mut self.pools[session.serving.index()];
            pool.end_wait();
            // Entries of those who wait no more go when they are the majority.
            if pool.waiters.len() > 2 * pool.waiting as usize + 16 {
                let mut waiters = std::mem::take(&mut pool.waiters);
                let pool = session.serving;
                waiters.retain(|waiter| self.still_waits(*waiter));
                self.pools[pool.index()].waiters = waiters;
            }
        }
    }

    /// Whether an entry of the queue is that of a session which waits since then.
    pub(crate) fn still_waits(&self, waiter: Waiter) -> bool {
        self.session(waiter.session)
            .is_some_and(|session| session.link == Link::Waiting(waiter.since))
    }

    /// Whether the pool releases server connections before the client leaves.
    pub(crate) fn is_session_mode(&self, pool: PoolId) -> bool {
        self.pools[pool.index()].config.pool.mode == PoolMode::Session
    }
}

/// Ends of server connections are spaced over a quarter of their life, so that a pool that was
/// opened at once is not replaced at once. The serial numbers fill the interval evenly.
fn spread(lifetime: std::time::Duration, serial: u32) -> std::time::Duration {
    spread_over(lifetime / 4, serial)
}

/// A part of `span` that differs from one server connection to the next.
pub(crate) fn spread_over(span: std::time::Duration, serial: u32) -> std::time::Duration {
    let fraction = serial.wrapping_mul(0x9e37_79b9) >> 16;
    span * fraction / 65_536
}
