//! The listeners: binds them, accepts clients and hands each to a worker.
//!
//! Nothing is read from a client here; its worker reads the first byte.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use pgimbal_config::{Config, ListenConfig, Route, TcpConfig};
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use socket2::{Domain, SockRef, Socket, Type};
use thiserror::Error;
use tokio::sync::mpsc::UnboundedSender;

use crate::admin::collect::ProcessStats;
use crate::inherited::{Inherited, SocketFile};
use crate::pending_logins::{PendingLogins, Subnet};
use crate::tcp;
use crate::worker::{Accepted, Message, Origin};

/// Pause of accepting after the process ran out of file descriptors or memory. Clients wait in the
/// kernel's queue meanwhile.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Limit of clients that a listener accepts while it closes: as many as its queue may hold
/// (net.core.somaxconn).
const MOST_AT_CLOSE: u32 = 4096;

/// Interval at which the log repeats that accepting is paused.
const SAY_AGAIN: Duration = Duration::from_secs(10);

/// The addresses that cannot be bound, each with its option and the operating system's reason.
#[derive(Debug, Error)]
#[error("cannot listen on {}", .0.join("; "))]
pub struct BindError(Vec<String>);

impl BindError {
    /// Notes that the address of the option `key` cannot be bound.
    fn add(&mut self, key: &str, place: impl std::fmt::Display, cause: &io::Error) {
        self.0.push(format!("{place} ({key}): {cause}"));
    }
}

/// Every bound address.
#[derive(Debug)]
pub struct Bound {
    /// Those of clients.
    pub clients: Listeners,
    /// That of HTTP; `None` when `http_listen` is off.
    pub http: Option<TcpListener>,
    /// That of the other replicas; `None` when `peers.listen` is off.
    pub peers: Option<TcpListener>,
}

/// Binds the addresses for clients (`listen` and `unix_socket_dir`), of HTTP and of other replicas.
/// Clients wait in the kernel's queue until [`Listeners::serve`]. A socket file that a killed
/// process has left is replaced. A listener that was inherited is used in place of a new one.
///
/// # Errors
/// [`BindError`] with every address that cannot be bound; nothing stays bound then.
pub fn bind(config: &Config, inherited: &mut Inherited) -> Result<Bound, BindError> {
    let mut failed = BindError(Vec::new());
    // First, so that whoever sees the clients' port open finds everything open.
    let mut bind = |key: &str, address: Option<SocketAddr>| {
        let address = address?;
        let bound = inherited.tcp(address).map_or_else(|| TcpListener::bind(address), Ok);
        bound.map_err(|cause| failed.add(key, address, &cause)).ok()
    };
    let peers = bind("peers.listen", config.peers.listen);
    let http = bind("http_listen", config.http.listen);
    let clients = Listeners::bind(&config.listen, &config.clients.tcp, inherited, &mut failed);
    if failed.0.is_empty() {
        return Ok(Bound { clients, http, peers });
    }
    clients.abandon();
    Err(failed)
}

/// The bound listeners for clients: TCP sockets, and at most one Unix socket.
#[derive(Debug)]
pub struct Listeners {
    tcp: Vec<(TcpListener, Manners)>,
    unix: Option<(UnixListener, PathBuf, SocketFile)>,
    is_take_over: bool,
}

/// What the configuration says of a TCP listener beside its address.
#[derive(Clone, Copy, Debug)]
struct Manners {
    spoken: Spoken,
    /// The route of its clients; `None` for that of the user or the database.
    route: Option<Route>,
}

impl Manners {
    fn of(address: &SocketAddr, config: &ListenConfig) -> Self {
        let spoken = match config.proxy_protocol.contains(address) {
            true => Spoken::ByLoadBalancer,
            false => Spoken::ByClients,
        };
        Self { spoken, route: config.route_at(address) }
    }
}

/// The kind of peer that connects to a listener.
#[derive(Clone, Copy, Debug)]
enum Spoken {
    /// Clients connect directly.
    ByClients,
    /// A load balancer that begins with a header of the PROXY protocol.
    ByLoadBalancer,
}

/// The state that the accepting threads share; each has a clone.
#[derive(Clone, Debug)]
pub struct AcceptContext {
    /// The channel to each worker, indexed by its number; clients are given to the workers in turn.
    pub workers: Arc<[UnboundedSender<Message>]>,
    /// The counters of the process, for `max_client_conn` and the metrics.
    pub process: Arc<ProcessStats>,
    /// The connections that have not logged in yet; a new client may evict the oldest.
    pub pending_logins: Arc<PendingLogins>,
}

