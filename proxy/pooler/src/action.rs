//! What the core wants done outside of it.

use crate::ids::{ClusterId, PoolId, ServerId, SessionId, WorkerId};
use crate::pool::Pool;
use crate::sql::Kinds;
use crate::topology::ProbeHint;

/// What the core wants done outside of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Open a server connection; answer with `Pooler::handle_dialed` or `Pooler::handle_dial_failed`.
    ///
    /// `Pooler::handle_dialed`: crate::pooler::Pooler::handle_dialed
    /// `Pooler::handle_dial_failed`: crate::pooler::Pooler::handle_dial_failed
    Dial(ServerId),
    /// Send Terminate to a server, wait until it is gone, then call `Pooler::handle_closed`.
    ///
    /// `Pooler::handle_closed`: crate::pooler::Pooler::handle_closed
    Close(ServerId),
    /// Send a cancel request for a server; when it has reached its end, call
    /// `Pooler::handle_cancel_ended`.
    ///
    /// `Pooler::handle_cancel_ended`: crate::pooler::Pooler::handle_cancel_ended
    Cancel(ServerId),
    /// Run the task of this session: it has a server connection, or an error to be told.
    Wake(SessionId),
    /// Move an idle server connection to another worker (after `Pooler::migrate_out`).
    ///
    /// `Pooler::migrate_out`: crate::pooler::Pooler::migrate_out
    Give(ServerId, WorkerId),
    /// Ask another worker for an idle server connection of this pool.
    Ask(PoolId, WorkerId),
    /// Close a server connection's socket at once, without a Terminate, then call
    /// `Pooler::handle_server_gone`: in the turn of the client that is linked to it, if there is one.
    ///
    /// `Pooler::handle_server_gone`: crate::pooler::Pooler::handle_server_gone
    Cut(ServerId),
    /// Have a cluster's prober look at once.
    ProbeHint(ClusterId, ProbeHint),
    /// Log that a server refuses to answer questions about these kinds to this pool's user (42501),
    /// so that sessions which may have left such state keep their server connection.
    QuestionDenied(PoolId, Kinds),
    /// Log that a server connection of this pool refused even to be reset, and was closed.
    ConnectionRejected(PoolId),
    /// Forget what was kept of a pool that is gone; its key can still be read.
    Retired(PoolId),
}

/// The actions that the driver has not taken yet, oldest first. The driver takes them after each
/// call, so there are as many as one call has asked for.
#[derive(Debug, Default)]
pub(crate) struct Actions {
    list: Vec<Action>,
}

impl Actions {
    /// Adds one.
    #[inline]
    pub(crate) fn push(&mut self, action: Action) {
        self.list.push(action);
    }

    /// Has the task of a session run.
    #[inline]
    pub(crate) fn wake(&mut self, session: SessionId) {
        self.list.push(Action::Wake(session));
    }

    /// Asks the prober of a pool's cluster for a look; nothing for a pool outside of a cluster.
    pub(crate) fn probe_hint(&mut self, pool: &Pool, hint: ProbeHint) {
        if let Some(cluster) = pool.cluster() {
            self.list.push(Action::ProbeHint(cluster, hint));
        }
    }

    /// Moves all of them to the end of `out`.
    pub(crate) fn take(&mut self, out: &mut Vec<Action>) {
        out.append(&mut self.list);
    }
}
