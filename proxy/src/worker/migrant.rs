//! A client between its login and its session.

use std::time::Instant;

use pgimbal_pooler::pool::PoolKey;
use pgimbal_wire::startup::ProtocolVersion;

use crate::admin::collect::Connected;
use crate::credentials::Counted;
use crate::transport::{DetachedTransport, Setting};

/// A client that has logged in, on its way to the worker that will serve its session, which the
/// pool's directory prefers: [`Message::Arrive`](super::Message::Arrive) carries it. It has no
/// session yet; dropping it closes the socket.
#[derive(Debug)]
pub struct Migrant {
    /// The socket, removed from the runtime of the worker that handled the login.
    pub(super) parts: DetachedTransport,
    /// Everything else that belongs to the client.
    pub(super) client: LoggedInClient,
}

/// Everything that a client that has logged in brings to its session, apart from the socket.
#[derive(Debug)]
pub(super) struct LoggedInClient {
    /// The pool, by database and user.
    pub(super) key: PoolKey,
    /// When the startup packet had come.
    pub(super) came_at: Instant,
    /// The parameters of the StartupMessage.
    pub(super) parameters: Vec<Setting>,
    /// The protocol version that was agreed on; from 3.2 on the cancel key has a long secret.
    pub(super) version: ProtocolVersion,
    /// Messages of the login that are sent with the greeting.
    pub(super) pending_output: Vec<u8>,
    /// Bytes that the client has sent behind its login, not processed yet.
    pub(super) residual: Vec<u8>,
    /// The client's address as text, for SHOW CLIENTS and the log.
    pub(super) address: Box<str>,
    /// Counts the client among the connected ones until it is dropped.
    pub(super) connected: Connected,
    /// Counts the client among those with its password's generation; `None` when that does not
    /// rotate.
    pub(super) generation: Option<Counted>,
}
