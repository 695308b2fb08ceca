//! A connection to a server: from a name to ReadyForQuery.
//!
//! Owns the steps and what a failure means; proofs are made in `pgimbal-auth`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pgimbal_config::{Host, Secret};

use crate::transport::Transport;

/// Where and how to connect.
#[derive(Clone, Debug)]
pub struct Target {
    /// Host name, address, or directory of a Unix socket.
    pub host: Host,
    /// TCP port, or the number in the Unix socket's name.
    pub port: u16,
    /// The database's name on the server.
    pub database: Box<str>,
    /// The role.
    pub user: Box<str>,
    /// The role's password, when one is known.
    pub password: Option<Secret>,
    /// Longest time for one address, login included.
    pub connect_timeout: Duration,
}

/// A server connection that said ReadyForQuery.
#[derive(Debug)]
pub struct Dialed {
    /// The connection.
    pub transport: Transport,
    /// What a cancel request must show; `None` when the server gave none.
    pub cancel: Option<CancelKey>,
    /// Every ParameterStatus, the last value of each name.
    pub parameters: Vec<(Box<str>, Box<str>)>,
    /// The address that answered, which is where a cancel request must go.
    pub address: Address,
}

/// Process id and secret key of a server connection.
#[derive(Clone)]
pub struct CancelKey {
    /// The server process's id.
    pub process_id: u32,
    /// The secret, 4 to 256 bytes.
    pub key: Box<[u8]>,
}

impl std::fmt::Debug for CancelKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CancelKey").field("process_id", &self.process_id).finish_non_exhaustive()
    }
}

/// One address of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// TCP.
    Tcp(SocketAddr),
    /// A Unix socket's path.
    Unix(PathBuf),
}

/// A connection that could not be made; cheap to clone, for all who wait for it.
#[derive(Clone, Debug)]
pub struct DialError(Arc<str>);

/// Connects and logs in.
///
/// # Errors
/// [`DialError`] when no address led to ReadyForQuery.
pub async fn dial(target: &Target) -> Result<Dialed, DialError> {
    let _ = target;
    Err(DialError("".into()))
}

/// Sends a cancel request for `key` on a connection of its own and waits for the server to close
/// it: then the signal has been sent.
///
/// # Errors
/// [`DialError`] when the server could not be reached.
pub async fn send_cancel(
    target: &Target,
    address: &Address,
    key: &CancelKey,
) -> Result<(), DialError> {
    let _ = (target, address, key);
    Err(DialError("".into()))
}
