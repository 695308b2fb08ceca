//! The port for other replicas, on a thread of its own: a flood there costs the workers nothing.
//!
//! Who has not proved the key gets one handshake, within a second, and few at a time.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Body, Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{sleep, timeout, timeout_at};

use super::Inner;
use super::client::{BODY, FROM, ID, REQUEST_TIME, TO};
use super::hello::Hello;
use super::rate::Rate;
use super::request::{Answer, Kind};
use super::stats::Stranger;
use crate::pending_logins::{PendingLogin, PendingLoginLimits, PendingLogins, Subnet};
use pgimbal_replicas::InstanceId;

/// Connections that have not proved the key; one more closes the oldest. The addresses of replicas
/// have as many of their own, so that nobody else takes a replica's.
const STRANGERS: PendingLoginLimits = PendingLoginLimits { all: 32, one_address: 16 };
/// Connections that have; one more closes the oldest. A peer has two or three.
const CONNECTIONS: PendingLoginLimits = PendingLoginLimits { all: 32, one_address: 32 };
/// Time limit of a handshake: two round trips and three signatures.
const HANDSHAKE_TIME: Duration = Duration::from_secs(2);
/// Time limit of a request's head, and of a connection that asks nothing.
const HEAD_TIME: Duration = Duration::from_secs(10);
/// Largest head of a request in bytes: hyper's least limit. A peer sends about 200.
const HEAD: usize = 8 * 1024;
/// Headers of a request; a peer sends five.
const HEADERS: usize = 16;
/// How long a handler may take before its peer is told to ask again with the same id, so that what
/// is slow keeps no connection from the rest.
const ASK_AGAIN: Duration = Duration::from_millis(250);
/// How long it may take for a request without an id.
const ANSWER_TIME: Duration = Duration::from_millis(1500);
/// Pause after a failed accept, as when the process has no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Starts the thread that serves `listener`, or the last of `next`, until the process ends: a
/// draining replica still answers.
pub(super) fn start(
    inner: Arc<Inner>,
    listener: std::net::TcpListener,
    next: UnboundedReceiver<std::net::TcpListener>,
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name("peers-accept".to_owned()).spawn(move || {
        runtime.block_on(async move {
            match TcpListener::from_std(listener) {
                Ok(listener) => serve(inner, listener, next).await,
                Err(error) => tracing::error!(%error, "peers.listen cannot be served"),
            }
        });
    })?;
    Ok(())
}

