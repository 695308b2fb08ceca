//! From an accepted socket to a client that has logged in, on its way to where it will stay.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use pgimbal_config::Route;
use pgimbal_pooler::cluster::route::ROUTE_SETTING;
use pgimbal_pooler::pool::{Place, PoolKey};
use pgimbal_pooler::topology::Writes;
use pgimbal_wire::error::{Report, SqlState};

use super::actions::run_actions;
use super::message::{Accepted, Message, Origin};
use super::migrant::{LoggedInClient, Migrant};
use super::peer_cancels::{self, Shown};
use super::shared::Worker;
use super::start::start_session;
use crate::admin::collect::{Connected, LoginResult, Refusal};
use crate::dial::Target;
use crate::login::{self, Authenticated, Authenticators, ClientPurpose, LoginError};
use crate::pending_logins::Peer;
use crate::tcp;
use crate::transport::{Setting, Socket};

/// Sessions of the console that are let in above `max_client_conn`: its users are those who can
/// do something about that.
const CONSOLE_MARGIN: u64 = 256;

/// Takes a client through its login, in a task of its own, for at most `client_login_timeout`. Then
/// its session starts on the worker that its pool prefers, the console serves it, or its
/// CancelRequest is forwarded to all workers. A login that fails, is over its time or must make
/// room is counted and logged, except one that the client ends without a word.
pub(super) async fn log_in(worker: Rc<Worker>, accepted: Accepted) {
    let Accepted { socket, route, connected, mut pending_login } = accepted;
    let is_proxied = matches!(socket, Origin::Proxied(..));
    let Ok((socket, peer)) = register(socket) else { return };
    // Who it is may be said by the first bytes.
    let peer = Cell::new(peer);
    let in_force = &worker.common().login;
    let config = Arc::clone(in_force.now().config());
    let limit = config.clients.login_timeout;
    let tcp = &config.clients.tcp;
    // The listener's options are inherited; a reload may have changed what is wanted.
    if *tcp != worker.common().inherited_tcp {
        // A socket that is gone already fails at its first read.
        let _ = tcp::configure(&socket, tcp);
    }
    let server_of = |user: &str, database: &str| server_of(&worker, user, database);
    let authenticators = Authenticators {
        in_force,
        credentials: &worker.common().credentials,
        server_of: &server_of,
    };
    let handle = pending_login.handle();
    let arrival = Box::pin(async {
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
    let process = &worker.common().process;
    let outcome = tokio::select! {
        // Who is through has no need of the place any more.
        biased;
        outcome = tokio::time::timeout(limit, arrival) => outcome,
        () = pending_login.evicted() => return evicted(&worker, peer.get()),
    };
    let peer = peer.get();
    match outcome {
        Ok(Ok(ClientPurpose::Client(mut client))) => {
            drop(pending_login);
            client.parameters.splice(0..0, own_setting(route));
            logged_in(&worker, *client, peer, connected).await;
        }
        Ok(Ok(ClientPurpose::Cancel { process_id, key, transport })) => {
            process.cancel_requested();
            tokio::select! {
                () = forward_cancel(&worker, process_id, key, peer) => {}
                () = pending_login.evicted() => {}
            }
            // Its end tells the client that the request was delivered.
            drop(transport);
        }
        Ok(Err(error)) => not_logged_in(&worker, &error, peer),
        Err(_) => {
            process.login(LoginResult::Timeout);
            tracing::info!(peer = address_of(peer), "login failed: client_login_timeout");
        }
    }
}

/// The setting of a listener's route, which goes before what the client says itself.
fn own_setting(route: Option<Route>) -> Option<Setting> {
    route.map(|route| (ROUTE_SETTING.into(), route.as_str().as_bytes().into()))
}

/// Notes a login that had to make room.
fn evicted(worker: &Worker, peer: Peer) {
    worker.common().process.login(LoginResult::Evicted);
    tracing::info!(
        peer = address_of(peer),
        "login failed: too many others came after it (max_login_conn, \
         max_login_conn_per_address)"
    );
}

/// Notes a login that failed.
fn not_logged_in(worker: &Worker, error: &LoginError, peer: Peer) {
    if matches!(error, LoginError::ClosedAtOnce) {
        tracing::debug!(peer = address_of(peer), "a connection ended without a word");
        return;
    }
    worker.common().process.login(LoginResult::of(error));
    tracing::info!(
        peer = address_of(peer),
        sqlstate = error.sqlstate().as_str(),
        "login failed: {error}"
    );
}

async fn logged_in(
    worker: &Rc<Worker>,
    client: Authenticated,
    peer: Peer,
    mut connected: Connected,
) {
    let process = &worker.common().process;
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
        connected.note_console();
        let console = Arc::clone(&worker.common().console);
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
    let directory = Arc::clone(&worker.state().directory);
    let Some(entry) = directory.pool(&key) else {
        // The configuration has changed while the client logged in.
        let text = format!("database \"{}\" does not exist", client.database);
        return refuse(client, Report::fatal(SqlState::INVALID_CATALOG_NAME, &text)).await;
    };
    let home = directory.preferred_worker(&key, &entry, worker.id());
    let logged_in = LoggedInClient {
        key,
        came_at: client.came_at,
        parameters: client.parameters,
        version: client.version,
        pending_output: client.pending_output,
        residual: client.residual,
        address: address_of(peer).into(),
        connected,
        generation: client.generation,
    };
    if home == worker.id() {
        start_session(worker, client.transport, logged_in);
        run_actions(worker);
    } else if let Ok(parts) = client.transport.detach() {
        worker.send(home, Message::Arrive(Box::new(Migrant { parts, client: logged_in })));
    }
}

/// Where a user of a database is served: of a cluster, where writes go.
fn server_of(worker: &Worker, user: &str, database: &str) -> Option<Target> {
    let directory = Arc::clone(&worker.state().directory);
    let (pool, target) = directory.target(database, user)?;
    let Some(cluster) = &pool.cluster else { return Some(target) };
    let view = worker.common().clusters.view(&cluster.name)?;
    let Writes::To(epoch) = &view.writes else { return None };
    let node = view.nodes.iter().find(|node| node.id == epoch.node)?;
    Some(target.at(node.host.clone(), node.port))
}

/// Has a cancel request delivered, here or by another replica, and waits until it has been dealt
/// with.
async fn forward_cancel(worker: &Worker, process_id: u32, secret: Box<[u8]>, peer: Peer) {
    let common = worker.common();
    let (keys, from) = (&common.cancel_keys, peer.subnet());
    if !keys.allows(from, Instant::now()) {
        return;
    }
    let address = match peer {
        Peer::Tcp(address) => Some(address.ip()),
        Peer::Unix => None,
    };
    let key = (process_id, secret);
    let shown = peer_cancels::deliver(&common.workers, &common.peers, key, address).await;
    if shown == Shown::Wrong && keys.record_wrong(from, Instant::now()) {
        tracing::warn!(
            peer = address_of(peer),
            "too many cancel requests with wrong keys; those from this address are passed \
             over for a minute"
        );
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
