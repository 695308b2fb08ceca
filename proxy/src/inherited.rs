//! Listeners that this process was started with: by systemd (socket activation), or by a pgimbal
//! that it takes over from.
//!
//! Both pass them as descriptors from 3 on, counted in `LISTEN_FDS` (sd_listen_fds(3)). A listener
//! is used for the option that names its address. A predecessor also passes a line, a connected
//! socket on which it is told when this process serves.

use std::ffi::OsStr;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use listenfd::ListenFd;
use pgimbal_replicas::InstanceId;
use socket2::SockRef;

/// The name in `LISTEN_FDNAMES` of a listener whose file pgimbal has made and removes; systemd's
/// have other names.
const OWN: &str = "pgimbal-own";

/// What the name in `LISTEN_FDNAMES` of the line begins with; the predecessor's instance id follows,
/// if it has one.
const AFTER: &str = "pgimbal-after-";

/// What this process was started with, less what was taken. Dropping it closes the rest.
#[derive(Debug, Default)]
pub struct Inherited {
    tcp: Vec<TcpListener>,
    unix: Vec<(UnixListener, SocketFile)>,
    line: Option<Line>,
    predecessor: Option<InstanceId>,
}

/// Whose the file of a Unix socket is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketFile {
    /// Ours: it is removed at the end.
    Own,
    /// systemd's, which goes on to listen.
    Foreign,
}

/// The line to the process that this one takes over from, which waits for a word on it. When it
/// closes without one, that process goes on to serve.
#[derive(Debug)]
pub struct Line(UnixStream);

impl Inherited {
    /// Takes what `LISTEN_FDS` and `LISTEN_PID` name, and removes the variables; descriptors that
    /// are no listeners are left alone. To be called while the process has one thread.
    #[must_use]
    pub fn from_environment() -> Self {
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut names = names.split(':');
        let mut passed = ListenFd::from_env();
        let mut inherited = Self::default();
        for index in 0..passed.len() {
            let name = names.next();
            let after = name.and_then(|name| name.strip_prefix(AFTER));
            inherited.predecessor = inherited.predecessor.or(after.and_then(|id| id.parse().ok()));
            let file = match name {
                Some(OWN) => SocketFile::Own,
                _ => SocketFile::Foreign,
            };
            if let Ok(Some(listener)) = passed.take_tcp_listener(index) {
                inherited.tcp.push(listener);
            } else if let Ok(Some(socket)) = passed.take_unix_listener(index) {
                match SockRef::from(&socket).is_listener() {
                    Ok(false) => {
                        inherited.line = Some(Line(UnixStream::from(OwnedFd::from(socket))));
                    }
                    _ => inherited.unix.push((socket, file)),
                }
            }
        }
        inherited
    }

    /// Whether another pgimbal has started this one and serves until it is told that this one does.
    #[must_use]
    pub const fn is_take_over(&self) -> bool {
        self.line.is_some()
    }

    /// The id by which the process that this one takes over from is known to other replicas; `None`
    /// when there is no such process, or it has no id.
    #[must_use]
    pub const fn predecessor(&self) -> Option<InstanceId> {
        self.predecessor
    }

    /// Takes the line to the predecessor, if there is one.
    pub const fn take_line(&mut self) -> Option<Line> {
        self.line.take()
    }

    /// Takes the TCP listener that is bound to exactly this address.
    pub fn tcp(&mut self, address: SocketAddr) -> Option<TcpListener> {
        let is_it = |listener: &TcpListener| listener.local_addr().is_ok_and(|at| at == address);
        let at = self.tcp.iter().position(is_it)?;
        Some(self.tcp.swap_remove(at))
    }

    /// Takes the Unix listener whose file is at this path.
    pub fn unix(&mut self, path: &Path) -> Option<(UnixListener, SocketFile)> {
        let is_it = |(listener, _): &(UnixListener, SocketFile)| {
            listener.local_addr().is_ok_and(|at| at.as_pathname() == Some(path))
        };
        let at = self.unix.iter().position(is_it)?;
        Some(self.unix.swap_remove(at))
    }

    /// Closes the listeners that nobody has taken, and logs each.
    pub fn close_the_rest(&mut self) {
        let tcp = self.tcp.drain(..).filter_map(|listener| listener.local_addr().ok());
        let unix = self.unix.drain(..).filter_map(|(listener, _)| {
            Some(listener.local_addr().ok()?.as_pathname()?.display().to_string())
        });
        for place in tcp.map(|address| address.to_string()).chain(unix) {
            tracing::warn!("an inherited listener is closed, because no option names it: {place}");
        }
    }
}

impl Line {
    /// Tells the predecessor that this process serves.
    ///
    /// # Errors
    /// The operating system's error when the predecessor is gone.
    pub fn tell_ready(mut self) -> io::Result<()> {
        self.0.write_all(b"r")
    }
}

/// The value of `LISTEN_FDNAMES` for listeners of which these are the files, and the line after
/// them to this process, whose id among the replicas is `instance`.
pub fn names(
    files: impl Iterator<Item = SocketFile>,
    instance: Option<InstanceId>,
) -> impl AsRef<OsStr> {
    let names = files.map(|file| match file {
        SocketFile::Own => OWN,
        SocketFile::Foreign => "pgimbal",
    });
    let line = instance.map_or_else(|| AFTER.to_owned(), |id| format!("{AFTER}{id}"));
    names.map(str::to_owned).chain([line]).collect::<Vec<_>>().join(":")
}
