//! How what other turns have made for a session reaches its client.

use pgimbal_wire::error::SqlState;

use crate::core::Core;
use crate::ids::SessionId;
use crate::session::output::Full;
use crate::session::{Link, Presence, Session, dismissal};

/// As `Pooler::queue_output`(crate::pooler::Pooler::queue_output).
pub(crate) fn queue<'a>(core: &mut Core, id: SessionId, parts: impl Iterator<Item = &'a [u8]>) {
    let session = core.sessions.get_mut(id);
    let Some(session) = session.filter(|session| session.presence == Presence::Here) else {
        return;
    };
    match session.output.add(parts) {
        Ok(()) => core.actions.wake(id),
        Err(Full) => {
            let message = "the client does not read what it is sent";
            dismissal::dismiss(core, id, SqlState::CONNECTION_FAILURE, message);
        }
    }
}

/// As `Pooler::poll_output`(crate::pooler::Pooler::poll_output).
#[inline]
pub(crate) fn take(core: &mut Core, id: SessionId) -> Option<Vec<u8>> {
    let Core { sessions, servers, tables, .. } = core;
    let session = sessions.get_mut(id)?;
    if session.output.is_empty() && !session.channels.has_notifications() {
        return None;
    }
    let server = session.link.server().and_then(|server| servers.get(server));
    if server.is_some_and(|server| server.is_passing_to(id)) {
        return None;
    }
    if let Some(output) = session.output.take() {
        return Some(output);
    }
    // Until its transaction has ended, notifications wait.
    let is_between = match session.link {
        Link::Ready(_) => server.is_some_and(|server| server.is_settled()),
        _ => is_between_messages(session),
    };
    if !is_between {
        return None;
    }
    let was_behind = session.channels.is_behind();
    let taken = session.channels.take_notifications();
    if was_behind && !session.channels.is_behind() {
        tables.channel_work.note_session(id);
    }
    taken
}

/// Whether nothing of the session's is half-way to a server.
fn is_between_messages(session: &Session) -> bool {
    session.between_messages() && session.aborted.is_none()
}
