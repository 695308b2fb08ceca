//! SIGUSR2: a new process is started with the listeners of this one, and takes over when it serves.
//!
//! It is started as this one was, from the same path, so that a newer program there is used. Until
//! it says that it serves this process goes on to; when it fails, nothing has happened.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use command_fds::{CommandFdExt, FdMapping};
use pgimbal_replicas::InstanceId;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::AsyncReadExt;
use tokio::time::{Instant, timeout_at};

use crate::inherited::{self, SocketFile};

/// How long the new process may take until it serves: systemd's own limit for a reload (90 s), less
/// the time to say that it was not kept.
const TIME: Duration = Duration::from_secs(80);

/// How long a process whose line has closed may take to end before it is killed.
const END_TIME: Duration = Duration::from_secs(1);

/// Interval at which it is looked whether it has ended.
const LOOK: Duration = Duration::from_millis(10);

/// The first descriptor that a process inherits, by the convention of `LISTEN_FDS`.
const FIRST: i32 = 3;

/// A new process that is starting.
#[derive(Debug)]
pub(super) struct TakeOver {
    process: Child,
    line: tokio::net::UnixStream,
    until: Instant,
}

/// What became of a take-over.
#[derive(Debug)]
pub(super) enum Outcome {
    /// The process with this id serves.
    Serves(u32),
    /// It does not, for this reason, and has ended.
    Failed(String),
}

impl TakeOver {
    /// Starts the new process, with copies of the listeners, and with the id that this one has
    /// among the replicas. `program` is the path of the program as it was at the start, for a
    /// process whose own name leads nowhere.
    ///
    /// # Errors
    /// The operating system's error when it cannot be started.
    pub(super) fn begin(
        listeners: &[(OwnedFd, SocketFile)],
        program: Option<&PathBuf>,
        instance: Option<InstanceId>,
    ) -> io::Result<Self> {
        let named = std::env::args_os().next().map(PathBuf::from);
        let mut started = Err(io::ErrorKind::NotFound.into());
        for path in named.iter().chain(program) {
            started = Self::start(path, listeners, instance);
            if !started.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
                break;
            }
        }
        started
    }

    fn start(
        program: &PathBuf,
        listeners: &[(OwnedFd, SocketFile)],
        instance: Option<InstanceId>,
    ) -> io::Result<Self> {
        let (line, far_end) = UnixStream::pair()?;
        line.set_nonblocking(true)?;
        let mut passed = Vec::with_capacity(listeners.len() + 1);
        for (listener, _) in listeners {
            passed.push(listener.try_clone()?);
        }
        passed.push(far_end.into());
        let count = passed.len();
        let mappings = (FIRST..).zip(passed);
        let mappings = mappings.map(|(child_fd, parent_fd)| FdMapping { parent_fd, child_fd });
        let names = inherited::names(listeners.iter().map(|passed| passed.1), instance);
        let mut command = Command::new(program);
        command
            .args(std::env::args_os().skip(1))
            .stdin(Stdio::null())
            .env("LISTEN_FDS", count.to_string())
            .env("LISTEN_FDNAMES", names)
            .env_remove("LISTEN_PID")
            // It is asked of the main process, which the new one will be.
            .env_remove("WATCHDOG_PID")
            .fd_mappings(mappings.collect())
            .map_err(io::Error::other)?;
        let line = tokio::net::UnixStream::from_std(line)?;
        Ok(Self { process: command.spawn()?, line, until: Instant::now() + TIME })
    }

    /// The id of the new process.
    pub(super) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Waits until the new process serves or has failed. It is cancel-safe.
    pub(super) async fn outcome(&mut self) -> Outcome {
        let reason = match timeout_at(self.until, self.line.read(&mut [0])).await {
            Ok(Ok(1..)) => return Outcome::Serves(self.process.id()),
            Ok(Ok(0) | Err(_)) => None,
            Err(_) => Some(format!("it does not serve after {} s", TIME.as_secs())),
        };
        let patience = if reason.is_some() { Duration::ZERO } else { END_TIME };
        let end = self.reap(patience).await;
        Outcome::Failed(reason.unwrap_or(end))
    }

    /// Waits so long until the process has ended, then kills it. Returns how it has ended.
    async fn reap(&mut self, patience: Duration) -> String {
        let until = Instant::now() + patience;
        loop {
            match self.process.try_wait() {
                Ok(Some(status)) => return format!("it has ended ({status})"),
                Err(error) => return format!("it cannot be waited for: {error}"),
                Ok(None) if Instant::now() < until => tokio::time::sleep(LOOK).await,
                Ok(None) => {
                    // It may have ended meanwhile.
                    let _ = self.process.kill();
                    let _ = self.process.wait();
                    return "it has closed its line, and was killed".to_owned();
                }
            }
        }
    }

    /// Passes on that the processes shall end: the new one ends its start, or drains.
    pub(super) fn end(self, signal: Signal) {
        // It may have ended already.
        let _ = kill_process(Pid::from_child(&self.process), signal);
    }
}
