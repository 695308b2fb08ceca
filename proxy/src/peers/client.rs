//! The client of replicas: connections that are used again, and one exchange on them.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{HOST, HeaderValue};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::request::Kind;
use super::tls::PeerTls;
use pgimbal_replicas::InstanceId;

/// Time limit of one request, from the connection to the last byte of the answer.
pub(super) const REQUEST_TIME: Duration = Duration::from_secs(2);
/// Largest body of a request and of an answer.
pub(super) const BODY: usize = 1 << 20;
/// Cancel requests to one peer at a time. The peers of a deployment share the 32 connections that
/// each of them serves.
const CANCELS_AT_ONCE: usize = 4;
/// Other requests to one peer at a time, hellos apart, which do not wait for clients' cancels.
const AT_ONCE: usize = 2;
/// Idle connections that are kept for one address, as many as may be in use.
const IDLE: usize = CANCELS_AT_ONCE + AT_ONCE + 1;
/// An idle connection is not used again after this; the other side closes it a little later.
const IDLE_TIME: Duration = Duration::from_secs(6);
/// Largest head of an answer.
const HEAD: usize = 16 * 1024;

/// Header with the sender's instance id.
pub(super) const FROM: &str = "pgimbal-from";
/// Header with the instance id that is meant, so that another process at its address is not taken
/// for it.
pub(super) const TO: &str = "pgimbal-to";
/// Header with the id of a request that acts once.
pub(super) const ID: &str = "pgimbal-request";

/// Why a peer has given no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// No such peer is known any more.
    #[error("the replica is gone")]
    Gone,
    /// It has not been heard for more than 5 s, so it was not asked.
    #[error("the replica is silent")]
    Silent,
    /// No connection can be made, or it breaks.
    #[error("{0}")]
    Unreachable(String),
    /// It did not answer in time. It may still do what was asked.
    #[error("no answer in time")]
    Timeout,
    /// It answered that it cannot, with this reason.
    #[error("{0}")]
    Refused(String),
    /// Its answer is too long, or none that can be read.
    #[error("{0}")]
    Malformed(String),
}

/// A request on its way. It has no `Debug`: there may be a secret in the body.
#[derive(Clone)]
pub(super) struct Call {
    pub(super) kind: Kind,
    pub(super) from: InstanceId,
    /// `None` for a hello, with which one asks who is there.
    pub(super) to: Option<InstanceId>,
    pub(super) id: Option<u128>,
    pub(super) body: Bytes,
}

type Connection = SendRequest<Full<Bytes>>;

/// The connections to peers.
#[derive(Debug)]
pub(super) struct Client {
    tls: PeerTls,
    lanes: Mutex<HashMap<SocketAddr, Lane>>,
}

#[derive(Debug)]
struct Lane {
    /// The key that was accepted there last.
    key: usize,
    cancels: Arc<Semaphore>,
    others: Arc<Semaphore>,
    idle: Vec<(Connection, Instant)>,
}

impl Default for Lane {
    fn default() -> Self {
        let [cancels, others] =
            [CANCELS_AT_ONCE, AT_ONCE].map(|count| Arc::new(Semaphore::new(count)));
        Self { key: 0, cancels, others, idle: Vec::new() }
    }
}

impl Client {
    pub(super) fn new(tls: PeerTls) -> Self {
        Self { tls, lanes: Mutex::default() }
    }

    /// Gives up the idle connections to an address, or to all for `None`: another process may be
    /// there now.
    pub(super) fn forget(&self, address: Option<SocketAddr>) {
        let is_meant = |to: &SocketAddr| address.is_none_or(|address| address == *to);
        let mut lanes = self.lanes();
        lanes.iter_mut().filter(|(to, _)| is_meant(to)).for_each(|(_, lane)| lane.idle.clear());
    }

    /// Waits for one's turn among the requests to this address, of clients' cancels or of others; it
    /// is over when the result is dropped.
    pub(super) async fn turn(&self, to: SocketAddr, kind: Kind) -> Option<OwnedSemaphorePermit> {
        let slots = {
            let mut lanes = self.lanes();
            let lane = lanes.entry(to).or_default();
            Arc::clone(if kind == Kind::Cancel { &lane.cancels } else { &lane.others })
        };
        // It is never closed.
        slots.acquire_owned().await.ok()
    }

    /// Sends a request once and reads its answer. A connection that was idle may have ended
    /// unnoticed; then the request is sent on a new one.
    pub(super) async fn send(
        &self,
        to: SocketAddr,
        call: &Call,
    ) -> Result<(StatusCode, Bytes), AskError> {
        timeout(REQUEST_TIME, self.exchange(to, call)).await.unwrap_or(Err(AskError::Timeout))
    }

