//! From an accepted socket to a client's task, on the worker where the client will stay.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use pgimbal_pooler::cancel::{CancelKey, LONG_SECRET};
use pgimbal_pooler::pool::{Place, PoolKey};
use pgimbal_pooler::topology::Writes;
use pgimbal_wire::error::{Report, SqlState};
use pgimbal_wire::startup::ProtocolVersion;

use super::Worker;
use super::client::{Arriving, Client, ClientTask};
use super::message::{Accepted, Delivery, Message, Origin};
use crate::admin::collect::{Connected, LoginResult, Refusal};
use crate::credentials::Counted;
use crate::dial::Target;
use crate::login::{self, Authenticated, Authenticators, ClientPurpose, LoginError};
use crate::pending_logins::Peer;
use crate::tcp;
use crate::transport::{DetachedTransport, Setting, Socket, Transport};

/// Sessions of the console that are let in above `max_client_conn`: its users are those who can
/// do something about that.
const CONSOLE_MARGIN: u64 = 256;

/// A client that has logged in, on its way to the worker where it will stay.
#[derive(Debug)]
pub struct Migrant {
    parts: DetachedTransport,
    guest: LoggedInClient,
}

/// What a client brings, but for its socket.
#[derive(Debug)]
struct LoggedInClient {
    key: PoolKey,
    parameters: Vec<Setting>,
    version: ProtocolVersion,
    pending_output: Vec<u8>,
    residual: Vec<u8>,
    address: Box<str>,
    connected: Connected,
    generation: Option<Counted>,
}

impl Worker {
    /// Takes a client through its login.
    pub(super) async fn log_in(self: Rc<Self>, accepted: Accepted) {
        let Accepted { socket, connected, mut pending_login } = accepted;
        let is_proxied = matches!(socket, Origin::Proxied(..));
        let Ok((socket, peer)) = register(socket) else { return };
        // Who it is may be said by the first bytes.
        let peer = Cell::new(peer);
        let in_force = &self.common.login;
        let config = std::sync::Arc::clone(in_force.now().config());
        let limit = config.clients.login_timeout;
        let tcp = &config.clients.tcp;
        // The listener's options are inherited; a reload may have changed what is wanted.
        if *tcp != self.common.inherited_tcp {
            // A socket that is gone already fails at its first read.
            let _ = tcp::configure(&socket, tcp);
        }
        let server_of = |user: &str, database: &str| self.server_of(user, database);
        let authenticators = Authenticators {
            in_force,
            credentials: &self.common.credentials,
            server_of: &server_of,
        };
        let handle = pending_login.handle();
        let purpose = Box::pin(async {
            let mut socket = socket;
            if is_proxied {
                let patience = config.clients.first_packet_timeout;
                let unwrapped = login::read_proxy_header(socket, peer.get(), patience).await?;
                peer.set(unwrapped.1);
                handle.set_source(unwrapped.1.subnet());
                socket = unwrapped.0;
            }
            login::accept(socket, peer.get(), authenticators).await
        });
        let process = &self.common.process;
        let outcome = tokio::select! {
            // Who is through has no need of the place any more.
            biased;
            outcome = tokio::time::timeout(limit, purpose) => outcome,
            () = pending_login.evicted() => return self.evicted(peer.get()),
        };
        let peer = peer.get();
        match outcome {
            Ok(Ok(ClientPurpose::Client(client))) => {
                drop(pending_login);
                self.logged_in(*client, peer, connected).await;
            }
            Ok(Ok(ClientPurpose::Cancel { process_id, key, transport })) => {
                process.cancel_requested();
                tokio::select! {
                    () = self.forward_cancel(process_id, key, peer) => {}
                    () = pending_login.evicted() => {}
                }
                // Its end tells the client that the request was delivered.
                drop(transport);
            }
            Ok(Err(error)) => self.not_logged_in(&error, peer),
            Err(_) => {
                process.login(LoginResult::Timeout);
                tracing::info!(peer = address_of(peer), "login failed: client_login_timeout");
            }
        }
    }

    /// Notes a login that had to make room.
    fn evicted(&self, peer: Peer) {
        self.common.process.login(LoginResult::Evicted);
        tracing::info!(
            peer = address_of(peer),
            "login failed: too many others came after it (max_login_conn, \
             max_login_conn_per_address)"
        );
    }

    /// Notes a login that failed.
    fn not_logged_in(&self, error: &LoginError, peer: Peer) {
        if matches!(error, LoginError::ClosedAtOnce) {
            tracing::debug!(peer = address_of(peer), "a connection ended without a word");
            return;
        }
        self.common.process.login(LoginResult::of(error));
        tracing::info!(
            peer = address_of(peer),
            sqlstate = error.sqlstate().as_str(),
            "login failed: {error}"
        );
    }

