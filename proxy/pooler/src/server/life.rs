//! How a server connection begins and ends, and what its end means to the session on it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pgimbal_wire::error::{self, Report, SqlState};

use crate::cluster::DialedNode;
use crate::ids::{PoolId, ServerId, SessionId};
use crate::plan::Plan;
use crate::pool::Place;
use crate::pool::shared::{Audience, Welcome};
use crate::pooler::{Pooler, error_body};
use crate::recovery::{self, DisconnectOutcome};
use crate::server::reported::NamedValue;
use crate::server::{BackendKey, Server, ServerState};
use crate::session::Link;
use crate::topology::{NodeId, ProbeHint};

/// The longest pause between attempts of which nobody is told: a new primary is found by then.
const LONGEST_QUIET_PAUSE: Duration = Duration::from_millis(250);

/// What a server said while it let us in.
#[derive(Clone, Debug)]
pub struct Dialed {
    /// For cancel requests.
    pub backend_key: BackendKey,
    /// The settings that it reports, name and value.
    pub parameters: Vec<NamedValue>,
    /// Where it leads, if it was opened for a cluster.
    pub found: Option<DialedNode>,
}

/// Why a server connection could not be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DialFailure {
    /// The server has decided so, or the configuration is wrong: everybody who waits is told.
    Refused,
    /// The server is not there, or not now. In a cluster another node may be.
    Unreachable,
}

impl Pooler {
    /// A server connection was opened.
    pub fn dialed(&mut self, id: ServerId, dialed: Dialed, now: Instant) {
        let Some(server) = self.servers.get_mut(id.index()).filter(|server| server.id == id) else {
            return;
        };
        server.backend_key = dialed.backend_key;
        server.reported = self.tables.reported.intern(dialed.parameters.iter().cloned());
        let pool = server.pool;
        if self.pools[pool.index()].is_clustered() {
            let epoch = self.stamp(&self.pools[pool.index()], dialed.found);
            if epoch.is_none() {
                return self.wrong_node(id, dialed.found, now);
            }
            self.servers[id.index()].epoch = epoch;
        }
        let pool = &mut self.pools[pool.index()];
        pool.dialing -= 1;
        pool.stats.server_logins += 1;
        pool.shared.set_welcome(Welcome { parameters: dialed.parameters });
        pool.shared.dial_succeeded();
        let pool = pool.id;
        self.wake_logins(pool);
        self.release(id, now);
        self.dial_if_wanted(pool, now);
    }

    /// A server connection could not be opened. `error` is the body of the ErrorResponse that
    /// tells why, the server's own if it sent one.
    pub fn dial_failed(
        &mut self,
        id: ServerId,
        error: Arc<[u8]>,
        failure: DialFailure,
        now: Instant,
    ) {
        let Some(server) = self.forget(id) else { return };
        let node = server.node;
        let pool = &mut self.pools[server.pool.index()];
        pool.dialing -= 1;
        pool.stats.server_login_failures += 1;
        if let Ok(fields) = error::ErrorFields::parse(&error) {
            pool.stats.error(fields.code);
        }
        let unreachable = failure == DialFailure::Unreachable;
        let quiet = match pool.is_clustered() {
            true => unreachable || matches!(pool.key.place, Place::Node(_)),
            // A server that was there may come back; an address where none ever was is wrong.
            false => unreachable && pool.outlives_server() && pool.shared.welcome().is_some(),
        };
        let (longest, audience) = match quiet {
            true => (LONGEST_QUIET_PAUSE, Audience::Nobody),
            false => (pool.config.pool.server_login_retry, Audience::Waiters),
        };
        pool.shared.dial_failed(Arc::clone(&error), now, longest, audience);
        let pool = server.pool;
        drop(server);
        if quiet {
            self.node_failed(pool, node, now);
        }
        self.tell_standing_failure(pool, now);
    }

    /// A server connection was opened that leads where it should not: the view or the network has
    /// changed meanwhile.
    fn wrong_node(&mut self, id: ServerId, found: Option<DialedNode>, now: Instant) {
        let Some(server) = self.server(id) else { return };
        let pool = server.pool;
        let error = error_body(&Report::error(
            SqlState::CANNOT_CONNECT_NOW,
            "the server is not the one that its cluster's prober has seen",
        ));
        let shared = &self.pools[pool.index()].shared;
        shared.dial_failed(error, now, LONGEST_QUIET_PAUSE, Audience::Nobody);
        let pool = &mut self.pools[pool.index()];
        pool.dialing -= 1;
        pool.stats.server_login_failures += 1;
        let pool = pool.id;
        self.close_server(id);
        self.node_failed(pool, found.map(|found| found.node), now);
    }

