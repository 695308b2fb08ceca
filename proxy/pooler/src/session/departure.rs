//! How a session ends, and in which state its server connection goes on.
//!
//! A client that has left is still a task until its server connection is clean. What it sent before
//! Terminate runs; what runs for a client that vanished is cancelled, never a COMMIT; an open
//! transaction is rolled back; a pinned or session-mode connection is reset. Nothing is asked about
//! the session: the lightest reset for what it may have left is cheaper. A message or segment that
//! was cut in half closes the connection, and so does a task that panics.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use pgimbal_config::OnClientGone;
use pgimbal_wire::encode::{self, TransactionStatus};
use pgimbal_wire::error::{Report, Severity, SqlState, with_severity};

use crate::ids::{ServerId, SessionId};
use crate::plan::Plan;
use crate::pooler::{Action, Pooler, error_body};
use crate::server::pending::{OwnQuery, Owner};
use crate::server::{Ending, Server};
use crate::session::pin::PinReason;
use crate::session::setup;
use crate::session::state::reset;
use crate::session::{Link, Presence, Session};
use crate::sql::Kinds;

/// Whether a session whose client has left is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Departure {
    /// Call [`Pooler::end`].
    Over,
    /// Its server connection is still busy with it: call [`Pooler::depart`] after each step.
    Later,
}

impl Pooler {
    /// The client has left, in this way; or the server connection of one that had left has made a
    /// step. What was sent before Terminate still runs; what runs for a client that vanished is
    /// cancelled; an open transaction is rolled back; session state is reset.
    pub fn depart(
        &mut self,
        id: SessionId,
        presence: Presence,
        now: Instant,
        plan: &mut Plan,
    ) -> Departure {
        let Some(session) = self.sessions.get_mut(id.index()).filter(|session| session.id == id)
        else {
            return Departure::Over;
        };
        if session.presence == Presence::Here {
            session.presence = presence;
        }
        match session.link {
            Link::Unlinked => Departure::Over,
            Link::Waiting(_) | Link::AwaitingPlace(_) => {
                self.stop_waiting(id);
                Departure::Over
            }
            Link::Fresh(server) if !session.pin.is_set() => {
                self.checkin(server, now);
                Departure::Over
            }
            Link::Fresh(server)
            | Link::Setup(server)
            | Link::Ready(server)
            | Link::Cleaning(server) => self.part(id, server, now, plan),
        }
    }

    /// Forgets a session. A server connection that it still has cannot be trusted and is closed.
    pub fn end(&mut self, id: SessionId) {
        if self.session(id).is_none() {
            return;
        }
        self.stop_waiting(id);
        let session = self.sessions.remove(id.index());
        self.by_process.remove(&session.key.process_id);
        session.settings.close(&mut self.tables.settings);
        let pool = &mut self.pools[session.pool.index()];
        pool.sessions -= 1;
        pool.shared.share(self.worker).sessions.fetch_sub(1, Relaxed);
        pool.logins.retain(|login| *login != id);
        if session.serving != session.pool {
            self.pools[session.serving.index()].logins.retain(|login| *login != id);
        }
        if let Some(server) = session.link.server() {
            self.close_server(server);
        }
    }

    /// Closes the connections of idle clients, and of the others as soon as their transactions
    /// have ended (57P01).
    pub fn drain(&mut self) {
        self.draining = true;
        let idle: Vec<SessionId> = self
            .sessions
            .iter()
            .filter(|(_, session)| session.link == Link::Unlinked && session.aborted.is_none())
            .map(|(_, session)| session.id)
            .collect();
        for id in idle {
            self.dismiss(id, SqlState::ADMIN_SHUTDOWN, "pgimbal is shutting down");
        }
    }

    /// While draining: a session whose transaction has ended goes too.
    pub(crate) fn dismiss_drained(&mut self, id: SessionId) {
        let stays = self
            .session(id)
            .is_none_or(|session| session.presence != Presence::Here || session.aborted.is_some());
        if !stays {
            self.dismiss(id, SqlState::ADMIN_SHUTDOWN, "pgimbal is shutting down");
        }
    }

    /// Whether any session is left.
    #[must_use]
    pub fn has_sessions(&self) -> bool {
        !self.sessions.is_empty()
    }

