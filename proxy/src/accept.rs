//! The listeners: binds them, accepts clients and hands each to a worker.
//!
//! Nothing is read from a client here; its worker reads the first byte.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use pgimbal_config::{Config, ListenConfig, TcpConfig};
use socket2::{Domain, SockRef, Socket, Type};
use thiserror::Error;
use tokio::sync::mpsc::UnboundedSender;

use crate::admin::collect::ProcessStats;
use crate::pending_logins::{PendingLogins, Subnet};
use crate::tcp;
use crate::worker::{Accepted, Message, Origin};

/// Pause of accepting after the process ran out of file descriptors or memory. Clients wait in the
/// kernel's queue meanwhile.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

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
/// Clients wait in the kernel's queue until
/// [`Listeners::serve`]. A socket file that a killed process has left is replaced.
///
/// # Errors
/// [`BindError`] with every address that cannot be bound; nothing stays bound then.
pub fn bind(config: &Config) -> Result<Bound, BindError> {
    let mut failed = BindError(Vec::new());
    // First, so that whoever sees the clients' port open finds everything open.
    let mut bind = |key: &str, address: Option<SocketAddr>| {
        let address = address?;
        TcpListener::bind(address).map_err(|cause| failed.add(key, address, &cause)).ok()
    };
    let peers = bind("peers.listen", config.peers.listen);
    let http = bind("http_listen", config.http.listen);
    let clients = Listeners::bind(&config.listen, &config.clients.tcp, &mut failed);
    if failed.0.is_empty() {
        return Ok(Bound { clients, http, peers });
    }
    clients.abandon();
    Err(failed)
}

/// The bound listeners for clients: TCP sockets, and at most one Unix socket.
#[derive(Debug)]
pub struct Listeners {
    tcp: Vec<(TcpListener, Spoken)>,
    unix: Option<(UnixListener, PathBuf)>,
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
    fn bind(config: &ListenConfig, options: &TcpConfig, failed: &mut BindError) -> Self {
        let unix = config.unix_socket_dir.as_ref().and_then(|directory| {
            let path = directory.join(format!(".s.PGSQL.{}", config.unix_socket_port));
            match bind_unix(&path, config.unix_socket_mode) {
                Ok(listener) => Some((listener, path)),
                Err(cause) => {
                    failed.add("unix_socket_dir", path.display(), &cause);
                    None
                }
            }
        });
        // Last, so that whoever sees a TCP port open finds everything open.
        let mut tcp = Vec::with_capacity(config.addresses.len());
        for address in &config.addresses {
            let spoken = match config.proxy_protocol.contains(address) {
                true => Spoken::ByLoadBalancer,
                false => Spoken::ByClients,
            };
            match bind_tcp(*address, config.backlog, options) {
                Ok(listener) => tcp.push((listener, spoken)),
                Err(cause) => failed.add("listen", address, &cause),
            }
        }
        Self { tcp, unix }
    }

    /// The bound addresses as text for the log: TCP in the order of `listen`, and last the path of
    /// the Unix socket, if there is one.
    #[must_use]
    pub fn places(&self) -> Vec<String> {
        let tcp = self.tcp.iter().filter_map(|(listener, _)| listener.local_addr().ok());
        let unix = self.unix.iter().map(|(_, path)| path.display().to_string());
        tcp.map(|address| address.to_string()).chain(unix).collect()
    }

    /// Closes the listeners before any client was accepted, and removes the Unix socket's file.
    pub fn abandon(self) {
        if let Some((_, path)) = &self.unix {
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
        let mut accepting =
            Accepting { stopped: Arc::default(), listeners: Vec::new(), unlink: None };
        for (listener, spoken) in self.tcp {
            accepting.listeners.push(listener.try_clone()?.into());
            accepting.spawn(context, move || {
                let (stream, address) = listener.accept()?;
                Ok(match spoken {
                    Spoken::ByClients => Origin::Tcp(stream, address),
                    Spoken::ByLoadBalancer => Origin::Proxied(stream, address),
                })
            })?;
        }
        if let Some((listener, path)) = self.unix {
            accepting.unlink = Some(path);
            accepting.listeners.push(listener.try_clone()?.into());
            accepting.spawn(context, move || Ok(Origin::Unix(listener.accept()?.0)))?;
        }
        Ok(accepting)
    }
}

/// The threads that accept clients. Dropping it closes the listeners, ends the threads and removes
/// the Unix socket's file; clients that were accepted stay. A drain drops it first.
#[derive(Debug)]
pub struct Accepting {
    stopped: Arc<AtomicBool>,
    listeners: Vec<OwnedFd>,
    unlink: Option<PathBuf>,
}

impl Accepting {
    /// Starts a thread that waits in `accept`. That costs a login one system call; a listener on a
    /// runtime costs five.
    fn spawn(
        &self,
        context: &AcceptContext,
        next: impl Fn() -> io::Result<Origin> + Send + 'static,
    ) -> io::Result<()> {
        let context = context.clone();
        let stopped = Arc::clone(&self.stopped);
        std::thread::Builder::new().name("accept".to_owned()).spawn(move || {
            let (mut turn, mut last_said) = (0, None);
            while !stopped.load(Relaxed) {
                match next() {
                    _ if stopped.load(Relaxed) => {}
                    accepted => context.receive(accepted, &mut turn, &mut last_said),
                }
            }
        })?;
        Ok(())
    }
}

impl Drop for Accepting {
    fn drop(&mut self) {
        self.stopped.store(true, Relaxed);
        for listener in &self.listeners {
            // Wakes the thread; new clients are refused by the kernel from here on.
            let _ = SockRef::from(listener).shutdown(Shutdown::Both);
        }
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
        accepted: io::Result<Origin>,
        turn: &mut usize,
        last_said: &mut Option<Instant>,
    ) {
        match accepted {
            Ok(socket) => self.hand_over(socket, turn),
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

    fn hand_over(&self, socket: Origin, turn: &mut usize) {
        let connected = self.process.client_accepted();
        let pending_login = self.pending_logins.add(Subnet::of(socket.address()));
        *turn = (*turn + 1) % self.workers.len();
        // A worker that has ended takes nobody; the process is about to end too.
        let _ = self.workers[*turn].send(Message::Accepted(Accepted {
            socket,
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
