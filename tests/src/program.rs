//! Programs of others (psql, pgbench, Python programs), run with a time limit.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The outcome of a program that has ended.
#[derive(Debug)]
pub struct Finished {
    /// Whether the exit code is 0.
    pub success: bool,
    /// The exit code; `None` when a signal killed the program.
    pub code: Option<i32>,
    /// The text of standard output.
    pub stdout: String,
    /// The text of standard error.
    pub stderr: String,
}

impl Finished {
    /// Asserts that the exit code is 0, and returns the outcome.
    ///
    /// # Panics
    /// When the exit code is another one; the message has both outputs.
    #[must_use]
    pub fn succeeded(self) -> Self {
        assert!(
            self.success,
            "exit {:?}\nstdout:\n{}\nstderr:\n{}",
            self.code, self.stdout, self.stderr
        );
        self
    }
}

/// Runs `command` to its end, with empty standard input.
///
/// # Panics
/// When the program cannot be started, or has not ended after `limit`.
pub fn run(command: &mut Command, limit: Duration) -> Finished {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("cannot start {:?}: {error}", command.get_program()));
    let pid = rustix::process::Pid::from_child(&child);
    let outputs = [drain(child.stdout.take()), drain(child.stderr.take())];
    let start = Instant::now();
    let mut late = false;
    let status = loop {
        if let Some(status) = child.try_wait().expect("wait") {
            break status;
        }
        if !late && start.elapsed() > limit {
            late = true;
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let [stdout, stderr] = outputs.map(|thread| thread.join().expect("a reader"));
    assert!(
        !late,
        "{:?} took longer than {limit:?}\nstdout:\n{stdout}\nstderr:\n{stderr}",
        command.get_program()
    );
    Finished { success: status.success(), code: status.code(), stdout, stderr }
}

fn drain(stream: Option<impl std::io::Read + Send + 'static>) -> std::thread::JoinHandle<String> {
    let mut stream = stream.expect("a pipe");
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// The last `count` lines of a log.
#[must_use]
pub fn tail(log: &str, count: usize) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

/// Prints the last lines of a log to standard error, where the test runner shows them.
pub fn print_tail(name: &str, log: &str) {
    eprintln!("--- {name}, last lines of its log ---\n{}", tail(log, 60));
}