    async fn logged_in(
        self: &Rc<Self>,
        client: Authenticated,
        peer: Peer,
        mut connected: Connected,
    ) {
        let process = &self.common.process;
        process.login(LoginResult::Succeeded);
        let margin = if client.console.is_some() { CONSOLE_MARGIN } else { 0 };
        if connected.admit() > u64::from(process.max_client_conn()) + margin {
            process.client_refused(Refusal::MaxClientConn);
            let text = "sorry, too many clients already";
            let report = Report::fatal(SqlState::TOO_MANY_CONNECTIONS, text);
            let report = if process.is_short_of_files() {
                report.detail("pgimbal may not open as many files as max_client_conn needs.").hint(
                    "Raise its limit of open files (ulimit -Hn), or close connections that are \
                     not needed.",
                )
            } else {
                report
                    .detail("pgimbal serves as many clients as max_client_conn allows.")
                    .hint("Raise max_client_conn, or close connections that are not needed.")
            };
            return refuse(client, report).await;
        }
        if client.console.is_some() {
            let console = std::sync::Arc::clone(&self.common.console);
            // A client that leaves is no error.
            let _ = Box::pin(console.serve(client, address_of(peer))).await;
            drop(connected);
            return;
        }
        let key = PoolKey {
            database: client.database.clone(),
            user: client.user.clone(),
            place: Place::Primary,
        };
        let directory = std::sync::Arc::clone(&self.state.borrow().directory);
        let Some(entry) = directory.pool(&key) else {
            // The configuration has changed while the client logged in.
            let text = format!("database \"{}\" does not exist", client.database);
            return refuse(client, Report::fatal(SqlState::INVALID_CATALOG_NAME, &text)).await;
        };
        let home = directory.preferred_worker(&key, &entry, self.id);
        let guest = LoggedInClient {
            key,
            parameters: client.parameters,
            version: client.version,
            pending_output: client.pending_output,
            residual: client.residual,
            address: address_of(peer).into(),
            connected,
            generation: client.generation,
        };
        if home == self.id {
            self.start_session(client.transport, guest);
            self.perform();
        } else if let Ok(parts) = client.transport.detach() {
            self.send(home, Message::Arrive(Box::new(Migrant { parts, guest })));
        }
    }

    /// A client arrives that has logged in on another worker.
    pub(super) fn admit(self: &Rc<Self>, migrant: Migrant) {
        if let Ok(transport) = Transport::attach(migrant.parts) {
            self.start_session(transport, migrant.guest);
        }
    }

    fn start_session(self: &Rc<Self>, transport: Transport, guest: LoggedInClient) {
        let Some(pool) = self.pool(&guest.key) else { return };
        let secret: [u8; LONG_SECRET] = rand::random();
        let long = guest.version >= ProtocolVersion::V3_2;
        let mut state = self.state.borrow_mut();
        let session = state.pooler.handle_login(pool, Instant::now(), || {
            let process_id = rand::random();
            if long {
                CancelKey::long(process_id, secret)
            } else {
                CancelKey::short(process_id, secret)
            }
        });
        state.set_address(session, guest.address);
        state.set_generation(session, guest.generation.as_ref().map(Counted::generation));
        drop(state);
        let arriving =
            Arriving { parameters: guest.parameters, pending_output: guest.pending_output };
        let presence = (guest.connected, guest.generation);
        let client = Client::new(session, transport, guest.residual, arriving, presence);
        tokio::task::spawn_local(ClientTask { worker: Rc::clone(self), client });
    }

    /// Where a user of a database is served: of a cluster, where writes go.
    fn server_of(&self, user: &str, database: &str) -> Option<Target> {
        let directory = std::sync::Arc::clone(&self.state.borrow().directory);
        let (pool, target) = directory.target(database, user)?;
        let Some(cluster) = &pool.cluster else { return Some(target) };
        let view = self.common.clusters.view(&cluster.name)?;
        let Writes::To(epoch) = &view.writes else { return None };
        let node = view.nodes.iter().find(|node| node.id == epoch.node)?;
        Some(target.at(node.host.clone(), node.port))
    }

    /// Hands a cancel request to all workers, of which one may have the session, and waits until it
    /// has been dealt with.
    async fn forward_cancel(&self, process_id: u32, secret: Box<[u8]>, peer: Peer) {
        let (keys, from) = (&self.common.cancel_keys, peer.subnet());
        if !keys.allows(from, Instant::now()) {
            return;
        }
        let secret: Arc<[u8]> = secret.into();
        let (delivery, known, mut ended) = Delivery::new();
        for worker in self.common.workers.iter() {
            let (secret, delivery) = (Arc::clone(&secret), delivery.clone());
            // A worker that has ended has no sessions.
            let _ = worker.send(Message::Cancel { process_id, secret, delivery });
        }
        drop(delivery);
        // Nothing is ever sent.
        let _ = ended.recv().await;
        if !known.load(Relaxed) && keys.record_wrong(from, Instant::now()) {
            tracing::warn!(
                peer = address_of(peer),
                "too many cancel requests with wrong keys; those from this address are passed \
                 over for a minute"
            );
        }
    }
}

/// Registers an accepted socket with this worker's runtime.
fn register(origin: Origin) -> std::io::Result<(Socket, Peer)> {
    match origin {
        Origin::Tcp(stream, address) | Origin::Proxied(stream, address) => {
            stream.set_nonblocking(true)?;
            let stream = tokio::net::TcpStream::from_std(stream)?;
            Ok((Socket::Tcp(stream), Peer::Tcp(address)))
        }
        Origin::Unix(stream) => {
            stream.set_nonblocking(true)?;
            let stream = tokio::net::UnixStream::from_std(stream)?;
            Ok((Socket::Unix(stream), Peer::Unix))
        }
    }
}

/// Ends a client that has logged in, with a FATAL.
async fn refuse(client: Authenticated, report: Report<'_>) {
    let mut transport = client.transport;
    let mut message = Vec::new();
    report.encode_error(&mut message);
    // The client may be gone.
    let _ = std::future::poll_fn(|cx| {
        transport.poll_write_vectored(cx, &[std::io::IoSlice::new(&message)])
    })
    .await;
}

fn address_of(peer: Peer) -> String {
    match peer {
        Peer::Tcp(address) => address.to_string(),
        Peer::Unix => "unix".to_owned(),
    }
}
