//! The other replicas of the deployment: who they are, and what replicas ask each other.
//!
//! This module owns the way between replicas: discovery, mutual TLS, requests and their limits. What
//! a request says is its handler's; it is bytes here.

mod client;
mod discovery;
mod hello;
mod key;
mod members;
mod rate;
mod request;
mod server;
mod stats;
mod tls;

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hyper::StatusCode;
use hyper::body::Bytes;
use pgimbal_config::{Config, PeerAddress};
use pgimbal_replicas::InstanceId;
use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout_at};

use client::{Call, Client};
use hello::{FORMER_IDS, Hello};
use members::{Event, Members};
use rate::Strangers;
use request::Dispatcher;
use stats::PeerStats;

pub use client::AskError;

pub use key::{DeploymentKey, UnusableKey};
pub use members::{PeerStatus, SILENT};
pub use request::{Asked, Handlers, Kind};
pub use stats::{Outcome, Stranger};
pub use tls::{PeerTls, PeerTlsError};

/// Pause before a peer is asked again: one that is still at work, or gave no answer.
const PAUSE: Duration = Duration::from_millis(100);

/// How long a cancel request waits for the replica of its key to be met.
const MEET: Duration = Duration::from_secs(2);

/// The peers cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum PeersError {
    /// TLS with them cannot be set up.
    #[error(transparent)]
    Tls(#[from] PeerTlsError),
    /// A thread or a runtime cannot be started.
    #[error("cannot start what serves peers: {0}")]
    Start(#[from] io::Error),
}

/// The handle to the other replicas. Clones are cheap and share their state. Without `[peers]` there
/// are none, and every method says so at once.
#[derive(Clone, Debug, Default)]
pub struct Peers(Option<Arc<Inner>>);

/// The peers and what has passed between them, for metrics.
#[derive(Clone, Debug, Default)]
pub struct PeersSnapshot {
    /// Whether there is a `[peers]` at all; otherwise the rest is empty.
    pub is_on: bool,
    /// Peers, and addresses at which nobody has answered.
    pub peers: Vec<PeerStatus>,
    /// Connections that ended before they had proved the key.
    pub strangers: Vec<(Stranger, u64)>,
    /// Requests to peers, by their outcome.
    pub sent: Vec<(Kind, Outcome, u64)>,
    /// Requests of peers.
    pub received: Vec<(Kind, u64)>,
}

#[derive(Debug)]
struct Inner {
    own: Own,
    tls: PeerTls,
    members: Mutex<Members>,
    changed: watch::Sender<u64>,
    client: Client,
    dispatcher: Dispatcher,
    stats: PeerStats,
    strangers: Strangers,
    hurry: Notify,
    /// For the thread that serves the port: what it listens at from now on.
    listeners: mpsc::UnboundedSender<TcpListener>,
    runtime: Handle,
}

/// What one attempt to ask a peer has come to, other than an answer.
enum Asking {
    /// The peer is asked again.
    Later(AskError),
    /// It is asked again on a new connection.
    Anew(AskError),
    /// It is not asked again.
    Over(AskError),
}

/// What this replica says of itself.
#[derive(Debug)]
struct Own {
    instance: InstanceId,
    name: String,
    /// Where it listens for peers, and whether that is another address than in the configuration,
    /// which is another process's now.
    listen: Mutex<(SocketAddr, bool)>,
    ready: AtomicBool,
    /// The process that this one takes over from.
    before: Option<InstanceId>,
    /// Number of hellos that were made.
    hellos: AtomicU64,
    /// 0 while there is none. Read at each login, so it stands apart from the former ones.
    peer_id: AtomicU16,
    /// Whether the peer id is that of the configuration.
    is_fixed: bool,
    /// The oldest first.
    former: Mutex<VecDeque<u16>>,
    heartbeat: Mutex<Bytes>,
    /// Where a peer has last seen this replica.
    seen_at: Mutex<Option<SocketAddr>>,
}

impl Peers {
    /// Begins to serve and to look for the other replicas, on two threads of their own; `listener`
    /// is bound to `peers.listen`. The requests of peers go to `handlers`. `before` is the process
    /// that this one takes over from, which listens there too.
    ///
    /// # Errors
    /// [`PeersError`] when that cannot begin.
    pub fn start(
        config: &Config,
        listener: TcpListener,
        handlers: Handlers,
        before: Option<InstanceId>,
    ) -> Result<Self, PeersError> {
        let tls = PeerTls::new(&config.credentials)?;
        let listen = listener.local_addr()?;
        let port = listen.port();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let own = Own::new(config, listen, before);
        let (listeners, next_listeners) = mpsc::unbounded_channel();
        let inner = Arc::new(Inner {
            members: Mutex::new(Members::new(own.instance, home(listen), before)),
            own,
            client: Client::new(tls.clone()),
            tls,
            changed: watch::Sender::new(0),
            dispatcher: Dispatcher::new(handlers),
            stats: PeerStats::default(),
            strangers: Strangers::default(),
            hurry: Notify::new(),
            listeners,
            runtime: runtime.handle().clone(),
        });
        let mut places = config.peers.addresses.clone();
        places.extend(config.peers.dns.iter().map(|host| PeerAddress { host: host.clone(), port }));
        server::start(Arc::clone(&inner), listener, next_listeners)?;
        let served = Arc::clone(&inner);
        std::thread::Builder::new().name("peers".to_owned()).spawn(move || {
            runtime.block_on(async move {
                tokio::join!(
                    discovery::look_up(Arc::clone(&served), places),
                    discovery::greet(served)
                );
            });
        })?;
        tracing::info!(
            instance = %inner.own.instance,
            replica = inner.own.name,
            "replicas are met at port {port}"
        );
        Ok(Self(Some(inner)))
    }

    /// Whether there are other replicas, or may be.
    #[must_use]
    pub const fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// What this replica is called: `peers.replica_name`, or the host name. Empty without
    /// `[peers]`.
    #[must_use]
    pub fn own_name(&self) -> &str {
        self.0.as_ref().map_or("", |inner| &inner.own.name)
    }

    /// The id of this process; `None` without `[peers]`.
    #[must_use]
    pub fn instance(&self) -> Option<InstanceId> {
        self.0.as_ref().map(|inner| inner.own.instance)
    }

    /// The address at which a peer has last reached this replica; `None` while none has.
    #[must_use]
    pub fn own_address(&self) -> Option<SocketAddr> {
        self.0.as_ref().and_then(|inner| *lock(&inner.own.seen_at))
    }

    /// Sets whether this replica accepts clients, as its peers are told.
    pub fn set_ready(&self, ready: bool) {
        if let Some(inner) = &self.0 {
            inner.own.ready.store(ready, Relaxed);
            inner.hurry.notify_one();
        }
    }

    /// The peer id in the cancel keys that are handed out now, 1 to 16383; `None` while there is
    /// none.
    #[must_use]
    pub fn peer_id(&self) -> Option<u16> {
        self.0.as_ref().and_then(|inner| inner.own.peer_id())
    }

    /// Leaves the port to the process that has taken over, and is reached at another one from now
    /// on, which the peers are told: clients that are still here may be cancelled.
    ///
    /// # Errors
    /// The operating system's error when no other port can be bound; both processes accept at the
    /// one port then.
    pub fn leave_port(&self) -> io::Result<()> {
        let Some(inner) = &self.0 else { return Ok(()) };
        let mut listen = lock(&inner.own.listen);
        let listener = TcpListener::bind((listen.0.ip(), 0))?;
        *listen = (listener.local_addr()?, true);
        drop(listen);
        // The thread ends with the process.
        let _ = inner.listeners.send(listener);
        inner.client.forget(None);
        inner.members().greet_own(Instant::now());
        inner.hurry.notify_one();
        Ok(())
    }

    /// Sets the peer id, that of this replica's slot of the budget; `None` when it has no slot any
    /// more. An id above 16383 counts as none. Keys with the 8 ids before it work as before. It
    /// has no effect when `peers.peer_id` is set.
    pub fn set_peer_id(&self, id: Option<u16>) {
        let Some(inner) = self.0.as_ref().filter(|inner| !inner.own.is_fixed) else { return };
        inner.own.set_peer_id(id);
        inner.hurry.notify_one();
    }

    /// Whether this replica hands out keys with this peer id, or has done so.
    #[must_use]
    pub fn is_own_peer_id(&self, id: u16) -> bool {
        self.0.as_ref().is_some_and(|inner| {
            inner.own.peer_id() == Some(id) || inner.own.former().contains(&id)
        })
    }

    /// Sets the bytes that every hello carries from now on; the next ones go out at once.
    pub fn set_heartbeat(&self, heartbeat: Vec<u8>) {
        if let Some(inner) = &self.0 {
            *lock(&inner.own.heartbeat) = heartbeat.into();
            inner.hurry.notify_one();
        }
    }

    /// A channel whose value changes whenever a peer was heard, or falls silent; `None` without
    /// `[peers]`. [`Self::members`] says the rest.
    #[must_use]
    pub fn changed(&self) -> Option<watch::Receiver<u64>> {
        self.0.as_ref().map(|inner| inner.changed.subscribe())
    }

    /// The other replicas, and the addresses at which nobody has answered yet.
    #[must_use]
    pub fn members(&self) -> Vec<PeerStatus> {
        self.0.as_ref().map_or_else(Vec::new, |inner| inner.members().status(Instant::now()))
    }

    /// The peers that may have the session of a cancel key with this peer id: those that say so,
    /// or all for `None`, a key without an id. Silent ones are among them. While none is known and
    /// not all have been met, it waits for one, for 2 s at most.
    pub async fn owners(&self, id: Option<u16>) -> Vec<InstanceId> {
        let (Some(inner), Some(mut changed)) = (&self.0, self.changed()) else { return Vec::new() };
        let deadline = Instant::now() + MEET;
        loop {
            changed.mark_unchanged();
            let owners = self.with_peer_id(id);
            let now = Instant::now();
            let is_known = !owners.is_empty() && !inner.members().awaits_predecessor(now);
            if is_known
                || !inner.members().may_be_more(now)
                || timeout_at(deadline.into(), changed.changed()).await.is_err()
            {
                return owners;
            }
        }
    }

    /// Whether there may be replicas that this one has never met, at addresses where nobody has
    /// answered or that are not known yet. Always `false` without `[peers]`.
    #[must_use]
    pub fn may_be_more(&self) -> bool {
        self.0.as_ref().is_some_and(|inner| inner.members().may_be_more(Instant::now()))
    }

    /// As [`Self::owners`], without waiting.
    fn with_peer_id(&self, id: Option<u16>) -> Vec<InstanceId> {
        let Some(inner) = &self.0 else { return Vec::new() };
        let has = |hello: &Hello| match id {
            Some(id) => hello.peer_id == Some(id) || hello.former.contains(&id),
            None => true,
        };
        let members = inner.members();
        members.all().filter(|(_, hello)| has(hello)).map(|(id, _)| id).collect()
    }

    /// Asks a peer and returns its answer, of at most 1 MiB. A request of a kind that changes
    /// something bears an id, with which it is sent again for `patience`, while the peer is at work
    /// or cannot be reached, but for 2 s at most when the peer is silent; each attempt takes 2 s at
    /// most. Other requests are sent again only where they certainly had no effect. Dropping the
    /// future ends the request on this side.
    ///
    /// # Errors
    /// [`AskError`] when no answer came.
    pub async fn ask(
        &self,
        peer: InstanceId,
        kind: Kind,
        body: Vec<u8>,
        patience: Duration,
    ) -> Result<Bytes, AskError> {
        let inner = Arc::clone(self.0.as_ref().ok_or(AskError::Gone)?);
        let id = kind.changes_something().then(rand::random);
        let call = Call { kind, from: inner.own.instance, to: Some(peer), id, body: body.into() };
        let runtime = inner.runtime.clone();
        // Connections belong to that runtime. Who does not wait any more ends the request, so that
        // those of clients that are gone do not gather.
        let mut asked = JoinSet::new();
        asked.spawn_on(async move { inner.ask(call, patience).await }, &runtime);
        match asked.join_next().await {
            Some(Ok(answer)) => answer,
            Some(Err(error)) => Err(AskError::Unreachable(error.to_string())),
            None => Err(AskError::Gone),
        }
    }

    /// Asks every other replica at once, as [`Self::ask`], and returns each with its answer. Those
    /// that are silent, and addresses at which nobody answers, are among them with their error, so
    /// that none is left out.
    pub async fn ask_all(
        &self,
        kind: Kind,
        body: &[u8],
        patience: Duration,
    ) -> Vec<(PeerStatus, Result<Bytes, AskError>)> {
        let ask = |peer: PeerStatus| {
            let (peers, body) = (self.clone(), body.to_vec());
            async move {
                let answer = match peer.instance {
                    None => Err(AskError::Unreachable(peer.why.clone())),
                    Some(_) if !peer.is_alive() => Err(AskError::Silent),
                    Some(instance) => peers.ask(instance, kind, body, patience).await,
                };
                (peer, answer)
            }
        };
        let asking: Vec<_> =
            self.members().into_iter().map(|peer| tokio::spawn(ask(peer))).collect();
        let mut answers = Vec::with_capacity(asking.len());
        for one in asking {
            // A task that panics has said so.
            answers.extend(one.await.ok());
        }
        answers
    }

    /// The peers and the counters, for metrics.
    #[must_use]
    pub fn snapshot(&self) -> PeersSnapshot {
        let Some(inner) = &self.0 else { return PeersSnapshot::default() };
        PeersSnapshot {
            is_on: true,
            peers: self.members(),
            strangers: inner.stats.strangers(),
            sent: inner.stats.requests_sent(),
            received: inner.stats.requests_received(),
        }
    }
}

impl Inner {
    fn members(&self) -> MutexGuard<'_, Members> {
        lock(&self.members)
    }

    /// This replica's hello, to a peer that is seen at this address.
    fn hello(&self, you: Option<SocketAddr>) -> Vec<u8> {
        let own = &self.own;
        let (listen, moved) = *lock(&own.listen);
        let hello = Hello {
            instance: own.instance,
            name: own.name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            listen,
            number: 1 + own.hellos.fetch_add(1, Relaxed),
            before: own.before,
            moved,
            you,
            ready: own.ready.load(Relaxed),
            peer_id: own.peer_id(),
            former: own.former(),
        };
        let heartbeat = lock(&own.heartbeat).clone();
        hello.to_bytes(&heartbeat)
    }

    /// The addresses to say hello to now, after a look at who is silent.
    fn due(&self) -> Vec<SocketAddr> {
        let now = Instant::now();
        let moved = lock(&self.own.listen).1;
        let mut members = self.members();
        // Who has taken over may have the same.
        let peer_id = self.own.peer_id().filter(|_| !moved);
        let events = members.tick((&self.own.name, peer_id), now);
        let due = members.due(now);
        drop(members);
        self.tell(events);
        due
    }

    fn list(&self, addresses: &BTreeSet<SocketAddr>, complete: bool, now: Instant) {
        let mut members = self.members();
        let is_new = members.list(addresses, complete, now);
        drop(members);
        self.client.keep(|address| self.members().knows(address));
        if is_new {
            self.hurry.notify_one();
        }
    }

    /// Says hello to an address and notes who is there.
    async fn greet(&self, address: SocketAddr) {
        let body = self.hello(Some(address)).into();
        let call = Call { kind: Kind::Hello, from: self.own.instance, to: None, id: None, body };
        let answer = self.send(address, &call).await.and_then(|(status, body)| match status {
            StatusCode::OK => Hello::parse(&body).map_err(AskError::Malformed),
            _ => Err(AskError::Refused(text(&body))),
        });
        // A new connection meets another process there.
        let is_own = |hello: &Hello| hello.instance == self.own.instance;
        if answer.as_ref().is_ok_and(|(hello, _)| hello.moved || is_own(hello)) {
            self.client.forget(Some(address));
        }
        let mut members = self.members();
        let events = match answer {
            Ok((hello, heartbeat)) => members.answered(address, hello, heartbeat, Instant::now()),
            Err(error) => {
                members.failed(address, error.to_string());
                Vec::new()
            }
        };
        drop(members);
        self.tell(events);
        self.changed.send_modify(|count| *count += 1);
    }

    /// A peer has said hello.
    fn heard(&self, hello: Hello, from: SocketAddr, heartbeat: Bytes) {
        let own = &self.own;
        // On the own host the address may be another one than for the rest.
        let is_of_rest =
            |you: &SocketAddr| !you.ip().is_loopback() || lock(&own.listen).0.ip().is_loopback();
        if let Some(you) = hello.you.filter(is_of_rest)
            && hello.instance != own.instance
        {
            *lock(&own.seen_at) = Some(you);
        }
        let events = self.members().heard(hello, from.ip(), heartbeat, Instant::now());
        if !events.is_empty() {
            self.hurry.notify_one();
        }
        self.tell(events);
        self.changed.send_modify(|count| *count += 1);
    }

    /// Asks until there is an answer or `patience` has passed. What may be asked again without
    /// harm is: see [`Asking`].
    async fn ask(&self, call: Call, patience: Duration) -> Result<Bytes, AskError> {
        let peer = call.to.ok_or(AskError::Gone)?;
        let begun = Instant::now();
        loop {
            let address = self.members().address(peer).ok_or(AskError::Gone)?;
            let is_alive = self.members().is_alive(peer, Instant::now());
            // Who is silent has the time of one request.
            let patience = if is_alive { patience } else { patience.min(client::REQUEST_TIME) };
            let deadline = begun + patience;
            let error = match self.ask_once(address, &call, deadline).await {
                Ok(body) => return Ok(body),
                Err(Asking::Over(error)) => return Err(error),
                Err(Asking::Later(error)) => error,
                Err(Asking::Anew(error)) => {
                    self.client.forget(Some(address));
                    error
                }
            };
            if Instant::now() + PAUSE >= deadline {
                return Err(error);
            }
            sleep(PAUSE).await;
        }
    }

    async fn ask_once(
        &self,
        address: SocketAddr,
        call: &Call,
        deadline: Instant,
    ) -> Result<Bytes, Asking> {
        let turn = timeout_at(deadline.into(), self.client.turn(address, call.kind)).await;
        let _turn = turn.map_err(|_| Asking::Over(AskError::Timeout))?;
        let (status, body) = self.send(address, call).await.map_err(|error| match error {
            // It may have acted; with an id it does not act again.
            AskError::Unreachable(_) | AskError::Timeout if call.id.is_some() => {
                Asking::Anew(error)
            }
            error => Asking::Over(error),
        })?;
        match status {
            StatusCode::OK => Ok(body),
            StatusCode::ACCEPTED => Err(Asking::Later(AskError::Timeout)),
            // Too many wait, and this one was not taken.
            StatusCode::SERVICE_UNAVAILABLE => Err(Asking::Later(AskError::Refused(text(&body)))),
            // While one process takes over from another, both are at its address.
            StatusCode::MISDIRECTED_REQUEST => Err(Asking::Anew(AskError::Refused(text(&body)))),
            _ => Err(Asking::Over(AskError::Refused(text(&body)))),
        }
    }

    async fn send(&self, to: SocketAddr, call: &Call) -> Result<(StatusCode, Bytes), AskError> {
        let answer = self.client.send(to, call).await;
        let outcome = match &answer {
            Ok((status, _)) if status.is_success() => Outcome::Answered,
            Ok(_) => Outcome::Refused,
            Err(_) => Outcome::Failed,
        };
        self.stats.sent(call.kind, outcome);
        answer
    }

    fn tell(&self, events: Vec<Event>) {
        for event in events {
            match event {
                Event::Found(name, address) => {
                    tracing::info!(replica = name, %address, "a replica was found");
                }
                Event::Silent(name) => tracing::warn!(replica = name, "a replica is silent"),
                Event::Back(name) => tracing::info!(replica = name, "a replica is heard again"),
                Event::Forgotten(name) => tracing::info!(replica = name, "a replica is gone"),
                Event::SameId(a, b, id) => tracing::error!(
                    "the replicas {a} and {b} both hand out the peer id {id}: give each another \
                     peers.peer_id; cancel requests are sent to both"
                ),
            }
        }
    }
}

