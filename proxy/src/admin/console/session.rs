//! A session on the console, in the simple and the extended query protocol.
//!
//! This module owns the order of the answers; commands are run by `Console::run`.

use std::io;

use pgimbal_wire::encode::{self, TransactionStatus};
use pgimbal_wire::error::SqlState;
use pgimbal_wire::tag::{backend, frontend};

use super::Console;
use super::answer::{self, Fault, Formats, Notices};
use super::command::{self, Command};
use super::connection::{ConsoleConnection, Ended, protocol};
use super::extended::Extended;
use crate::login::{Authenticated, ConsoleRole};

/// The `server_version` that clients are sent. It is the oldest maintained version of PostgreSQL,
/// because psql warns of servers newer than itself.
const SERVER_VERSION: &str = concat!("14.0 (pgimbal ", env!("CARGO_PKG_VERSION"), ")");

/// A session on the console.
pub(super) struct Session<'a> {
    console: &'a Console,
    role: ConsoleRole,
    user: Box<str>,
    /// Whether the client's database is `pgbouncer`, where tables have PgBouncer's columns.
    is_pgbouncer: bool,
    /// The client's address, for the log.
    address: String,
    link: ConsoleConnection,
    transaction: TransactionStatus,
    extended: Extended,
    /// After an error in the extended protocol everything up to Sync is dropped.
    skips: bool,
}

/// The most of an unknown command's first word that is logged.
const LONGEST_WORD: usize = 20;

/// Whether the session goes on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    GoesOn,
    Leaves,
}

impl<'a> Session<'a> {
    /// Begins the session of `client`, with the messages of a successful login in its output.
    pub(super) fn new(console: &'a Console, client: Authenticated, address: String) -> Self {
        // Whoever hands over a client without a role has made a mistake; it may only look.
        let role = client.console.unwrap_or(ConsoleRole::Stats);
        let is_pgbouncer = &*client.database == "pgbouncer";
        let mut output = client.pending_output;
        greet(&mut output, role, &client.user);
        Self {
            console,
            role,
            user: client.user,
            address,
            link: ConsoleConnection::new(client.transport, client.residual, output),
            transaction: TransactionStatus::Idle,
            extended: Extended::new(is_pgbouncer, console.has_peers()),
            is_pgbouncer,
            skips: false,
        }
    }

    /// Serves the session until the client disconnects or breaks the protocol, one message after
    /// the other; each command is logged with its outcome.
    pub(super) async fn serve(mut self) -> io::Result<()> {
        loop {
            let step = match self.link.next().await {
                Ok((tag, body)) => self.message(tag, &body).await,
                Err(ended) => Err(ended),
            };
            match step {
                Ok(Next::GoesOn) => {}
                Ok(Next::Leaves) | Err(Ended::Closed) => return self.link.shut_down().await,
                Err(Ended::Io(err)) => return Err(err),
                Err(Ended::Refused(fault)) => {
                    fault.encode_fatal(&mut self.link.output);
                    self.link.flush().await?;
                    self.link.shut_down().await?;
                    return Err(io::Error::new(io::ErrorKind::InvalidData, fault.message));
                }
            }
        }
    }

    async fn message(&mut self, tag: u8, body: &[u8]) -> Result<Next, Ended> {
        match tag {
            frontend::TERMINATE => return Ok(Next::Leaves),
            frontend::SYNC => {
                self.skips = false;
                self.extended.sync(self.transaction);
                self.ready();
            }
            _ if self.skips => {}
            frontend::QUERY => {
                let Some((0, text)) = body.split_last() else {
                    return Err(Ended::Refused(protocol("invalid message format")));
                };
                self.extended.forget_unnamed();
                if let Err(fault) = self.query(text).await {
                    self.fail(&fault);
                }
                self.ready();
            }
            frontend::FLUSH => self.link.flush().await?,
            frontend::PARSE
            | frontend::BIND
            | frontend::DESCRIBE
            | frontend::EXECUTE
            | frontend::CLOSE => {
                if let Err(fault) = self.request(tag, body).await {
                    self.fail(&fault);
                    self.skips = true;
                }
            }
            // PostgreSQL drops what comes late from a COPY that failed.
            frontend::COPY_DATA | frontend::COPY_DONE | frontend::COPY_FAIL => {}
            frontend::FUNCTION_CALL => {
                self.fail(&Fault::new(
                    SqlState::FEATURE_NOT_SUPPORTED,
                    "the console has no functions",
                ));
                self.ready();
            }
            _ => {
                let fault = protocol(format!("invalid frontend message type {tag}"));
                return Err(Ended::Refused(fault));
            }
        }
        Ok(Next::GoesOn)
    }

    /// A simple query: all of its commands, until one fails.
    async fn query(&mut self, text: &[u8]) -> Result<(), Fault> {
        let mut commands = self.parse(text)?;
        if self.is_pgbouncer {
            commands = commands.into_iter().map(Command::of_pgbouncer).collect();
        }
        if commands.is_empty() {
            encode::message(&mut self.link.output, backend::EMPTY_QUERY_RESPONSE, |_| {});
        }
        for command in commands {
            let rows = self.run(command.clone()).await?;
            if let Some(columns) = command.columns(self.console.has_peers()) {
                answer::describe(&mut self.link.output, &columns, &Formats::Text);
            }
            for row in &rows {
                answer::row(&mut self.link.output, row, &Formats::Text);
            }
            self.complete(&command);
        }
        Ok(())
    }