impl Listeners {
    /// Binds every address of the configuration; accepted sockets inherit these TCP options.
    fn bind(
        config: &ListenConfig,
        options: &TcpConfig,
        inherited: &mut Inherited,
        failed: &mut BindError,
    ) -> Self {
        let unix = config.unix_socket_dir.as_ref().and_then(|directory| {
            let path = directory.join(format!(".s.PGSQL.{}", config.unix_socket_port));
            if let Some((listener, file)) = inherited.unix(&path) {
                return Some((listener, path, file));
            }
            match bind_unix(&path, config.unix_socket_mode) {
                Ok(listener) => Some((listener, path, SocketFile::Own)),
                Err(cause) => {
                    failed.add("unix_socket_dir", path.display(), &cause);
                    None
                }
            }
        });
        // Last, so that whoever sees a TCP port open finds everything open.
        let mut tcp = Vec::with_capacity(config.addresses.len());
        for address in &config.addresses {
            let bound = match inherited.tcp(*address) {
                Some(listener) => use_tcp(listener.into(), config.backlog, options),
                None => bind_tcp(*address, config.backlog, options),
            };
            match bound {
                Ok(listener) => tcp.push((listener, Manners::of(address, config))),
                Err(cause) => failed.add("listen", address, &cause),
            }
        }
        Self { tcp, unix, is_take_over: inherited.is_take_over() }
    }

    /// Copies of the listeners, for a process that takes over.
    ///
    /// # Errors
    /// The operating system's error, when a listener cannot be copied.
    pub fn to_pass_on(&self) -> io::Result<Vec<(OwnedFd, SocketFile)>> {
        let tcp = self
            .tcp
            .iter()
            .map(|(listener, _)| Ok((OwnedFd::from(listener.try_clone()?), SocketFile::Foreign)));
        let unix = self
            .unix
            .iter()
            .map(|(listener, _, file)| Ok((OwnedFd::from(listener.try_clone()?), *file)));
        tcp.chain(unix).collect()
    }

    /// The bound addresses as text for the log: TCP in the order of `listen`, and last the path of
    /// the Unix socket, if there is one.
    #[must_use]
    pub fn places(&self) -> Vec<String> {
        let tcp = self.tcp.iter().filter_map(|(listener, _)| listener.local_addr().ok());
        let unix = self.unix.iter().map(|(_, path, _)| path.display().to_string());
        tcp.map(|address| address.to_string()).chain(unix).collect()
    }

    /// Closes the listeners before any client was accepted, and removes the Unix socket's file,
    /// unless another process listens on it.
    pub fn abandon(self) {
        if let Some((_, path, SocketFile::Own)) = &self.unix
            && !self.is_take_over
        {
            // It is ours, made a moment ago; should it be gone, so much the better.
            let _ = std::fs::remove_file(path);
        }
    }

    /// Starts a thread for each listener, which accepts clients until the result is dropped, and
    /// hands them to the workers in turn. While file descriptors or memory are short it pauses for
    /// 200 ms and logs that at most every 10 s.
    ///
    /// # Errors
    /// The operating system's error, when a thread cannot be started or a socket cannot be
    /// duplicated.
    pub fn serve(self, context: &AcceptContext) -> io::Result<Accepting> {
        let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let mut accepting = Accepting {
            state: Arc::new(AtomicU8::new(State::Accept as u8)),
            wake,
            threads: Vec::new(),
            unlink: None,
        };
        for (listener, manners) in self.tcp {
            listener.set_nonblocking(true)?;
            accepting.spawn(context, Listener::Tcp(listener, manners))?;
        }
        if let Some((listener, path, file)) = self.unix {
            accepting.unlink = Some(path).filter(|_| file == SocketFile::Own);
            listener.set_nonblocking(true)?;
            accepting.spawn(context, Listener::Unix(listener))?;
        }
        Ok(accepting)
    }
}

/// A listener that does not block.
#[derive(Debug)]
enum Listener {
    Tcp(TcpListener, Manners),
    Unix(UnixListener),
}

impl Listener {
    fn accept(&self) -> io::Result<Origin> {
        Ok(match self {
            Self::Tcp(listener, manners) => {
                let (stream, address) = listener.accept()?;
                match manners.spoken {
                    Spoken::ByClients => Origin::Tcp(stream, address),
                    Spoken::ByLoadBalancer => Origin::Proxied(stream, address),
                }
            }
            Self::Unix(listener) => Origin::Unix(listener.accept()?.0),
        })
    }

    /// The route of its clients; `None` for that of the user or the database.
    const fn route(&self) -> Option<Route> {
        match self {
            Self::Tcp(_, manners) => manners.route,
            Self::Unix(_) => None,
        }
    }

    /// Waits until there is somebody to accept, or `wake` is written to.
    fn wait(&self, wake: &OwnedFd) {
        let listener = match self {
            Self::Tcp(listener, _) => listener.as_fd(),
            Self::Unix(listener) => listener.as_fd(),
        };
        let mut both =
            [PollFd::from_borrowed_fd(listener, PollFlags::IN), PollFd::new(wake, PollFlags::IN)];
        // A signal ends it early, which does no harm.
        let _ = poll(&mut both, None);
    }
}

