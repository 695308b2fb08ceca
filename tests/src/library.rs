//! Programs that use other libraries: those of `tests/clients` and `tests/migrators`, in the
//! languages that `tests/set-up` prepared, and a conversation with them while they run.
//!
//! A program finds its server's port in `PGIMBAL_PORT` and ends with the line `all done`. When the
//! test shall look at what the program left behind while its connections are still open, the
//! program prints a line `look at SOMETHING` and waits for a line on its standard input.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// Time limit of a program, which needs a few seconds on an idle machine.
const LIMIT: Duration = Duration::from_secs(120);

/// The directory into which `tests/set-up` installs: `PGIMBAL_CACHE`, or else `~/.cache/pgimbal`.
#[must_use]
pub fn cache() -> PathBuf {
    let home =
        || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache/pgimbal");
    std::env::var_os("PGIMBAL_CACHE").map_or_else(home, PathBuf::from)
}

fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn installed(path: PathBuf) -> PathBuf {
    assert!(path.exists(), "{} is missing: run tests/set-up", path.display());
    path
}

/// The command for `tests/clients/NAME` in the Python of the set-up.
///
/// # Panics
/// When the set-up has not run.
#[must_use]
pub fn python(name: &str) -> Command {
    let mut command = Command::new(installed(cache().join("python/bin/python")));
    command.arg(source("clients").join(name)).env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

/// The command for `tests/clients/NAME` in Debian's Python, which has the modules of Debian's
/// packages.
#[must_use]
pub fn system_python(name: &str) -> Command {
    let mut command = Command::new("/usr/bin/python3");
    command.arg(source("clients").join(name));
    command
}

/// The command for `tests/clients/NAME` in the machine's Node.js, with the modules of the set-up.
///
/// # Panics
/// When the set-up has not run.
#[must_use]
pub fn node(name: &str) -> Command {
    let mut command = Command::new("node");
    command.arg(source("clients").join(name));
    command.env("NODE_PATH", installed(cache().join("node/node_modules")));
    command
}

/// The command for `tests/clients/browser/NAME` in the machine's Node.js, which drives Chromium
/// with the modules of the set-up.
///
/// # Panics
/// When the set-up has not run.
#[must_use]
pub fn browser(name: &str) -> Command {
    let mut command = Command::new("node");
    command.arg(source("clients/browser").join(name));
    command.env("NODE_PATH", built("clients/browser/program"));
    command
}

/// The command for `tests/clients/NAME` in the machine's Ruby.
#[must_use]
pub fn ruby(name: &str) -> Command {
    let mut command = Command::new("ruby");
    command.arg(source("clients").join(name));
    command
}

/// The command for the program of `tests/migrators` with the driver `driver`.
///
/// # Panics
/// When the set-up has not built the program.
#[must_use]
pub fn migrators(driver: &str) -> Command {
    let mut command = Command::new(built("migrators/program"));
    command.arg(driver);
    command
}

/// The command for the Go clients of `tests/clients/go`.
///
/// # Panics
/// When the set-up has not built them.
#[must_use]
pub fn go_clients() -> Command {
    Command::new(built("clients/go/program"))
}

/// The command for a Woodpecker's use of its database, in `tests/clients/woodpecker`.
///
/// # Panics
/// When the set-up has not built it.
#[must_use]
pub fn woodpecker() -> Command {
    Command::new(built("clients/woodpecker/program"))
}

/// The command for Prisma with the schema of the example `name`, whose files are in `example`.
///
/// # Panics
/// When the set-up has not installed Prisma.
#[must_use]
pub fn prisma(name: &str, example: &Path) -> Command {
    let folder = PathBuf::from(built("clients/prisma/program"));
    let mut command = Command::new(folder.join("node"));
    command.arg(source("clients/with_prisma.mjs")).arg(name).arg(folder).arg(example);
    command
}

/// The command for `tests/clients/NAME`, a program of Prisma's.
///
/// # Panics
/// When the set-up has not installed Prisma.
#[must_use]
pub fn prisma_reads(name: &str) -> Command {
    let folder = PathBuf::from(built("clients/prisma/program"));
    let mut command = Command::new(folder.join("node"));
    command.arg(source("clients").join(name)).arg(folder);
    command
}

/// The command for the Java client of this class in `tests/clients/java`, with these options such
/// as `-Dname=value`.
///
/// # Panics
/// When the set-up has not built it.
#[must_use]
pub fn java(class: &str, properties: &[&str]) -> Command {
    java_in("java", class, properties)
}

/// The same in another folder of `tests/clients`.
///
/// # Panics
/// As [`java`].
#[must_use]
pub fn java_in(folder: &str, class: &str, properties: &[&str]) -> Command {
    let mut command = Command::new("java");
    // Enough for a client, and quick to start.
    command.args(["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]);
    let path = built(&format!("clients/{folder}/program"));
    command.args(properties).arg("-cp").arg(path).arg(class);
    command
}

/// The folder of a minimal Debian of this machine's release, which must be copied before it is
/// changed.
///
/// # Panics
/// When the set-up has not made it.
#[must_use]
pub fn minimal_debian() -> PathBuf {
    built("debian/program").into()
}

/// What `tests/PROGRAM` prints: where it has built something.
fn built(program: &str) -> String {
    let output = Command::new(source(program)).output().expect("a script");
    assert!(output.status.success(), "{}: run tests/set-up", source(program).display());
    String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
}

/// Runs `command` against `port`, which belongs to `whose`, to its end. `look` is called with
/// SOMETHING of each line `look at SOMETHING`. Returns the program's standard error.
///
/// # Panics
/// When the program fails, does not end with `all done`, or exceeds the time limit.
#[must_use]
pub fn converse(command: Command, whose: &str, port: u16, look: impl FnMut(&str)) -> String {
    converse_within(LIMIT, command, whose, port, look)
}

/// The same with another time limit, for a program that needs more.
///
/// # Panics
/// As [`converse`].
#[must_use]
pub fn converse_within(
    limit: Duration,
    mut command: Command,
    whose: &str,
    port: u16,
    mut look: impl FnMut(&str),
) -> String {
    command.env("PGIMBAL_PORT", port.to_string());
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("cannot start {:?}: {error}", command.get_program()));
    let pid = rustix::process::Pid::from_child(&child);
    let mut input = child.stdin.take();
    let (send, lines) = channel();
    let stdout = BufReader::new(child.stdout.take().expect("a pipe"));
    let reader = std::thread::spawn(move || {
        stdout.lines().map_while(Result::ok).for_each(|line| drop(send.send(line)));
    });
    let mut stderr = child.stderr.take().expect("a pipe");
    let errors = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = stderr.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    });
    let end = Instant::now() + limit;
    let mut said = String::new();
    let late = loop {
        match lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                said = format!("{said}{line}\n");
                if let Some(what) = line.strip_prefix("look at ") {
                    // A look that panics must not leave the program behind.
                    let looked =
                        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| look(what)));
                    if let Err(panic) = looked {
                        let _ = child.kill();
                        let _ = child.wait();
                        std::panic::resume_unwind(panic);
                    }
                    go_on(&mut input);
                }
            }
            Err(RecvTimeoutError::Disconnected) => break false,
            Err(RecvTimeoutError::Timeout) => break true,
        }
    };
    if late {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
    drop(input);
    let status = child.wait().expect("wait");
    reader.join().expect("a reader");
    let stderr = errors.join().expect("a reader");
    let program = format!("{:?} on {whose}", command.get_program());
    assert!(!late, "{program} took longer than {limit:?}\nstdout:\n{said}\nstderr:\n{stderr}");
    assert!(
        status.success() && said.ends_with("all done\n"),
        "{program} ended with {:?}\nstdout:\n{said}\nstderr:\n{stderr}",
        status.code()
    );
    stderr
}

fn go_on(input: &mut Option<ChildStdin>) {
    if let Some(input) = input {
        // One that has died says so by its exit code.
        let _ = input.write_all(b"\n");
    }
}
