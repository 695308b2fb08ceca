//! A client's way in: from an accepted socket to an authenticated session.
//!
//! Owns the order of the steps and what the client is told when one fails; what an answer is worth
//! is judged in `pgimbal-auth`. The caller bounds the time.

use std::io;

use pgimbal_wire::startup::ProtocolVersion;

use crate::transport::{Socket, Transport};

mod context;

pub use context::LoginContext;

/// Who came in.
#[derive(Debug)]
pub enum Arrival {
    /// A cancel request; the connection is already closed.
    Cancel {
        /// Process id that pgimbal gave to the session whose query is to be cancelled.
        process_id: u32,
        /// The secret key that it gave with it, 4 to 256 bytes.
        key: Box<[u8]>,
    },
    /// A session.
    Client(Box<Authenticated>),
}

/// A client that has proved who it is.
#[derive(Debug)]
pub struct Authenticated {
    /// The connection.
    pub transport: Transport,
    /// The user's name.
    pub user: Box<str>,
    /// The database's name as the client gave it; the user's name when it gave none.
    pub database: Box<str>,
    /// Settings asked for at startup, those of `options` first, as PostgreSQL applies them.
    /// `user`, `database`, `options`, `replication` and protocol options are not among them.
    pub parameters: Vec<(Box<[u8]>, Box<[u8]>)>,
    /// The version agreed on.
    pub version: ProtocolVersion,
    /// Messages not yet sent, AuthenticationOk last: they leave in one write with what the session
    /// begins with (ParameterStatus, BackendKeyData, ReadyForQuery).
    pub pending_output: Vec<u8>,
    /// Bytes read beyond the last message of the login.
    pub residual: Vec<u8>,
    /// What the client may do on the console; `None` when the database is not the console's.
    pub console: Option<ConsoleRole>,
}

/// What a client may do on the console.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConsoleRole {
    /// Everything.
    Admin,
    /// Only look.
    Stats,
}

/// Takes one client from its first byte to a session. An error has been told to the client when
/// this returns; the connection is closed.
///
/// # Errors
/// [`LoginError`] when there is no session.
pub async fn accept(
    socket: Socket,
    peer: Peer,
    context: &LoginContext,
) -> Result<Arrival, LoginError> {
    let _ = (socket, peer, context);
    Err(LoginError::Gone)
}

/// Where a client comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// TCP.
    Tcp(std::net::SocketAddr),
    /// A Unix socket.
    Unix,
}

/// A client that did not get in.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// It left.
    #[error("the client closed the connection during login")]
    Gone,
    /// Its socket failed.
    #[error("the client's connection failed during login: {0}")]
    Io(#[from] io::Error),
}