    /// A request of the extended protocol; only Execute runs something.
    async fn request(&mut self, tag: u8, body: &[u8]) -> Result<(), Fault> {
        if tag != frontend::EXECUTE {
            let prepared = self.extended.prepare(tag, body, &mut self.link.output);
            if let (frontend::PARSE, Err(fault)) = (tag, &prepared) {
                self.log(&"a prepared command", Err(fault));
            }
            return prepared;
        }
        let execute = self.extended.execute(body)?;
        let Some(command) = execute.to_run.clone() else {
            self.extended.rows(execute, &mut self.link.output);
            return Ok(());
        };
        let rows = self.run(command.clone()).await?;
        self.extended.hold(&execute, rows);
        if self.extended.rows(execute, &mut self.link.output) {
            // The command's tag was written: it is done.
            self.follow(&command);
        }
        Ok(())
    }

    async fn run(&mut self, command: Command) -> Result<Vec<answer::Row>, Fault> {
        let ends = matches!(command, Command::Commit | Command::Rollback);
        if self.transaction == TransactionStatus::Failed && !ends {
            return Err(Fault::new(
                SqlState::IN_FAILED_SQL_TRANSACTION,
                "current transaction is aborted, commands ignored until end of transaction block",
            ));
        }
        let mut notices = Notices::default();
        let done = self.console.run(command.clone(), self.role, &mut notices).await;
        notices.encode(&mut self.link.output);
        if !command.is_of_drivers() {
            self.log(&command, done.as_ref().map(|_| ()));
        }
        done
    }

    fn parse(&self, text: &[u8]) -> Result<Vec<Command>, Fault> {
        command::parse(text).inspect_err(|fault| {
            // No more than the first word of what is not known: there may be a password in it.
            let word: &[u8] =
                text.trim_ascii().split(|b| !b.is_ascii_alphabetic()).next().unwrap_or(b"");
            let word = word[..word.len().min(LONGEST_WORD)].escape_ascii();
            self.log(&word, Err(fault));
        })
    }

    /// Logs a command with its user and outcome.
    fn log(&self, command: &dyn std::fmt::Display, done: Result<(), &Fault>) {
        let result = match done {
            Ok(()) => "ok".to_owned(),
            Err(fault) => format!("{}: {}", fault.code.as_str(), fault.log_text()),
        };
        let (user, peer) = (&self.user, &self.address);
        tracing::info!(%user, %peer, %command, %result, "console");
    }

    fn complete(&mut self, command: &Command) {
        encode::command_complete(&mut self.link.output, command.tag());
        self.follow(command);
    }

    /// Applies the effects of a command on the session. BEGIN and COMMIT change the transaction
    /// status, because drivers rely on it; no command of the console can be undone.
    fn follow(&mut self, command: &Command) {
        match command {
            Command::Begin => self.transaction = TransactionStatus::InTransaction,
            Command::Commit | Command::Rollback => self.transaction = TransactionStatus::Idle,
            Command::Deallocate | Command::Discard => self.extended.deallocate_all(),
            Command::Show(_)
            | Command::ShowAll(_)
            | Command::Reload
            | Command::Shutdown(_)
            | Command::Cluster(_)
            | Command::Credential(_)
            | Command::Renewal(_)
            | Command::ExplainRoute(_)
            | Command::Set => {}
        }
    }

    fn fail(&mut self, fault: &Fault) {
        fault.encode(&mut self.link.output);
        if self.transaction == TransactionStatus::InTransaction {
            self.transaction = TransactionStatus::Failed;
        }
    }

    fn ready(&mut self) {
        encode::ready_for_query(&mut self.link.output, self.transaction);
    }
}

/// Appends the first messages of a session. libpq, JDBC and others read all of these settings.
fn greet(out: &mut Vec<u8>, role: ConsoleRole, user: &str) {
    let superuser = if role == ConsoleRole::Admin { "on" } else { "off" };
    for (name, value) in [
        ("server_version", SERVER_VERSION),
        ("server_encoding", "UTF8"),
        ("client_encoding", "UTF8"),
        ("DateStyle", "ISO, MDY"),
        ("IntervalStyle", "postgres"),
        ("TimeZone", "UTC"),
        ("integer_datetimes", "on"),
        ("standard_conforming_strings", "on"),
        ("default_transaction_read_only", "off"),
        ("in_hot_standby", "off"),
        ("is_superuser", superuser),
        ("session_authorization", user),
    ] {
        encode::parameter_status(out, name.as_bytes(), value.as_bytes());
    }
    // Commands end at once, so that there is nothing to cancel: nobody has this key.
    encode::backend_key_data(out, 0, &[0; 4]);
    encode::ready_for_query(out, TransactionStatus::Idle);
}
