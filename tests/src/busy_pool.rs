//! Busy connection pools in other people's languages, each in a process of its own.
//!
//! Each of their clients runs transactions, one after the other, which insert a row with an id of
//! its own into the table `done` (`NAME-CLIENT-NUMBER`) and do something more. A program gets
//! `PGIMBAL_PORT`, `BUSY_NAME`, `BUSY_CLIENTS` and `BUSY_PAUSE` (seconds between two transactions),
//! and logs in to the database `app` as `BUSY_USER` with `BUSY_PASSWORD` (as `app` unless they are
//! set). It prints `busy` when each client has had a transaction, stops when its standard input is
//! closed, and then prints `acknowledged A errors E failed F`: transactions whose COMMIT was
//! answered, errors that the application saw, and clients that saw one. Errors are on standard
//! error.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};

use crate::leash::Leash;
use crate::process::{self, Directory};

/// A running program.
pub struct BusyPool {
    name: String,
    process: Child,
    output: BufReader<ChildStdout>,
    directory: Directory,
    leash: Option<Leash>,
}

/// What the clients of a pool have seen.
#[derive(Debug)]
pub struct Seen {
    /// The name of the pool.
    pub name: String,
    /// Transactions whose COMMIT was answered.
    pub acknowledged: u64,
    /// Errors that the application saw.
    pub errors: u64,
    /// Clients that saw an error.
    pub failed: u64,
    /// What the errors were.
    pub texts: String,
}

impl BusyPool {
    /// Starts `command` as the pool `name` of this many clients, which come to `port` and pause for
    /// about `pause` seconds between two transactions.
    ///
    /// # Panics
    /// When the program cannot be started.
    #[must_use]
    pub fn start(name: &str, mut command: Command, port: u16, clients: u32, pause: f64) -> Self {
        let directory = process::directory("busy");
        let errors = std::fs::File::create(directory.join("errors")).expect("a file");
        let mut process = command
            .env("PGIMBAL_PORT", port.to_string())
            .env("BUSY_NAME", name)
            .env("BUSY_CLIENTS", clients.to_string())
            .env("BUSY_PAUSE", pause.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(errors)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {:?}: {error}", command.get_program()));
        let output = BufReader::new(process.stdout.take().expect("a pipe"));
        let leash = Some(Leash::start("kill -9 \"$0\"", [process.id().to_string()]));
        Self { name: name.to_owned(), process, output, directory, leash }
    }

    /// Waits until each client has had a transaction.
    ///
    /// # Panics
    /// When the program ends instead.
    pub fn wait_until_busy(&mut self) {
        assert_eq!(self.line(), "busy", "{}: {}", self.name, self.errors());
    }

    /// Stops the clients, each behind its transaction, and returns what they have seen.
    ///
    /// # Panics
    /// When the program does not tell.
    #[must_use]
    pub fn stop(mut self) -> Seen {
        drop(self.process.stdin.take());
        let line = self.line();
        let words: Vec<&str> = line.split(' ').collect();
        let ["acknowledged", acknowledged, "errors", errors, "failed", failed] = words[..] else {
            panic!("{}: {line}\n{}", self.name, self.errors())
        };
        let number = |word: &str| word.parse().expect("a number");
        Seen {
            name: self.name.clone(),
            acknowledged: number(acknowledged),
            errors: number(errors),
            failed: number(failed),
            texts: self.errors(),
        }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("a line");
        line.trim_end().to_owned()
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the errors were up to now.
    #[must_use]
    pub fn errors(&self) -> String {
        std::fs::read_to_string(self.directory.join("errors")).unwrap_or_default()
    }
}

impl Drop for BusyPool {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        self.leash = None;
    }
}
