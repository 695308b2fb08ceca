//! What a worker is told by the others and by the main task.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use pgimbal_pooler::ids::WorkerId;
use pgimbal_pooler::pool::PoolKey;
use pgimbal_pooler::server::credential::CredentialEvent;
use pgimbal_pooler::server::migration::Migration;
use pgimbal_pooler::server::renewal::{Renewal, Renewed};
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

/// A message to a worker.
#[derive(Debug)]
pub enum Message {
    /// A client connection was accepted.
    Accepted(Accepted),
    /// A client that has logged in on another worker comes to stay.
    Arrive(Box<Migrant>),
    /// A client wants to cancel the query of a session, which is perhaps of this worker.
    Cancel {
        /// The process id that the session was given.
        process_id: u32,
        /// The secret that was shown.
        secret: Arc<[u8]>,
        /// Dropped when the request has been dealt with.
        delivery: Delivery,
    },
    /// A worker asks for an idle server connection.
    Ask {
        /// Of which pool.
        pool: PoolKey,
        /// Who asks.
        by: WorkerId,
    },
    /// A server connection moves in.
    MigrateIn(Box<Moved>),
    /// A cluster's nodes, or where its writes go, have changed.
    Topology {
        /// The cluster's name.
        cluster: Arc<str>,
        /// What holds from now on.
        view: Arc<View>,
    },
    /// Something has changed about a role's password.
    Credential {
        /// The role.
        role: Arc<str>,
        /// What has changed.
        event: CredentialEvent,
    },
    /// An operator wants the connections of a database, or of all, renewed.
    Renew {
        /// The database's name.
        database: Option<Arc<str>>,
        /// How.
        how: Renewal,
        /// Who wants to know how many it concerned.
        reply: mpsc::UnboundedSender<Renewed>,
    },
    /// The name of a server that is no cluster's leads elsewhere.
    Name {
        /// The name.
        name: Arc<str>,
        /// All that it leads to.
        addresses: Arc<[IpAddr]>,
    },
    /// The configuration was reloaded.
    Reload(Arc<PoolDirectory>),
    /// End idle clients, and the others when their transactions end.
    Drain,
    /// End now.
    Stop,
}

/// A client connection that was accepted.
#[derive(Debug)]
pub struct Accepted {
    /// Its socket, not yet registered with any runtime.
    pub socket: Origin,
    /// Counts it among the connected clients.
    pub connected: Connected,
    /// Its place among those that have not logged in.
    pub pending_login: PendingLogin,
}

/// An accepted socket.
#[derive(Debug)]
pub enum Origin {
    /// TCP, from this address.
    Tcp(std::net::TcpStream, SocketAddr),
    /// TCP from a load balancer at this address, which says first for whom it speaks.
    Proxied(std::net::TcpStream, SocketAddr),
    /// A Unix socket.
    Unix(std::os::unix::net::UnixStream),
}

impl Origin {
    /// The client's address; `None` for a Unix socket, and for a load balancer, which has yet to
    /// say it and is one for many.
    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
        match self {
            Self::Tcp(_, address) => Some(address.ip()),
            Self::Proxied(..) | Self::Unix(_) => None,
        }
    }
}

/// A server connection on its way to another worker.
#[derive(Debug)]
pub struct Moved {
    pub(super) pool: PoolKey,
    pub(super) migration: Migration,
    pub(super) parts: DetachedTransport,
    pub(super) address: Address,
    pub(super) target: Arc<Target>,
    pub(super) cancel: Option<CancelKey>,
    pub(super) generation: Option<Counted>,
}
