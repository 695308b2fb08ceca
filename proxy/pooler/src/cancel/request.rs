//! Cancel requests: which server they are for, and that none reaches another client's query.
//!
//! The process id that a client was given is random; each worker has a table of those of its
//! sessions. A server connection for which requests are on their way is
//! `ServerState::AwaitingCancels` after check-in, until all of them have ended.

use std::time::Instant;

use pgimbal_wire::error::{Report, SqlState};

use crate::action::{Action, Actions};
use crate::core::Core;
use crate::error::error_body;
use crate::ids::{ServerId, SessionId};
use crate::pool::{Pool, checkout, queue};
use crate::server::Server;
use crate::session::Link;

/// What a CancelRequest of a client has done at one worker (`Pooler::handle_cancel_request`). The
/// client is told nothing in any case: the driver closes the request's connection, as PostgreSQL
/// does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cancelling {
    /// No session of this worker has this process id and secret, so nothing has changed. Another
    /// worker may have the session.
    WrongKey,
    /// The key is right and no request goes to a server: the session runs nothing there. If it
    /// waited for a server connection, it waits no more, and its statement gets the error 57014.
    Done,
    /// The session runs something: [`Action::Cancel`] was asked for this server connection, which
    /// serves no other session until that request has ended.
    Sent(ServerId),
}

/// A client asks to cancel the query of a session, which may be another worker's. A wrong key, like
/// a session that runs nothing, is passed over in silence, as PostgreSQL does.
pub(crate) fn cancel(core: &mut Core, process_id: u32, secret: &[u8]) -> Cancelling {
    let Some(session) = core.sessions.of_key(process_id, secret) else {
        return Cancelling::WrongKey;
    };
    let (id, link) = (session.id(), session.link());
    match link {
        Link::Waiting(_) | Link::AwaitingPlace(_) | Link::AwaitingRead(_) => {
            cancel_waiting(core, id);
            Cancelling::Done
        }
        Link::Ready(server) if cancel_running(core, server) => Cancelling::Sent(server),
        // Nothing of the client's runs.
        Link::Ready(_) | Link::Unlinked | Link::Fresh(_) | Link::Setup(_) | Link::Cleaning(_) => {
            Cancelling::Done
        }
    }
}

/// A cancel request for this server connection has reached its end.
pub(crate) fn cancel_ended(core: &mut Core, id: ServerId, now: Instant) {
    let Some(server) = core.servers.get_mut(id) else { return };
    if server.end_cancel() {
        checkout::release(core, id, now);
    }
}

/// Cancels what a server connection runs of its session's client. Returns whether it runs anything.
pub(crate) fn cancel_running(core: &mut Core, id: ServerId) -> bool {
    let Some(server) = core.servers.get_mut(id) else { return false };
    if !server.session().is_some_and(|session| server.pending().runs_client_of(session)) {
        return false;
    }
    send_cancel(server, &mut core.pools[server.pool()], &mut core.actions);
    true
}

/// Asks the driver to send a cancel request to a server connection, and counts it for `pool`. The
/// server connection serves no other session until the request has ended.
pub(crate) fn send_cancel(server: &mut Server, pool: &mut Pool, actions: &mut Actions) {
    server.begin_cancel();
    pool.stats_mut().cancels += 1;
    actions.push(Action::Cancel(server.id()));
}

fn cancel_waiting(core: &mut Core, id: SessionId) {
    let error = error_body(&Report::error(
        SqlState::QUERY_CANCELED,
        "canceling statement due to user request",
    ));
    queue::refuse(core, id, &error, None);
}
