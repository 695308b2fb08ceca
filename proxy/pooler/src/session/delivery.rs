//! How what other turns have made for a session reaches its client.

use pgimbal_wire::error::SqlState;

use crate::core::Core;
use crate::ids::SessionId;
use crate::server::servers::Servers;
use crate::session::output::Full;
use crate::session::sessions::Sessions;
use crate::session::{Presence, dismissal};

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
pub(crate) fn take(sessions: &mut Sessions, servers: &Servers, id: SessionId) -> Option<Vec<u8>> {
    let session = sessions.get_mut(id)?;
    if session.output.is_empty() {
        return None;
    }
    let server = session.link.server().and_then(|server| servers.get(server));
    if server.is_some_and(|server| server.is_passing_to(id)) {
        return None;
    }
    session.output.take()
}
