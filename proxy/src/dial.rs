//! Dialling: the connection to a server, from its host name to ReadyForQuery.
//!
//! This module owns the steps and the meaning of their failures; proofs of passwords are made in
//! `pgimbal-auth`.

mod cancel;
mod encryption;
mod error;
mod reach;
mod session;
mod untried;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pgimbal_config::{
    AuthMethods, ChannelBinding, Host, ResolvedPool, Secret, ServerPassword, TcpConfig,
};

use tokio::task::JoinHandle;

use crate::derivation::Derivations;
use crate::tls::TlsConnector;
use crate::transport::{Setting, Transport};

pub use cancel::send_cancel;
pub use error::{DialError, DialFault};

/// A server with everything that is needed to connect and log in there.
#[derive(Clone, Debug)]
pub struct Target {
    /// Host name, IP address, or directory of a Unix socket.
    pub host: Host,
    /// TCP port, or the number in the Unix socket's name; 1 to 65535.
    pub port: u16,
    /// Name of the database on the server.
    pub database: Box<str>,
    /// The startup parameter `options`, such as `-c work_mem=8MB`; `None` for none.
    pub options: Option<Box<str>>,
    /// Whether the server must prove in SCRAM that it is the end of the TLS connection.
    pub channel_binding: ChannelBinding,
    /// The role to log in as.
    pub user: Box<str>,
    /// The user whose source provides the password; `None` when the configuration holds it.
    pub role: Option<Box<str>>,
    /// The role's password; `None` when none is known.
    pub password: Option<Secret>,
    /// The authentication methods that the server may ask for; `None` when `require_auth` is not
    /// set.
    pub require_auth: Option<AuthMethods>,
    /// TLS towards the server; never used over a Unix socket, as in libpq.
    pub tls: Arc<TlsConnector>,
    /// The name that the server's certificate must bear when `host` is an address behind that name;
    /// `None` for the name in `host`.
    pub tls_name: Option<Box<str>>,
    /// TCP options of the connection.
    pub tcp: TcpConfig,
    /// The queue in which SCRAM proofs are computed.
    pub derivations: Arc<Derivations>,
    /// Time limit for one address, login included.
    pub connect_timeout: Duration,
}

impl Target {
    /// The same login at another host and port.
    #[must_use]
    pub fn at(&self, host: Host, port: u16) -> Self {
        Self { host, port, ..self.clone() }
    }

    /// The target of a pool's server. `tls` is made from the pool's TLS options, once for all pools
    /// that share them.
    #[must_use]
    pub fn new(pool: &ResolvedPool, tls: Arc<TlsConnector>, tcp: TcpConfig) -> Self {
        Self {
            host: pool.host.clone(),
            port: pool.port,
            database: pool.dbname.as_str().into(),
            options: pool.options.as_deref().map(Box::from),
            channel_binding: pool.tls.channel_binding,
            user: pool.user.as_str().into(),
            role: match &pool.login {
                ServerPassword::Role(role) => Some(role.as_str().into()),
                ServerPassword::Fixed(_) => None,
            },
            password: pool.login.fixed().cloned(),
            require_auth: pool.pool.require_auth,
            tls,
            tls_name: dns_name(pool),
            tcp,
            derivations: Arc::default(),
            connect_timeout: pool.pool.server_connect_timeout,
        }
    }
}

/// The name whose addresses are the nodes of a pool's cluster.
fn dns_name(pool: &ResolvedPool) -> Option<Box<str>> {
    pool.cluster.as_ref()?.config.dns.as_deref().map(Box::from)
}

/// A server connection that has reached ReadyForQuery.
#[derive(Debug)]
pub struct Dialed {
    /// The connection, plain or TLS, on which the server waits for a query.
    pub transport: Transport,
    /// The key for CancelRequests; `None` when the server sent no BackendKeyData.
    pub cancel: Option<CancelKey>,
    /// The settings that the server reported (ParameterStatus), the last value of each name, in the
    /// server's encoding.
    pub parameters: Vec<Setting>,
    /// The address that answered, to which a CancelRequest must go.
    pub address: Address,
    /// Why the connection has no TLS although the server offers it; `None` when it has TLS or none
    /// is offered.
    pub tls_given_up: Option<Box<str>>,
    /// The task that finds out whether the server offers TLS, which sslmode `allow` does not try;
    /// `None` when it is known or of no interest. The task continues when this is dropped.
    pub tls_untried: Option<JoinHandle<bool>>,
    /// Bytes read beyond ReadyForQuery; empty in most cases.
    pub residual: Vec<u8>,
}

/// The key of a server connection for CancelRequests, from its BackendKeyData. `Debug` leaves the
/// secret key out.
#[derive(Clone, PartialEq, Eq)]
pub struct CancelKey {
    /// Process id of the server's backend.
    pub process_id: u32,
    /// Secret key, 4 to 256 bytes.
    pub key: Box<[u8]>,
}

impl fmt::Debug for CancelKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CancelKey").field("process_id", &self.process_id).finish_non_exhaustive()
    }
}

/// One address of a server, as the resolver found it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// IP address and TCP port.
    Tcp(SocketAddr),
    /// Path of a Unix socket.
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

/// Connects and logs in, at each address of the host in turn until one accepts. An error of the
/// server ends the search, as in libpq, unless the server does not accept connections now (57P03).
/// Each address has the target's connect timeout. The future is large; box it.
///
/// # Errors
/// [`DialError`] of the last address, when no address led to ReadyForQuery.
pub async fn dial(target: &Target) -> Result<Dialed, DialError> {
    let mut last = None;
    for address in reach::addresses(target).await? {
        let attempt = encryption::log_in(target, &address);
        let error = match tokio::time::timeout(target.connect_timeout, attempt).await {
            Ok(Ok(dialed)) => return Ok(dialed),
            Ok(Err(fault)) => DialError::new(target, Some(&address), fault),
            Err(_) => {
                let fault = DialFault::Timeout(target.connect_timeout);
                DialError::new(target, Some(&address), fault)
            }
        };
        if error.is_final() {
            return Err(error);
        }
        last = Some(error);
    }
    Err(last.unwrap_or_else(|| DialError::new(target, None, DialFault::NoAddress)))
}
