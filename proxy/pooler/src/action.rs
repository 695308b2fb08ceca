//! What the core wants done outside of it.

use crate::ids::{ClusterId, PoolId, ServerId, SessionId, WorkerId};
use crate::pool::Pool;
use crate::sql::Kinds;
use crate::topology::ProbeHint;

/// One thing that a worker's core asks its driver to do, because it needs a socket, another worker,
/// the prober or the log. The driver takes actions with `Pooler::poll_actions` after each call, and
/// does them in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Open a server connection: connect and log in. The driver answers with
    /// `Pooler::handle_dialed` or `Pooler::handle_dial_failed`. Until then the connection counts in
    /// the pool's limits.
    Dial(ServerId),
    /// Run the task of a connection that listens for all clients of its pool, or begin it: from now
    /// on what comes there goes to `Pooler::handle_listener_bytes`, until that says that the
    /// connection is dead, or it is closed or cut. Something is to be written to it, by the same
    /// call.
    Drive(ServerId),
    /// Send Terminate to a server and wait until its socket is closed, then call
    /// `Pooler::handle_closed`. Until then the connection counts in the pool's limits. No client is
    /// linked to it, or will be.
    Close(ServerId),
    /// Send a CancelRequest (protocol chapter "Message Flow", "Canceling Requests in Progress") for
    /// what this server connection runs. When the request's own connection has ended, in whatever
    /// way, call `Pooler::handle_cancel_ended`; before that the server connection serves no other
    /// session.
    Cancel(ServerId),
    /// Run the task of this session's client. Its session was linked to a server connection, has
    /// output waiting, is to be told an error, or may go on for another reason: the task asks what
    /// is there. Nothing is to be done for a session that has left.
    Wake(SessionId),
    /// Move an idle server connection to another worker: `Pooler::migrate_out` here, then, on the
    /// other worker, `Pooler::migrate_in` and `Pooler::finish_migration`.
    Give(ServerId, WorkerId),
    /// Ask another worker for an idle server connection of this pool, by
    /// `Pooler::handle_migration_request` there. A client of this worker has waited for 1 ms or
    /// longer.
    Ask(PoolId, WorkerId),
    /// Ask another worker, or all others, for idle server connections that can be closed, by
    /// `Pooler::handle_idle_request` there: the budget of a server is used up, and a client of this
    /// worker waits.
    AskForIdle(Option<WorkerId>),
    /// Close a server connection's socket at once, without a Terminate, because it leads to a node
    /// that must not be used any more. Then call `Pooler::handle_server_gone`: in the turn of the
    /// client that is linked to the connection, if there is one.
    Cut(ServerId),
    /// Tell the prober of a cluster what this worker has noticed, so that it probes at once
    /// (`Topology::handle_probe_hint`).
    ProbeHint(ClusterId, ProbeHint),
    /// Log that a server refuses to tell this pool's user about these kinds of session state
    /// (SQLSTATE 42501). Sessions that may have left such state keep their server connection until
    /// they leave. Logged once for each pool and kind.
    QuestionDenied(PoolId, Kinds),
    /// Log that a server connection of this pool has refused to be reset between two sessions, or
    /// after it has refused a client's settings, and was closed.
    ConnectionRejected(PoolId),
    /// Take what was chosen to be traced, with `Pooler::take_samples`.
    Trace,
    /// Parse long texts, and take in catalogs, on another thread: take one with `Pooler::take_parse_job`, and answer with
    /// `Pooler::handle_parsed`; then take the next.
    Parse,
    /// Forget what the driver has kept of a pool that is gone, because nobody has used it for some
    /// time. Until the next call that makes a pool, `Pooler::pool_of` still returns its key.
    Retired(PoolId),
}

/// The actions that the driver has not taken yet, oldest first. The driver takes them after each
/// call, so there are as many as one call has asked for.
#[derive(Debug, Default)]
pub(crate) struct Actions {
    list: Vec<Action>,
}

impl Actions {
    /// Adds an action behind the others.
    #[inline]
    pub(crate) fn push(&mut self, action: Action) {
        self.list.push(action);
    }

    /// Has the task of a session run.
    #[inline]
    pub(crate) fn wake(&mut self, session: SessionId) {
        self.list.push(Action::Wake(session));
    }

    /// Has the task of a connection that listens run, if one is given.
    pub(crate) fn extend_drive(&mut self, server: Option<ServerId>) {
        self.list.extend(server.map(Action::Drive));
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
