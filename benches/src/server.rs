//! A server process of a run: started, waited for, and always stopped again.

use crate::{During, Error, Result};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use std::fs::{self, File};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long a server may take to accept its first connection.
const START: Duration = Duration::from_secs(20);
/// How long a server may take to stop before it is killed.
const STOP: Duration = Duration::from_secs(10);

/// A running server; dropping it stops it.
#[derive(Debug)]
pub struct Server {
    child: Child,
    log: PathBuf,
    stop: Signal,
    name: String,
}

impl Server {
    /// Starts `command` with its output in `log` and waits until `port` accepts.
    ///
    /// # Errors
    /// When it cannot be started, ends early (the end of its log is in the error), or is silent.
    pub fn start(
        name: &str,
        mut command: Command,
        log: &Path,
        port: u16,
        stop: Signal,
    ) -> Result<Self> {
        let out = File::create(log).during(format!("making {}", log.display()))?;
        let err = out.try_clone().during("sharing a log file")?;
        let child = command
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .spawn()
            .during(format!("starting {name}"))?;
        let mut server = Self { child, log: log.to_owned(), stop, name: name.to_owned() };
        server.wait_for(port)?;
        Ok(server)
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The last lines it wrote.
    #[must_use]
    pub fn log_tail(&self) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(8)..].join("\n")
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, signal);
        }
    }

    /// Whether it still runs.
    pub fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    fn wait_for(&mut self, port: u16) -> Result<()> {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let deadline = Instant::now() + START;
        while Instant::now() < deadline {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(Error::Program(format!(
                    "{} ended: {status}\n{}",
                    self.name,
                    self.log_tail()
                )));
            }
            if TcpStream::connect_timeout(&address, Duration::from_millis(200)).is_ok() {
                return Ok(());
            }
            sleep(Duration::from_millis(20));
        }
        Err(Error::Program(format!("{} does not listen on {port}\n{}", self.name, self.log_tail())))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) else { return };
        let _ = kill_process(pid, self.stop);
        let deadline = Instant::now() + STOP;
        while Instant::now() < deadline {
            if let Ok(Some(_)) = self.child.try_wait() {
                return;
            }
            sleep(Duration::from_millis(10));
        }
        let _ = kill_process_group(pid, Signal::KILL);
        let _ = self.child.wait();
    }
}
