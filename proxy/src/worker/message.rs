//! The messages that a worker gets from other workers and from the tasks of the main thread.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use pgimbal_config::Route;
use pgimbal_pooler::cluster::explain::ExplainedRoute;
use pgimbal_pooler::ids::WorkerId;
use pgimbal_pooler::pool::PoolKey;
use pgimbal_pooler::server::credential::CredentialEvent;
use pgimbal_pooler::server::migration::Migration;
use pgimbal_pooler::server::renewal::{Renewal, Renewed};
use pgimbal_pooler::session::drain::time::DrainTime;
use pgimbal_pooler::topology::View;
use tokio::sync::mpsc;

use super::cancels::Delivery;
use super::migrant::Migrant;
use crate::admin::collect::Connected;
use crate::credentials::Counted;
use crate::dial::{Address, CancelKey, Target};
use crate::directory::PoolDirectory;
use crate::pending_logins::PendingLogin;
use crate::transport::DetachedTransport;

/// A message to a worker. Messages of one sender are handled in the order sent.
#[derive(Debug)]
pub enum Message {
    /// A listener has accepted a client: the worker takes it through its login.
    Accepted(Accepted),
    /// A client that has logged in on another worker is handed to this one, which starts its
    /// session.
    Arrive(Box<Migrant>),
    /// A client has sent a CancelRequest for some session, perhaps of this worker. Every worker
    /// gets it.
    Cancel {
        /// The process id in the request, as BackendKeyData gave it to the session.
        process_id: u32,
        /// The secret key in the request: 4 bytes, or up to 256 with protocol 3.2.
        secret: Arc<[u8]>,
        /// Must be dropped when the request has been dealt with, so that the client's connection
        /// can end.
        delivery: Delivery,
    },
    /// Another worker asks for an idle server connection. [`Message::MigrateIn`] follows when one
    /// can be given; otherwise there is no reply.
    Ask {
        /// The pool that lacks a server connection.
        pool: PoolKey,
        /// The worker that asks.
        by: WorkerId,
    },
    /// Another worker's clients wait for a connection to a server whose budget is used up: an idle
    /// one to it is to be closed.
    AskForIdle,
    /// An idle server connection of another worker is handed to this one, which had asked for it.
    MigrateIn(Box<Moved>),
    /// The nodes of a cluster, or the node that writes go to, have changed; from the cluster's
    /// watcher.
    Topology {
        /// The cluster's name.
        cluster: Arc<str>,
        /// The view by which transactions are routed from now on.
        view: Arc<View>,
    },
    /// A role's password has changed, or no longer works; from the credentials' task.
    Credential {
        /// The role's name.
        role: Arc<str>,
        /// The change, for example a rotation.
        event: CredentialEvent,
    },
    /// The console's RECONNECT or KILL: connections of a database, or of all, must be renewed.
    Renew {
        /// The database's name; `None` for all databases.
        database: Option<Arc<str>>,
        /// Whether each server connection ends once it is free (RECONNECT), or all end at once
        /// together with the clients (KILL).
        how: Renewal,
        /// The channel on which each worker reports how many connections it concerned.
        reply: mpsc::UnboundedSender<Renewed>,
    },
    /// The console's EXPLAIN ROUTE: where a text would go now, for each pool with replicas.
    ExplainRoute {
        /// The SQL text.
        text: Arc<[u8]>,
        /// The channel on which each worker answers.
        reply: mpsc::UnboundedSender<Vec<ExplainedRoute>>,
    },
    /// The addresses of a server's name have changed in DNS; only for servers outside of clusters.
    Name {
        /// The name as the configuration has it.
        name: Arc<str>,
        /// All addresses that the name has now. Connections to others are retired.
        addresses: Arc<[IpAddr]>,
    },
    /// The configuration was reloaded; this directory is in force from now on.
    Reload(Arc<PoolDirectory>),
    /// Shut down in order (SIGTERM, or the console's SHUTDOWN): end clients within this time, with
    /// SQLSTATE 57P01, and none in a transaction. [`Message::Stop`] follows when no client is left.
    Drain(DrainTime),
    /// `shutdown_grace` is over: end the clients that are left, with SQLSTATE 57P01.
    CutOff,
    /// End the worker's thread now, with all connections: clients that are still connected get no
    /// ErrorResponse.
    Stop,
}

/// A client's connection that a listener has accepted, and what counts it.
#[derive(Debug)]
pub struct Accepted {
    /// The socket, not yet registered with any runtime.
    pub socket: Origin,
    /// The route of its sessions, which they may change: that of its listener (`read_listen` and the
    /// like); `None` for that of the user or the database.
    pub route: Option<Route>,
    /// Counts the client among the connected ones until this is dropped.
    pub connected: Connected,
    /// Counts the client among those that have not logged in, and tells when it must make room.
    pub pending_login: PendingLogin,
}

/// An accepted socket, with the kind of its listener.
#[derive(Debug)]
pub enum Origin {
    /// A TCP socket of the client at this address.
    Tcp(std::net::TcpStream, SocketAddr),
    /// A TCP socket of a load balancer at this address, which begins with a header of the PROXY
    /// protocol.
    Proxied(std::net::TcpStream, SocketAddr),
    /// A Unix socket of a client.
    Unix(std::os::unix::net::UnixStream),
}

impl Origin {
    /// The client's address without its port, by which the listener counts the logins under way
    /// (`max_login_conn_per_address`); `None` for a Unix socket, and for a load balancer, whose
    /// header with the client's address is still to be read.
    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
        match self {
            Self::Tcp(_, address) => Some(address.ip()),
            Self::Proxied(..) | Self::Unix(_) => None,
        }
    }
}

/// An idle server connection on its way to another worker, with everything that belongs to it.
#[derive(Debug)]
pub struct Moved {
    /// The pool to which the connection belongs.
    pub(super) pool: PoolKey,
    /// The core's state of the connection, and its place in the pool's size.
    pub(super) migration: Migration,
    /// The socket, removed from the runtime of the worker that gives it.
    pub(super) parts: DetachedTransport,
    /// The address that the connection leads to.
    pub(super) address: Address,
    /// How the connection was opened, for cancel requests.
    pub(super) target: Arc<Target>,
    /// The key for cancel requests; `None` when the server sent no BackendKeyData.
    pub(super) cancel: Option<CancelKey>,
    /// Counts the connection among those opened with its generation; `None` for a fixed password.
    pub(super) generation: Option<Counted>,
}
