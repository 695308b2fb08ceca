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

/// The server of a pool or cluster node, and how pgimbal connects and logs in there.
/// [`dial`](super::dial()) opens a connection to it.
#[derive(Clone, Debug)]
pub struct Target {
    /// Host name, address, or directory of a Unix socket.
    pub host: Host,
    /// TCP port, or the number in the Unix socket's name.
    pub port: u16,
    /// The database's name on the server.
    pub database: Box<str>,
    /// The startup parameter `options`, the server's command-line switches (`-c name=value`);
    /// `None` to send none.
    pub options: Option<Box<str>>,
    /// Whether SCRAM is bound to the TLS connection, libpq's `channel_binding`: `require` refuses a
    /// server that does not offer it, because somebody may be in between.
    pub channel_binding: ChannelBinding,
    /// The name of the role that pgimbal logs in as.
    pub user: Box<str>,
    /// The user of the configuration whose source provides the role's password; `None` when the
    /// password does not rotate.
    pub role: Option<Box<str>>,
    /// The role's password; `None` when the configuration has none, or `role` provides it at each
    /// login.
    pub password: Option<Secret>,
    /// The authentication methods that the server may ask for (libpq's `require_auth`); `None` when
    /// the option is not set.
    pub require_auth: Option<AuthMethods>,
    /// TLS; never used over a Unix socket, as in libpq.
    pub tls: Arc<TlsConnector>,
    /// The name that the server's certificate must bear under `verify-full`, where `host` is an
    /// address of that name (a cluster with `dns`); `None` for `host` itself.
    pub tls_name: Option<Box<str>>,
    /// TCP options.
    pub tcp: TcpConfig,
    /// The queue in which SCRAM's key derivations for these logins wait for their turn.
    pub derivations: Arc<Derivations>,
    /// Time limit for one address, login included, and for looking up the host's name:
    /// `server_connect_timeout`, or `probe_timeout` for a probe.
    pub connect_timeout: Duration,
}

impl Target {
    /// The same login at another host and port, for example a cluster's node. The name for TLS and
    /// everything else stay as they are.
    #[must_use]
    pub fn at(&self, host: Host, port: u16) -> Self {
        Self { host, port, ..self.clone() }
    }

    /// The target of a pool's server connections, from the options of the pool. `tls` is made from
    /// the pool's own TLS settings, once for all pools that share them. The target has a queue of
    /// key derivations of its own until the caller replaces [`Self::derivations`].
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

/// A new server connection whose server has sent ReadyForQuery, idle and outside a transaction.
#[derive(Debug)]
pub struct Dialed {
    /// The connection.
    pub transport: Transport,
    /// The process id and secret key that a CancelRequest must show; `None` when the server sent no
    /// BackendKeyData, so that its queries cannot be cancelled.
    pub cancel: Option<CancelKey>,
    /// The settings that the server reported by ParameterStatus, in the order of their first report
    /// and with the last value of each name; at most 256. Bytes, in the server's encoding.
    pub parameters: Vec<Setting>,
    /// The address that answered, which is where a cancel request must go.
    pub address: Address,
    /// The cause for which plain text is used although the server offers TLS (sslmode `prefer`), as
    /// text; `None` when TLS is used, is switched off or is not offered. It is logged already.
    pub tls_fallback: Option<Box<str>>,
    /// The task that asks the server whether it offers TLS, which sslmode `allow` does not try;
    /// `true` when it does. `None` for other modes, and when the server was asked before. The task
    /// goes on when this is dropped.
    pub tls_check: Option<JoinHandle<bool>>,
    /// Bytes read beyond ReadyForQuery, the start of the server's next messages; empty in most
    /// cases.
    pub residual: Vec<u8>,
}

/// Process id and secret key of a server connection, from its BackendKeyData. `Debug` leaves the
/// secret out.
#[derive(Clone, PartialEq, Eq)]
pub struct CancelKey {
    /// The server process's id.
    pub process_id: u32,
    /// The secret key, 4 to 256 bytes; PostgreSQL's is 4 in protocol 3.0, which pgimbal speaks.
    pub key: Box<[u8]>,
}

impl fmt::Debug for CancelKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CancelKey").field("process_id", &self.process_id).finish_non_exhaustive()
    }
}

/// One address of a server, to which its host name has led. `Display` is `address:port`, or the
/// path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// An IP address and TCP port.
    Tcp(SocketAddr),
    /// The path of a Unix socket, `.s.PGSQL.` and the port in the host's directory.
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
