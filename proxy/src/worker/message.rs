//! What a worker is told by the others and by the main task.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use pgimbal_pooler::cancel::request::Cancelling;
use pgimbal_pooler::ids::{PoolId, ServerId, WorkerId};
use pgimbal_pooler::pool::PoolKey;
use pgimbal_pooler::server::credential::CredentialEvent;
use pgimbal_pooler::server::migration::Migration;
use pgimbal_pooler::server::renewal::{Renewal, Renewed};
use pgimbal_pooler::topology::View;
use tokio::sync::mpsc;

use super::login::Migrant;
use super::servers::ServerIo;
use super::{Worker, options};
use crate::admin::collect::{Connected, Detail, SnapshotRequest};
use crate::credentials::Counted;
use crate::dial::{Address, CancelKey, Target};
use crate::directory::PoolDirectory;
use crate::pending_logins::PendingLogin;
use crate::transport::{DetachedTransport, Transport};

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
        /// What.
        news: CredentialEvent,
    },
    /// An operator wants the connections of a database, or of all, renewed.
    Renew {
        /// The database's name.
        database: Option<Arc<str>>,
        /// How.
        how: Renewal,
        /// Who wants to know how many it concerned.
        told: mpsc::UnboundedSender<Renewed>,
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

/// A cancel request on its way. When the last copy is dropped, the client's connection ends.
#[derive(Clone, Debug)]
pub struct Delivery {
    known: Arc<AtomicBool>,
    _end: mpsc::Sender<()>,
}

impl Delivery {
    /// One, whether its key was somebody's, and what ends with its last copy.
    pub(super) fn new() -> (Self, Arc<AtomicBool>, mpsc::Receiver<()>) {
        let (end, ended) = mpsc::channel(1);
        let known = Arc::new(AtomicBool::new(false));
        (Self { known: Arc::clone(&known), _end: end }, known, ended)
    }
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
    pool: PoolKey,
    moving: Migration,
    parts: DetachedTransport,
    address: Address,
    target: Arc<Target>,
    cancel: Option<CancelKey>,
    generation: Option<Counted>,
}

impl Worker {
    pub(super) fn receive(self: &Rc<Self>, message: Message) {
        match message {
            Message::Accepted(accepted) => {
                tokio::task::spawn_local(Rc::clone(self).log_in(accepted));
            }
            Message::Arrive(migrant) => self.admit(*migrant),
            Message::Cancel { process_id, secret, delivery } => {
                let mut state = self.state.borrow_mut();
                let cancelling = state.pooler.handle_cancel_request(process_id, &secret);
                if cancelling != Cancelling::WrongKey {
                    delivery.known.store(true, Relaxed);
                }
                if let Cancelling::Sent(server) = cancelling {
                    state.cancels.push((server, delivery));
                }
            }
            Message::Ask { pool, by } => self.asked(&pool, by),
            Message::MigrateIn(moved) => self.migrate_in(*moved),
            Message::Topology { cluster, view } => self.follow(&cluster, view),
            Message::Credential { role, news } => {
                let mut state = self.state.borrow_mut();
                state.pooler.handle_credential_event(&role, news, Instant::now());
            }
            Message::Renew { database, how, told } => {
                let mut state = self.state.borrow_mut();
                let renewed = state.pooler.renew(database.as_deref(), how, Instant::now());
                // Whoever asked may have gone.
                let _ = told.send(renewed);
            }
            Message::Name { name, addresses } => self.follow_name(&name, &addresses),
            Message::Reload(directory) => self.reload(directory),
            Message::Drain => self.state.borrow_mut().pooler.drain(),
            Message::Stop => {}
        }
        self.perform();
    }

    /// Tells what this worker knows.
    pub(super) fn answer(&self, request: SnapshotRequest) {
        let now = Instant::now();
        let mut state = self.state.borrow_mut();
        let mut snapshot = pgimbal_pooler::pool::stats::WorkerSnapshot {
            pools: state.pooler.pool_snapshots(now),
            retired: state.pooler.retired_stats(),
            panics: state.panics,
            ..Default::default()
        };
        if request.detail == Detail::Everything {
            snapshot.clients = state.pooler.client_snapshots(now);
            for client in &mut snapshot.clients {
                let address = state.addresses.get(client.slot as usize);
                client.address = address.map(ToString::to_string).unwrap_or_default();
                let generation = state.generations.get(client.slot as usize);
                client.generation = generation.copied().flatten();
            }
            snapshot.servers = state
                .pooler
                .server_snapshots(now)
                .into_iter()
                .map(|(id, mut server)| {
                    if let Some(io) = state.servers.get(id) {
                        server.address = io.address.to_string();
                        server.generation = io.generation.as_ref().map(Counted::generation);
                    }
                    server
                })
                .collect();
        }
        // Whoever asked may have gone.
        let _ = request.reply.send(snapshot);
    }

    /// The pool of this name on this worker, made if there is none yet.
    pub(super) fn pool(&self, key: &PoolKey) -> Option<PoolId> {
        let mut state = self.state.borrow_mut();
        if let Some(id) = state.pooler.find_pool(key) {
            return Some(id);
        }
        let entry = state.directory.pool(key)?;
        let target = Arc::clone(&entry.target);
        let id = state.pooler.pool(key, || (entry.config, entry.shared));
        match state.targets.get_mut(id.index()) {
            // The place of a pool that is gone.
            Some(place) => *place = target,
            None => state.targets.push(target),
        }
        drop(state);
        self.add_replicas(id);
        Some(id)
    }

    /// A pool is gone.
    pub(super) fn forget(&self, pool: PoolId) {
        let state = self.state.borrow();
        state.directory.release(state.pooler.pool_of(pool).key());
    }

    fn asked(&self, pool: &PoolKey, by: WorkerId) {
        if let Some(pool) = self.pool(pool) {
            self.state.borrow_mut().pooler.handle_migration_request(pool, by);
        }
    }

    pub(super) fn ask(&self, pool: PoolId, of: WorkerId) {
        let pool = self.state.borrow().pooler.pool_of(pool).key().clone();
        self.send(of, Message::Ask { pool, by: self.id });
    }

    /// Sends an idle server connection to another worker.
    pub(super) fn give(&self, server: ServerId, to: WorkerId) {
        let mut state = self.state.borrow_mut();
        let Some(pool) = state.pooler.server(server).map(|server| server.pool()) else { return };
        let pool = state.pooler.pool_of(pool).key().clone();
        let Some(moving) = state.pooler.migrate_out(server, to) else { return };
        let Some(io) = state.servers.take(server) else { return };
        let ServerIo { transport, address, target, cancel, generation, .. } = io;
        // A socket that cannot leave is closed; its place is given back with `moving`.
        if let Ok(parts) = transport.detach() {
            let moved = Moved { pool, moving, parts, address, target, cancel, generation };
            self.send(to, Message::MigrateIn(Box::new(moved)));
        }
    }

    /// Connections to addresses that a name no longer leads to end when they are free.
    fn follow_name(&self, name: &str, addresses: &[IpAddr]) {
        let mut state = self.state.borrow_mut();
        let mut servers = state.pooler.servers_of_name(name);
        servers.retain(|id| match state.servers.get(*id).map(|io| &io.address) {
            Some(Address::Tcp(address)) => !addresses.contains(&address.ip()),
            // One that is being opened is looked at next time.
            Some(Address::Unix(_)) | None => false,
        });
        state.pooler.retire(servers, Instant::now());
    }

    fn migrate_in(&self, moved: Moved) {
        let Some(pool) = self.pool(&moved.pool) else { return };
        let Ok(transport) = Transport::attach(moved.parts) else { return };
        let now = Instant::now();
        let mut state = self.state.borrow_mut();
        let id = state.pooler.migrate_in(pool, moved.moving, now);
        let io = ServerIo::new(transport, moved.address, moved.target, moved.cancel, Vec::new());
        state.servers.insert(id, io.counted(moved.generation));
        state.pooler.finish_migration(id, now);
    }

    /// Every pool follows the new configuration; one that is not in it any more keeps the old one
    /// until its clients have left.
    fn reload(&self, directory: Arc<PoolDirectory>) {
        let now = Instant::now();
        let mut state = self.state.borrow_mut();
        state.pooler.set_options(options(&directory));
        let keys: Vec<(PoolId, PoolKey)> =
            state.pooler.pools().map(|pool| (pool.id(), pool.key().clone())).collect();
        for (id, key) in keys {
            if let Some(entry) = directory.pool(&key) {
                state.targets[id.index()] = entry.target;
                state.pooler.reconfigure(id, entry.config, now);
            }
        }
        state.directory = directory;
    }

    /// Sends a message to another worker; one that has ended needs none.
    pub(super) fn send(&self, to: WorkerId, message: Message) {
        if let Some(worker) = self.common.workers.get(usize::from(to.0)) {
            let _ = worker.send(message);
        }
    }
}
