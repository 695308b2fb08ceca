//! A client between its login and its session.

use pgimbal_pooler::pool::PoolKey;
use pgimbal_wire::startup::ProtocolVersion;

use crate::admin::collect::Connected;
use crate::credentials::Counted;
use crate::transport::{DetachedTransport, Setting};

/// A client that has logged in, on its way to the worker where it will stay.
#[derive(Debug)]
pub struct Migrant {
    pub(super) parts: DetachedTransport,
    pub(super) client: LoggedInClient,
}

/// What a client brings, but for its socket.
#[derive(Debug)]
pub(super) struct LoggedInClient {
    pub(super) key: PoolKey,
    pub(super) parameters: Vec<Setting>,
    pub(super) version: ProtocolVersion,
    pub(super) pending_output: Vec<u8>,
    pub(super) residual: Vec<u8>,
    pub(super) address: Box<str>,
    pub(super) connected: Connected,
    pub(super) generation: Option<Counted>,
}