    /// A node could not be used: its prober looks at once, and who waits for it alone is sent
    /// elsewhere.
    fn node_failed(&mut self, pool: PoolId, node: Option<NodeId>, now: Instant) {
        if let Some(node) = node {
            self.probe_hint(pool, ProbeHint::DialFailed(node));
        }
        if matches!(self.pools[pool.index()].key.place, Place::Node(_)) {
            self.leave_out(pool, now);
            self.send_elsewhere(pool);
        }
    }

    /// If nothing can serve the pool for now, everybody who waits is told so.
    pub(crate) fn tell_standing_failure(&mut self, id: PoolId, now: Instant) {
        let Some(error) = self.pools[id.index()].shared.standing_failure(now) else { return };
        self.wake_logins(id);
        let waiters = std::mem::take(&mut self.pools[id.index()].waiters);
        for waiter in waiters {
            self.refuse_waiter(waiter.session, &error);
        }
    }

    /// Answers what a waiting session waits for, and all that stands behind it, with an error.
    pub(crate) fn refuse_waiter(&mut self, id: SessionId, error: &Arc<[u8]>) {
        self.refuse_segment(id, error, Some(Arc::clone(error)));
    }

    /// Answers what a waiting session waits for with an error, and what it has pipelined behind
    /// that with the error `rest`.
    pub(crate) fn refuse_segment(
        &mut self,
        id: SessionId,
        error: &Arc<[u8]>,
        rest: Option<Arc<[u8]>>,
    ) {
        let waits = self.session(id).is_some_and(|session| {
            matches!(session.link, Link::Waiting(_) | Link::AwaitingPlace(_))
        });
        if waits {
            self.stop_waiting(id);
            if let Some(session) = self.sessions.get_mut(id.index()) {
                session.serve_none(Arc::clone(error), rest);
            }
            self.wake(id);
        }
    }

    pub(crate) fn wake_logins(&mut self, pool: PoolId) {
        for login in std::mem::take(&mut self.pools[pool.index()].logins) {
            self.wake(login);
        }
    }

    /// The driver has said good-bye to a server connection and seen its end.
    pub fn closed(&mut self, id: ServerId, now: Instant) {
        if let Some(server) = self.forget(id) {
            let pool = server.pool;
            drop(server);
            self.dial_if_wanted(pool, now);
        }
    }

    /// A server connection has ended, or cannot be used any more, without a good-bye. Its session
    /// is told what `plan` then holds for the client, and every other one that awaits replies of it.
    pub fn server_gone(
        &mut self,
        id: ServerId,
        now: Instant,
        plan: &mut Plan,
    ) -> DisconnectOutcome {
        let Some(mut server) = self.forget(id) else { return DisconnectOutcome::Survives };
        let pool = &mut self.pools[server.pool.index()];
        pool.stats.server_closes += 1;
        let mut outcome = DisconnectOutcome::Survives;
        recovery::tell_others(&mut self.sessions, &mut server, pool, plan);
        let session = server.session().and_then(|session| self.sessions.get_mut(session.index()));
        if let Some(session) = session {
            outcome = recovery::part(session, &mut server, pool, plan);
            session.settings.rollback(&mut self.tables.settings);
            if matches!(session.link, Link::Ready(_)) {
                session.pin.drop_unused_place();
            }
            session.link = Link::Unlinked;
        }
        let (pool, epoch) = (server.pool, server.epoch);
        drop(server);
        if let Some(epoch) = epoch {
            self.probe_hint(pool, ProbeHint::ConnectionBroke(epoch.node));
            self.leave_out(pool, now);
        }
        self.dial_if_wanted(pool, now);
        outcome
    }

    /// Takes a server connection out of every list.
    fn forget(&mut self, id: ServerId) -> Option<Server> {
        self.server(id)?;
        let mut server = self.servers.remove(id.index());
        self.tables
            .settings
            .assign(&mut server.settings, crate::session::settings::SettingsId::EMPTY);
        if matches!(server.state, ServerState::Idle(_)) {
            let pool = &mut self.pools[server.pool.index()];
            pool.idle.retain(|idle| *idle != id);
            pool.publish_idle(self.worker);
        }
        Some(server)
    }
}