/// Serves `listener`, until another one comes in its place.
async fn serve(
    inner: Arc<Inner>,
    mut listener: TcpListener,
    mut next: UnboundedReceiver<std::net::TcpListener>,
) {
    let connections = PendingLogins::new(CONNECTIONS);
    let mut doors = [Door::default(), Door::default()];
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(other) = next.recv() => {
                match other.set_nonblocking(true).and_then(|()| TcpListener::from_std(other)) {
                    Ok(other) => listener = other,
                    Err(error) => tracing::error!(%error, "the new port cannot be served"),
                }
                continue;
            }
        };
        match accepted {
            Ok((stream, from)) => {
                let is_known = inner.members().knows_host(from.ip());
                let subnet = Subnet::of(Some(from.ip()));
                let Some(unproved) = doors[usize::from(is_known)].enter(subnet) else {
                    inner.strangers.note(&inner.stats, Stranger::Rate, from, "too many at a time");
                    continue;
                };
                let (inner, connections) = (Arc::clone(&inner), Arc::clone(&connections));
                tokio::spawn(async move {
                    let Some(tls) = admit(&inner, stream, from, unproved).await else { return };
                    let mut place = connections.add(subnet);
                    tokio::select! {
                        () = connection(inner, tls, from) => {}
                        () = place.evicted() => {
                            tracing::debug!(%from, "a peer's connection made room for others");
                        }
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection at peers.listen");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// What connections may cost that have not proved the key: of strangers, or of the addresses of
/// replicas.
struct Door {
    rate: Rate,
    unproved: Arc<PendingLogins>,
}

impl Default for Door {
    fn default() -> Self {
        Self { rate: Rate::default(), unproved: PendingLogins::new(STRANGERS) }
    }
}

impl Door {
    /// A place for one more connection, unless there were too many in this second.
    fn enter(&mut self, from: Subnet) -> Option<PendingLogin> {
        self.rate.allows(from, Instant::now()).then(|| self.unproved.add(from))
    }
}

type Tls = tokio_rustls::server::TlsStream<TcpStream>;

/// Has a connection prove the key, while it has its place.
async fn admit(
    inner: &Inner,
    stream: TcpStream,
    from: SocketAddr,
    mut unproved: PendingLogin,
) -> Option<Tls> {
    tokio::select! {
        tls = handshake(inner, stream, from) => tls,
        () = unproved.evicted() => {
            let why = "others came after it";
            inner.strangers.note(&inner.stats, Stranger::CrowdedOut, from, why);
            None
        }
    }
}

async fn handshake(inner: &Inner, stream: TcpStream, from: SocketAddr) -> Option<Tls> {
    // Answers are small, and each is waited for.
    let _ = stream.set_nodelay(true);
    match timeout(HANDSHAKE_TIME, inner.tls.acceptor().accept(stream)).await {
        Ok(Ok(tls)) => Some(tls),
        Ok(Err(error)) => {
            inner.strangers.note(&inner.stats, Stranger::Handshake, from, &error.to_string());
            None
        }
        Err(_) => {
            let why = "the handshake took longer than 2 s";
            inner.strangers.note(&inner.stats, Stranger::Timeout, from, why);
            None
        }
    }
}

async fn connection(inner: Arc<Inner>, tls: Tls, from: SocketAddr) {
    let service = service_fn(|request| {
        let inner = Arc::clone(&inner);
        async move { Ok::<_, Infallible>(answer(&inner, request, from).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(HEAD)
        .max_headers(HEADERS)
        .serve_connection(TokioIo::new(tls), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%from, %error, "a peer's connection failed");
    }
}

type Page = Response<Full<Bytes>>;

fn page(status: StatusCode, body: impl Into<Bytes>) -> Page {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response
}

async fn answer(inner: &Arc<Inner>, request: Request<Incoming>, from: SocketAddr) -> Page {
    let deadline = tokio::time::Instant::now() + REQUEST_TIME;
    let path = request.uri().path().trim_start_matches('/');
    let kind = Kind::ALL.into_iter().find(|kind| kind.as_str() == path);
    let Some(kind) = kind.filter(|_| request.method() == Method::POST) else {
        return page(StatusCode::NOT_FOUND, "no such request: another version asks it");
    };
    let Some(sender) = header::<InstanceId>(request.headers(), FROM) else {
        return page(StatusCode::BAD_REQUEST, "no sender");
    };
    let meant = header::<InstanceId>(request.headers(), TO);
    if meant.is_some_and(|meant| meant != inner.own.instance) {
        return page(StatusCode::MISDIRECTED_REQUEST, "another process is here");
    }
    let id = header::<RequestId>(request.headers(), ID).map(|id| id.0);
    if id.is_some() != kind.changes_something() {
        return page(StatusCode::BAD_REQUEST, "an id belongs to what changes something");
    }
    // What says that it is too long is not read.
    if request.body().size_hint().lower() > BODY as u64 {
        return page(StatusCode::PAYLOAD_TOO_LARGE, "longer than 1 MiB");
    }
    let body = Limited::new(request.into_body(), BODY).collect();
    let body = match timeout_at(deadline, body).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            return page(StatusCode::PAYLOAD_TOO_LARGE, "longer than 1 MiB");
        }
        Ok(Err(_)) => return page(StatusCode::BAD_REQUEST, "the request has broken off"),
        Err(_) => return page(StatusCode::REQUEST_TIMEOUT, "the request took longer than 2 s"),
    };
    inner.stats.received(kind);
    match kind {
        Kind::Hello => hello(inner, &body, from),
        _ => handled(inner, kind, id, (sender, body)).await,
    }
}

fn hello(inner: &Inner, body: &Bytes, from: SocketAddr) -> Page {
    match Hello::parse(body) {
        Ok((hello, heartbeat)) => {
            inner.heard(hello, from, heartbeat);
            page(StatusCode::OK, inner.hello(Some(from)))
        }
        Err(why) => page(StatusCode::BAD_REQUEST, why),
    }
}

async fn handled(
    inner: &Arc<Inner>,
    kind: Kind,
    id: Option<u128>,
    asked: (InstanceId, Bytes),
) -> Page {
    let answer = inner.dispatcher.handle(kind, id, asked);
    match timeout(if id.is_some() { ASK_AGAIN } else { ANSWER_TIME }, answer).await {
        Ok(Answer::Done(body)) if body.len() > BODY => {
            page(StatusCode::INTERNAL_SERVER_ERROR, "the answer is longer than 1 MiB")
        }
        Ok(Answer::Done(body)) => page(StatusCode::OK, body),
        Ok(Answer::Failed(why)) => page(StatusCode::UNPROCESSABLE_ENTITY, why),
        Ok(Answer::NotHandled) => {
            page(StatusCode::NOT_IMPLEMENTED, "the replica does not do this (now)")
        }
        Ok(Answer::Busy) => {
            page(StatusCode::SERVICE_UNAVAILABLE, "too many requests wait at the replica")
        }
        Err(_) if id.is_some() => page(StatusCode::ACCEPTED, ""),
        // It may still do it.
        Err(_) => page(StatusCode::GATEWAY_TIMEOUT, "the replica took too long"),
    }
}

fn header<T: FromStr>(headers: &HeaderMap, name: &str) -> Option<T> {
    headers.get(name)?.to_str().ok()?.parse().ok()
}

struct RequestId(u128);

impl FromStr for RequestId {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        u128::from_str_radix(text, 16).map(Self)
    }
}