/// What the accepting threads do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum State {
    Accept,
    /// Accept who waits in the kernel's queue, then end.
    Close,
    /// End: another process accepts them.
    Leave,
}

/// The threads that accept clients. Dropping it accepts those who wait in the kernel's queue,
/// closes the listeners, ends the threads and removes the Unix socket's file; clients that were
/// accepted stay. A drain drops it first.
#[derive(Debug)]
pub struct Accepting {
    /// A [`State`].
    state: Arc<AtomicU8>,
    wake: Arc<OwnedFd>,
    threads: Vec<JoinHandle<()>>,
    unlink: Option<PathBuf>,
}

impl Accepting {
    /// Starts a thread that accepts, and waits when there is nobody to. Under load that costs a
    /// login one system call; a listener on a runtime costs five.
    fn spawn(&mut self, context: &AcceptContext, listener: Listener) -> io::Result<()> {
        let context = context.clone();
        let (state, wake) = (Arc::clone(&self.state), Arc::clone(&self.wake));
        self.threads.push(std::thread::Builder::new().name("accept".to_owned()).spawn(
            move || {
                let (mut turn, mut last_said) = (0, None);
                let route = listener.route();
                let is = |wanted: State| state.load(Relaxed) == wanted as u8;
                let mut rest = MOST_AT_CLOSE;
                while !is(State::Leave) && rest > 0 {
                    match listener.accept() {
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                            if is(State::Close) {
                                break;
                            }
                            listener.wait(&wake);
                        }
                        accepted => {
                            let accepted = accepted.map(|socket| (socket, route));
                            context.receive(accepted, &mut turn, &mut last_said);
                        }
                    }
                    rest -= u32::from(is(State::Close));
                }
            },
        )?);
        Ok(())
    }

    /// Ends the threads while another process accepts on the same listeners: nobody is lost who
    /// waits in the kernel's queue, and the Unix socket's file stays.
    pub fn leave(&mut self) {
        self.unlink = None;
        self.end(State::Leave);
    }

    fn end(&mut self, state: State) {
        self.state.store(state as u8, Relaxed);
        // It cannot be full after one.
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
        for thread in self.threads.drain(..) {
            // One that panicked has said so.
            let _ = thread.join();
        }
    }
}

impl Drop for Accepting {
    fn drop(&mut self) {
        self.end(State::Close);
        if let Some(path) = &self.unlink {
            // Somebody else may have removed it.
            let _ = std::fs::remove_file(path);
        }
    }
}

impl AcceptContext {
    /// Hands an accepted socket to the next worker; pauses when the process is out of something.
    fn receive(
        &self,
        accepted: io::Result<(Origin, Option<Route>)>,
        turn: &mut usize,
        last_said: &mut Option<Instant>,
    ) {
        match accepted {
            Ok((socket, route)) => self.hand_over(socket, route, turn),
            Err(error) if is_client_gone(&error) => {}
            Err(error) => {
                self.process.set_accept_paused(true);
                if last_said.is_none_or(|said| said.elapsed() >= SAY_AGAIN) {
                    *last_said = Some(Instant::now());
                    tracing::error!(
                        "cannot accept clients for now: {error}; raise the limit of open files \
                         (ulimit -n), or lower max_client_conn"
                    );
                }
                std::thread::sleep(ACCEPT_PAUSE);
                self.process.set_accept_paused(false);
            }
        }
    }

    fn hand_over(&self, socket: Origin, route: Option<Route>, turn: &mut usize) {
        let connected = self.process.client_accepted();
        let pending_login = self.pending_logins.add(Subnet::of(socket.address()));
        *turn = (*turn + 1) % self.workers.len();
        // A worker that has ended takes nobody; the process is about to end too.
        let _ = self.workers[*turn].send(Message::Accepted(Accepted {
            socket,
            route,
            connected,
            pending_login,
        }));
    }
}

/// A client that left before it was accepted.
fn is_client_gone(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
    )
}

fn bind_tcp(address: SocketAddr, backlog: u32, options: &TcpConfig) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    use_tcp(socket, backlog, options)
}

/// Listens on a bound socket, or sets the options of one that listens already.
fn use_tcp(socket: Socket, backlog: u32, options: &TcpConfig) -> io::Result<TcpListener> {
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
    // Accepted sockets inherit the options: that saves each login a handful of system calls.
    tcp::set_options(&SockRef::from(&socket), options)?;
    Ok(socket.into())
}

fn bind_unix(path: &Path, mode: u32) -> io::Result<UnixListener> {
    // A socket file that nobody listens on is what a killed process has left.
    if UnixStream::connect(path)
        .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
    {
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    Ok(listener)
}
