//! Child processes that never outlive their test, however it ends.

use std::ffi::OsStr;
use std::io::Read;
use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group, test_kill_process_group};

use crate::leash::Leash;
use crate::until::{SOON, eventually};

/// A running program with its log file. It is ended when this is dropped. When the test process
/// itself is killed, a leash kills the program and removes its directory.
pub struct Process {
    child: Child,
    directory: PathBuf,
    end: Signal,
    leash: Option<Leash>,
}

impl Process {
    /// Starts `command` with standard output and error in `directory/log`. `end` is the signal that
    /// ends it when this is dropped; SIGKILL follows after 5 s.
    ///
    /// # Panics
    /// When the program cannot be started.
    #[must_use]
    pub fn start(command: Command, directory: &Path, end: Signal) -> Self {
        let mut process = Self::start_untied(command, directory, end);
        process.leash = Some(Leash::start(
            "kill -9 -\"$0\"; rm -rf -- \"$1\"",
            [OsStr::new(&process.child.id().to_string()), directory.as_os_str()],
        ));
        process
    }

    /// Starts `command` without a leash, for an owner that has one.
    pub(crate) fn start_untied(mut command: Command, directory: &Path, end: Signal) -> Self {
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(directory.join("log"))
            .expect("a log file");
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {:?}: {error}", command.get_program()));
        Self { child, directory: directory.to_owned(), end, leash: None }
    }

    /// The process id.
    ///
    /// # Panics
    /// Never: a child's id is positive.
    #[must_use]
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// The same as a number, for `/proc` and tools.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it accepts connections at all of these ports of 127.0.0.1.
    ///
    /// # Panics
    /// When it ends instead, or never does.
    pub fn wait_until_it_listens(&mut self, name: &str, ports: &[u16]) {
        // It may wait for its passwords and its store first.
        eventually(&format!("{name} listens"), SOON * 4, || {
            assert!(self.ended().is_none(), "{name} ended:\n{}", self.log());
            ports.iter().all(|port| TcpStream::connect(("127.0.0.1", *port)).is_ok())
        });
    }

    /// Sends `signal`; a process that has ended already is not an error. After SIGSTOP it waits
    /// until every thread has stopped.
    ///
    /// # Panics
    /// When a thread does not stop.
    pub fn signal(&self, signal: Signal) {
        let _ = kill_process(self.pid(), signal);
        if signal == Signal::STOP {
            eventually("every thread has stopped", SOON, || self.has_stopped());
        }
    }

    /// Whether no thread runs: `T` in `/proc/PID/task/TID/stat`, or it has ended.
    fn has_stopped(&self) -> bool {
        let Ok(threads) = std::fs::read_dir(format!("/proc/{}/task", self.id())) else {
            return true;
        };
        threads.flatten().all(|thread| {
            let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
            stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['T', 'Z', 'X']))
        })
    }

    /// The exit status; `None` while the process runs.
    ///
    /// # Panics
    /// When the operating system does not tell.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("wait")
    }

    /// Everything that the process has written so far.
    #[must_use]
    pub fn log(&self) -> String {
        let mut bytes = Vec::new();
        if let Ok(mut file) = std::fs::File::open(self.directory.join("log")) {
            let _ = file.read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The value in KiB of a field of `/proc/PID/status`, such as `VmRSS` or `VmHWM`.
    ///
    /// # Panics
    /// When the process has ended or the field is missing.
    #[must_use]
    pub fn status_kib(&self, field: &str) -> u64 {
        status_kib(self.id(), field).expect("a living process and the field")
    }

    /// Whether a process of its group lives: itself, or one that it has started.
    #[must_use]
    pub fn has_group(&self) -> bool {
        test_kill_process_group(self.pid()).is_ok()
    }

    fn stop(&mut self) {
        self.signal(self.end);
        let start = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) {
            if start.elapsed() > Duration::from_secs(5) {
                let _ = self.child.kill();
                let _ = self.child.wait();
                break;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.stop();
        // What it has started, such as a process that took over from it.
        let _ = kill_process_group(self.pid(), Signal::KILL);
        self.leash = None;
    }
}

/// A field of `/proc/PID/status` in KiB; `None` when the process is gone or has no such field.
#[must_use]
pub fn status_kib(pid: u32, field: &str) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find(|line| line.starts_with(field))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// A directory that is removed with everything in it on drop, unless `PGIMBAL_KEEP` is set.
#[derive(Debug)]
pub struct Directory(PathBuf);

impl std::ops::Deref for Directory {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.0
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if std::env::var_os("PGIMBAL_KEEP").is_none() {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}

/// Makes a directory in the system's temporary directory, with mode 0755 so that the user
/// `postgres` may enter it.
///
/// # Panics
/// When the directory cannot be made.
#[must_use]
pub fn directory(name: &str) -> Directory {
    directory_in(&std::env::temp_dir(), name)
}

/// Makes a directory in `/dev/shm` if more than 4 GiB are free there, because making a thousand
/// files takes a second on some disks.
pub(crate) fn directory_in_memory(name: &str) -> Directory {
    let memory = Path::new("/dev/shm");
    let free = rustix::fs::statvfs(memory).map_or(0, |fs| fs.f_bavail.saturating_mul(fs.f_frsize));
    if free > 4 << 30 { directory_in(memory, name) } else { directory(name) }
}

fn directory_in(base: &Path, name: &str) -> Directory {
    use std::os::unix::fs::PermissionsExt;
    // Short, since a socket's path has room for 107 bytes.
    let name = format!("pgimbal-{name}-{}-{}", std::process::id(), unique());
    let path = base.join(name);
    std::fs::create_dir_all(&path).expect("a temporary directory");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("permissions");
    Directory(path)
}

fn unique() -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock");
    let thread = format!("{:?}", std::thread::current().id());
    let thread: String = thread.chars().filter(char::is_ascii_digit).collect();
    format!("{:x}-{thread}", now.subsec_nanos())
}
