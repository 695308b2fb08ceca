//! How a session ends, and in which state its server connection goes on.
//!
//! A client that has left is still a task until its server connection is clean. What it sent before
//! Terminate runs; what runs for a client that vanished is cancelled, never a COMMIT; an open
//! transaction is rolled back; a pinned or session-mode connection is reset. Nothing is asked about
//! the session: the lightest reset for what it may have left is cheaper. A message or segment that
//! was cut in half closes the connection, and so does a task that panics.

use std::time::Instant;

use pgimbal_config::{OnClientGone, PoolMode};
use pgimbal_wire::encode::{self, TransactionStatus};

use crate::cancel::request;
use crate::core::Core;
use crate::ids::{ServerId, SessionId};
use crate::listener::steps;
use crate::plan::Plan;
use crate::pool::{Pool, checkout, dial, queue};
use crate::server::pending::{OwnQuery, Owner};
use crate::server::{Ending, Server};
use crate::session::pin::PinReason;
use crate::session::state::reset;
use crate::session::{Link, Presence, Session, setup};
use crate::sql::Kinds;
use crate::tables::Tables;

/// Whether a session is over whose client has left. The driver gets it from
/// `Pooler::handle_departure`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Departure {
    /// Nothing is left to do for the session: the driver calls `Pooler::forget_session`. Its server
    /// connection, if it had one, went back to the pool, or was closed if a message or segment was
    /// cut in half.
    Over,
    /// The session's server connection still runs something, or is being cleaned: the driver calls
    /// `Pooler::handle_departure` again after each step of that connection.
    Later,
}

/// The client has left, in this way; or the server connection of one that had left has made a step.
/// What was sent before Terminate still runs; what runs for a client that vanished is cancelled; an
/// open transaction is rolled back; session state is reset.
pub(crate) fn depart(
    core: &mut Core,
    id: SessionId,
    presence: Presence,
    now: Instant,
    plan: &mut Plan,
) -> Departure {
    let Some(session) = core.sessions.get_mut(id) else { return Departure::Over };
    if session.presence == Presence::Here {
        session.presence = presence;
    }
    match session.link {
        Link::Unlinked => Departure::Over,
        Link::Waiting(_) | Link::AwaitingPlace(_) | Link::AwaitingRead(_) => {
            queue::stop_waiting(&mut core.sessions, &mut core.pools, id);
            Departure::Over
        }
        Link::Fresh(server) if !session.pin.is_set() => {
            checkout::checkin(core, server, now);
            Departure::Over
        }
        Link::Fresh(server)
        | Link::Setup(server)
        | Link::Ready(server)
        | Link::Cleaning(server) => clean(core, id, server, now, plan),
    }
}

/// Forgets a session. A server connection that it still has cannot be trusted and is closed.
pub(crate) fn end(core: &mut Core, id: SessionId) {
    queue::stop_waiting(&mut core.sessions, &mut core.pools, id);
    let Some(mut session) = core.sessions.remove(id) else { return };
    steps::forget_session(core, session.pool, id, &session.channels.leave());
    session.settings.close(&mut core.tables.settings);
    core.pools[session.pool].remove_session(id);
    core.pools[session.serving].remove_login(id);
    if let Some(server) = session.link.server() {
        dial::close_server(&mut core.servers, &mut core.pools, &mut core.actions, server);
    }
}

/// One step towards a clean server connection.
fn clean(
    core: &mut Core,
    id: SessionId,
    server_id: ServerId,
    now: Instant,
    plan: &mut Plan,
) -> Departure {
    let linked = (core.sessions.get_mut(id), core.servers.get_mut(server_id));
    let (Some(session), Some(server)) = linked else { return Departure::Over };
    server.pending_mut().add_for(Owner::of(id));
    let pool = &mut core.pools[session.pool];
    if is_to_be_cancelled(session, server, pool) {
        server.note_cancelled();
        request::send_cancel(server, pool, &mut core.actions);
    }
    if server.copies_in() && session.between_server_messages() && !server.has_open_segment() {
        plan.make_for_server(|out| encode::copy_fail(out, b"the client has gone"));
        server.end_copy_in();
    }
    // Half a message, or a segment without its Sync: PostgreSQL rolls it back when the connection
    // ends, and only then.
    if !session.between_server_messages() || server.has_open_segment() {
        session.link = Link::Unlinked;
        dial::close_server(&mut core.servers, &mut core.pools, &mut core.actions, server_id);
        return Departure::Over;
    }
    if !server.pending().is_empty() {
        return Departure::Later;
    }
    if server.status() != TransactionStatus::Idle {
        setup::send_own(server, OwnQuery::Rollback, b"ROLLBACK", plan);
        return Departure::Later;
    }
    if start_cleaning(session, server, pool, &mut core.tables, plan) {
        return Departure::Later;
    }
    checkout::checkin(core, server_id, now);
    Departure::Over
}

/// Whether what runs for a client that is gone is cancelled: never what may be a COMMIT.
fn is_to_be_cancelled(session: &Session, server: &Server, pool: &Pool) -> bool {
    session.presence == Presence::Vanished
        && server.pending().runs_client_of(session.id)
        && server.ending() != Ending::MayCommit
        && !server.is_cancelled()
        && pool.config().pool.on_client_gone == OnClientGone::Cancel
}

/// Sends what takes off the server connection what its session may have left, once. Returns whether
/// anything was sent.
fn start_cleaning(
    session: &mut Session,
    server: &mut Server,
    pool: &mut Pool,
    tables: &mut Tables,
    plan: &mut Plan,
) -> bool {
    let is_clean = matches!(session.link, Link::Cleaning(_));
    let config = &pool.config().pool;
    let strict = config.reset_query_always || config.mode == PoolMode::Session;
    let holds = session.pin.is_set()
        || !session.raised.is_empty()
        || server.has_surplus()
        || !session.close_after_sync.is_empty();
    if is_clean || !(strict || holds) {
        return false;
    }
    session.link = Link::Cleaning(server.id());
    if strict || !setup::is_discard_all(&config.reset_query) {
        setup::start_reset(server, pool, tables, plan);
        return true;
    }
    // One that has left is not asked about: taking it off is cheaper.
    let left = left_by(session, server);
    *server.residue_mut() = left.and(reset::CLOSED);
    setup::send_reset(server, OwnQuery::Clean, left, pool, tables, plan);
    !server.pending().is_empty()
}

/// What a session may leave behind on its server connection.
fn left_by(session: &Session, server: &mut Server) -> Kinds {
    let mut left = session.raised.union(session.pin.leaves()).union(server.residue());
    // Of the surplus some may be what others share, parsed under settings that were this session's.
    let surplus = server.take_surplus();
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
