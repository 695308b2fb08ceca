//! Where and how to connect, and what a connection is.

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

/// Where and how to connect.
#[derive(Clone, Debug)]
pub struct Target {
    /// Host name, address, or directory of a Unix socket.
    pub host: Host,
    /// TCP port, or the number in the Unix socket's name.
    pub port: u16,
    /// The database's name on the server.
    pub database: Box<str>,
    /// What the session begins with, as a server's command line.
    pub options: Option<Box<str>>,
    /// Whether the server must prove that nobody is in between.
    pub channel_binding: ChannelBinding,
    /// The role.
    pub user: Box<str>,
    /// The user whose source says the password, when it stands in no configuration.
    pub role: Option<Box<str>>,
    /// The role's password, when one is known.
    pub password: Option<Secret>,
    /// How the server may ask who pgimbal is, when the configuration says so.
    pub require_auth: Option<AuthMethods>,
    /// TLS; never used over a Unix socket, as in libpq.
    pub tls: Arc<TlsConnector>,
    /// The name that the server's certificate must bear where `host` is an address of that name.
    pub tls_name: Option<Box<str>>,
    /// TCP options.
    pub tcp: TcpConfig,
    /// Who computes proofs of the password.
    pub derivations: Arc<Derivations>,
    /// Longest time for one address, login included.
    pub connect_timeout: Duration,
}

impl Target {
    /// The same login at another place.
    #[must_use]
    pub fn at(&self, host: Host, port: u16) -> Self {
        Self { host, port, ..self.clone() }
    }

    /// The server of a pool. `tls` is made from the pool's own TLS settings, once for all pools
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

/// A server connection that said ReadyForQuery.
#[derive(Debug)]
pub struct Dialed {
    /// The connection.
    pub transport: Transport,
    /// What a cancel request must show; `None` when the server gave none.
    pub cancel: Option<CancelKey>,
    /// Every ParameterStatus, the last value of each name. Bytes, in the server's encoding.
    pub parameters: Vec<Setting>,
    /// The address that answered, which is where a cancel request must go.
    pub address: Address,
    /// Why there is no TLS although the server offers it, when that is so.
    pub tls_fallback: Option<Box<str>>,
    /// Whether the server offers TLS where it was not tried (sslmode `allow`), once that is known;
    /// `None` when it was asked before. It goes on when this is dropped.
    pub tls_check: Option<JoinHandle<bool>>,
    /// Bytes read beyond ReadyForQuery; mostly none.
    pub residual: Vec<u8>,
}

/// Process id and secret key of a server connection.
#[derive(Clone, PartialEq, Eq)]
pub struct CancelKey {
    /// The server process's id.
    pub process_id: u32,
    /// The secret, 4 to 256 bytes.
    pub key: Box<[u8]>,
}

impl fmt::Debug for CancelKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
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

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}