    /// Ends a client's connection with a FATAL.
    pub(crate) fn dismiss(&mut self, id: SessionId, code: SqlState, message: &str) {
        self.dismiss_with(id, code, &error_body(&Report::fatal(code, message)));
    }

    /// As [`Self::dismiss`], with the body of an ErrorResponse.
    pub(crate) fn dismiss_with(&mut self, id: SessionId, code: SqlState, error: &[u8]) {
        let Some(session) = self.sessions.get_mut(id.index()).filter(|session| session.id == id)
        else {
            return;
        };
        if session.final_error.is_none() {
            let mut final_error = Vec::new();
            with_severity(error, Severity::Fatal, &mut final_error);
            session.final_error = Some(final_error.into());
            self.pools[session.pool.index()].stats.error(code);
            self.wake(id);
        }
    }

    /// One step towards a clean server connection.
    fn part(
        &mut self,
        id: SessionId,
        server_id: ServerId,
        now: Instant,
        plan: &mut Plan,
    ) -> Departure {
        let (Some(session), Some(server)) =
            (self.sessions.get_mut(id.index()), self.servers.get_mut(server_id.index()))
        else {
            return Departure::Over;
        };
        server.pending.add_for(Owner::of(id));
        let pool = &self.pools[session.pool.index()];
        let vanished = session.presence == Presence::Vanished;
        if vanished
            && server.pending.runs_client_of(id)
            && server.since_ready.ending != Ending::MayCommit
            && !server.since_ready.cancelled
            && pool.config.pool.on_client_gone == OnClientGone::Cancel
        {
            server.since_ready.cancelled = true;
            server.cancels += 1;
            self.actions.push(Action::Cancel(server_id));
        }
        if server.copy_in && session.between_server_messages() && !server.since_ready.segment_open {
            plan.make_for_server(|out| encode::copy_fail(out, b"the client has gone"));
            server.copy_in = false;
        }
        // Half a message, or a segment without its Sync: PostgreSQL rolls it back when the
        // connection ends, and only then.
        if !session.between_server_messages() || server.since_ready.segment_open {
            self.close_server(server_id);
            session_unlinked(&mut self.sessions, id);
            return Departure::Over;
        }
        if !server.pending.is_empty() {
            return Departure::Later;
        }
        if server.status != TransactionStatus::Idle {
            setup::send_own(server, OwnQuery::Rollback, b"ROLLBACK", plan);
            return Departure::Later;
        }
        let is_clean = matches!(session.link, Link::Cleaning(_));
        let strict = pool.config.pool.reset_query_always
            || pool.config.pool.mode == pgimbal_config::PoolMode::Session;
        let holds = session.pin.is_set()
            || !session.raised.is_empty()
            || !server.surplus.is_empty()
            || !session.close_after_sync.is_empty();
        if is_clean || !(strict || holds) {
            self.checkin(server_id, now);
            return Departure::Over;
        }
        session.link = Link::Cleaning(server_id);
        if strict || !setup::is_discard_all(&pool.config.pool.reset_query) {
            setup::start_reset(server, pool, &self.tables, plan);
            return Departure::Later;
        }
        // One that has left is not asked about: taking it off is cheaper.
        let left = left_by(session, server);
        server.residue = left.and(reset::CLOSED);
        self.pools[session.pool.index()].stats.resets += 1;
        setup::send_reset(server, OwnQuery::Clean, left, &mut self.tables, plan);
        if server.pending.is_empty() {
            self.checkin(server_id, now);
            return Departure::Over;
        }
        Departure::Later
    }
}

/// What a session may leave behind on its server connection.
fn left_by(session: &Session, server: &mut Server) -> Kinds {
    let mut left = session.raised.union(session.pin.leaves()).union(server.residue);
    // Of the surplus some may be what others share, parsed under settings that were this session's.
    let surplus = std::mem::take(&mut server.surplus);
    if !session.close_after_sync.is_empty()
        || session.pin.has(PinReason::LargeStatement)
        || !surplus.is_empty()
    {
        left.insert(Kinds::STATEMENTS);
    }
    if session.pin.has(PinReason::TooManySettings) {
        left.insert(Kinds::SETTINGS.union(Kinds::ROLE));
    }
    left
}

fn session_unlinked(sessions: &mut slab::Slab<crate::session::Session>, id: SessionId) {
    if let Some(session) = sessions.get_mut(id.index()) {
        session.link = Link::Unlinked;
    }
}