impl Own {
    fn new(config: &Config, listen: SocketAddr, before: Option<InstanceId>) -> Self {
        let host_name = || {
            let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
            if name.is_empty() { "pgimbal".to_owned() } else { name }
        };
        Self {
            instance: InstanceId(rand::random()),
            name: config.peers.replica_name.clone().unwrap_or_else(host_name),
            listen: Mutex::new((listen, false)),
            ready: AtomicBool::new(false),
            before,
            hellos: AtomicU64::new(0),
            peer_id: AtomicU16::new(config.peers.peer_id.unwrap_or(0)),
            is_fixed: config.peers.peer_id.is_some(),
            former: Mutex::default(),
            heartbeat: Mutex::default(),
            seen_at: Mutex::default(),
        }
    }

    fn peer_id(&self) -> Option<u16> {
        Some(self.peer_id.load(Relaxed)).filter(|id| *id != 0)
    }

    fn former(&self) -> Vec<u16> {
        lock(&self.former).iter().copied().collect()
    }

    fn set_peer_id(&self, id: Option<u16>) {
        let id = id.filter(|id| *id <= pgimbal_config::GREATEST_PEER_ID).unwrap_or(0);
        let mut former = lock(&self.former);
        let before = self.peer_id.swap(id, Relaxed);
        former.retain(|old| *old != id && *old != before);
        if before != 0 && before != id {
            former.push_back(before);
        }
        while former.len() > FORMER_IDS {
            former.pop_front();
        }
    }
}

/// Where a process that listens at `listen` reaches itself.
const fn home(listen: SocketAddr) -> SocketAddr {
    match listen {
        SocketAddr::V4(four) if four.ip().is_unspecified() => {
            SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), listen.port())
        }
        SocketAddr::V6(six) if six.ip().is_unspecified() => {
            SocketAddr::new(IpAddr::V6(Ipv6Addr::LOCALHOST), listen.port())
        }
        named => named,
    }
}

/// Every change under these locks is complete, so that a panic elsewhere does not matter.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The reason in a peer's answer, for logs and tables: it is trusted, and yet bounded.
fn text(body: &Bytes) -> String {
    let text = String::from_utf8_lossy(body);
    text.chars().filter(|c| !c.is_control()).take(300).collect()
}

#[cfg(test)]
mod tests;
