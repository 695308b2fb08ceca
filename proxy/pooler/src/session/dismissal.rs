//! Ending a client's connection with a FATAL that somebody has decided on.

use pgimbal_wire::error::{Report, Severity, SqlState, with_severity};

use crate::core::Core;
use crate::error::error_body;
use crate::ids::SessionId;
use crate::session::Presence;

/// Ends a client's connection with a FATAL.
pub(crate) fn dismiss(core: &mut Core, id: SessionId, code: SqlState, message: &str) {
    dismiss_with(core, id, code, &error_body(&Report::fatal(code, message)));
}

/// As [`dismiss`], with the body of an ErrorResponse. The first such message counts.
pub(crate) fn dismiss_with(core: &mut Core, id: SessionId, code: SqlState, error: &[u8]) {
    let Some(session) = core.sessions.get_mut(id) else { return };
    if session.final_error.is_none() {
        let mut final_error = Vec::new();
        with_severity(error, Severity::Fatal, &mut final_error);
        session.final_error = Some(final_error.as_slice().into());
        core.pools[session.pool].stats_mut().error(code);
        core.actions.wake(id);
    }
}

/// While draining: a client goes whose time has come, unless it has left.
pub(crate) fn dismiss_drained(core: &mut Core, id: SessionId) {
    if core.sessions.get(id).is_some_and(|session| session.presence == Presence::Here) {
        dismiss(core, id, SqlState::ADMIN_SHUTDOWN, "pgimbal is shutting down");
    }
}