    async fn exchange(&self, to: SocketAddr, call: &Call) -> Result<(StatusCode, Bytes), AskError> {
        if let Some(connection) = self.idle(to) {
            match self.on(connection, to, call).await {
                Err(AskError::Unreachable(_)) => {}
                done => return done,
            }
        }
        let keys = self.tls.connectors().len();
        let first = self.lanes().get(&to).map_or(0, |lane| lane.key);
        let mut failed = AskError::Gone;
        for key in (first..keys).chain(0..first) {
            let done = match self.connect(to, key).await {
                Ok(connection) => self.on(connection, to, call).await,
                Err(error) => Err(error),
            };
            match done {
                // The other side may have the other key only; with TLS 1.3 it says so late.
                Err(error @ AskError::Unreachable(_)) => failed = error,
                done => {
                    self.lanes().entry(to).or_default().key = key;
                    return done;
                }
            }
        }
        Err(failed)
    }

    fn lanes(&self) -> MutexGuard<'_, HashMap<SocketAddr, Lane>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn idle(&self, to: SocketAddr) -> Option<Connection> {
        let mut lanes = self.lanes();
        let lane = lanes.get_mut(&to)?;
        lane.idle.retain(|(one, since)| !one.is_closed() && since.elapsed() < IDLE_TIME);
        lane.idle.pop().map(|(one, _)| one)
    }

    /// Forgets the connections to addresses that are not `wanted` any more.
    pub(super) fn keep(&self, wanted: impl Fn(&SocketAddr) -> bool) {
        self.lanes().retain(|address, _| wanted(address));
    }

    async fn connect(&self, to: SocketAddr, key: usize) -> Result<Connection, AskError> {
        let unreachable = |error: &dyn std::fmt::Display| AskError::Unreachable(error.to_string());
        let Some((connector, name)) = self.tls.connectors().get(key) else {
            return Err(AskError::Gone);
        };
        let tcp = TcpStream::connect(to).await.map_err(|error| unreachable(&error))?;
        // Requests are small, and each waits for its answer.
        let _ = tcp.set_nodelay(true);
        let tls = connector.connect(name.clone(), tcp).await.map_err(|error| tls_error(&error))?;
        let (sender, connection) = http1::Builder::new()
            .max_buf_size(HEAD)
            .handshake(TokioIo::new(tls))
            .await
            .map_err(|error| unreachable(&error))?;
        // It ends with its sender, or when the other side closes it.
        tokio::spawn(connection);
        Ok(sender)
    }

    async fn on(
        &self,
        mut connection: Connection,
        to: SocketAddr,
        call: &Call,
    ) -> Result<(StatusCode, Bytes), AskError> {
        let broken = |error: hyper::Error| {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            AskError::Unreachable(cause.map_or_else(|| error.to_string(), |text| plain(&text)))
        };
        connection.ready().await.map_err(broken)?;
        let response = connection.send_request(call.request()).await.map_err(broken)?;
        let status = response.status();
        let body = Limited::new(response.into_body(), BODY).collect().await.map_err(|error| {
            match error.is::<LengthLimitError>() {
                true => AskError::Malformed("its answer is longer than 1 MiB".to_owned()),
                false => AskError::Unreachable(format!("its answer has broken off: {error}")),
            }
        })?;
        let mut lanes = self.lanes();
        let lane = lanes.entry(to).or_default();
        if lane.idle.len() < IDLE {
            lane.idle.push((connection, Instant::now()));
        }
        Ok((status, body.to_bytes()))
    }
}

impl Call {
    fn request(&self) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(self.body.clone()));
        *request.method_mut() = hyper::Method::POST;
        // The words of kinds are paths.
        *request.uri_mut() = format!("/{}", self.kind.as_str()).parse().unwrap_or_default();
        let headers = request.headers_mut();
        headers.insert(HOST, HeaderValue::from_static("pgimbal"));
        let mut put = |name: &'static str, value: String| {
            if let Ok(value) = HeaderValue::try_from(value) {
                headers.insert(name, value);
            }
        };
        put(FROM, self.from.to_string());
        if let Some(to) = self.to {
            put(TO, to.to_string());
        }
        if let Some(id) = self.id {
            put(ID, format!("{id:032x}"));
        }
        request
    }
}

fn tls_error(error: &std::io::Error) -> AskError {
    AskError::Unreachable(plain(&error.to_string()))
}

/// The error of a handshake in words that name what to do.
fn plain(text: &str) -> String {
    let is_key = ["UnknownIssuer", "UnknownCA", "CertificateUnknown", "certificate"];
    match is_key.iter().any(|word| text.contains(word)) {
        true => format!("has another deployment_key ({text})"),
        false => text.to_owned(),
    }
}
