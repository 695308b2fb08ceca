//! Cancel requests: which server they are for, and that none reaches another client's query.

use std::time::Instant;

use pgimbal_wire::error::{Report, SqlState};

use crate::ids::{ServerId, SessionId};
use crate::pooler::{Action, Pooler, error_body};
use crate::server::ServerState;
use crate::session::Link;

impl Pooler {
    /// A client asks to cancel the query of the session of this `number` of this worker. A wrong secret,
    /// like a session that runs nothing, is passed over in silence, as PostgreSQL does.
    /// Returns the server connection to which a request is on its way for it.
    pub fn cancel(&mut self, process_id: u32, number: u32, secret: &[u8]) -> Option<ServerId> {
        let session = self.session(*self.by_number.get(&number)?)?;
        if session.key.process_id != process_id || !session.key.matches(secret) {
            return None;
        }
        let id = session.id;
        match session.link {
            Link::Waiting(_) | Link::AwaitingPlace(_) => {
                self.cancel_waiting(id);
                None
            }
            Link::Ready(server) => self.cancel_running(server).then_some(server),
            // Nothing of the client's runs.
            Link::Unlinked | Link::Fresh(_) | Link::Setup(_) | Link::Cleaning(_) => None,
        }
    }

    /// A cancel request for this server connection has reached its end.
    pub fn cancel_ended(&mut self, id: ServerId, now: Instant) {
        let Some(server) = self.servers.get_mut(id.index()).filter(|server| server.id == id) else {
            return;
        };
        server.cancels = server.cancels.saturating_sub(1);
        if server.cancels == 0 && matches!(server.state, ServerState::AwaitingCancels(_)) {
            self.release(id, now);
        }
    }

    /// Cancels what a server connection runs, if it runs anything.
    pub(crate) fn cancel_running(&mut self, id: ServerId) -> bool {
        let Some(server) = self.servers.get_mut(id.index()).filter(|server| server.id == id) else {
            return false;
        };
        if !server.owed.runs_clients() {
            return false;
        }
        server.cancels += 1;
        self.pools[server.pool.index()].stats.cancels += 1;
        self.actions.push(Action::Cancel(id));
        true
    }

    fn cancel_waiting(&mut self, id: SessionId) {
        let error = error_body(&Report::error(
            SqlState::QUERY_CANCELED,
            "canceling statement due to user request",
        ));
        self.refuse_segment(id, &error, None);
    }
}
