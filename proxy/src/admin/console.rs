//! The console: the databases `pgimbal` and `pgbouncer`, to which any PostgreSQL client can
//! connect.
//!
//! This module owns the commands and the form of their answers; column names follow PgBouncer's
//! where the meaning is the same. It knows no pool: it asks the workers and the main task.

mod answer;
mod averages;
mod budget;
mod command;
mod connection;
mod connections;
mod control;
mod credentials;
mod explain;
mod extended;
mod hint;
mod nodes;
mod options;
mod peers;
mod renewal;
mod replicas;
mod session;
mod show;
mod stats;
pub mod view;

use std::io;
use std::sync::Arc;

use pgimbal_config::{Config, ReloadChanges};
use pgimbal_wire::error::{Severity, SqlState};
use tokio::sync::{mpsc, watch};

use crate::admin::collect::Collector;
use crate::login::{Authenticated, ConsoleRole};
use crate::peers::Asked;

use answer::{Fault, Notices, Row, notice};
use averages::Averages;
use command::Command;
pub use control::{Control, ControlRequest, MainTaskGone, Pace, ReloadRefused};
use replicas::RowsAsked;

/// The console: the state that all its sessions share.
#[derive(Debug)]
pub struct Console {
    collector: Collector,
    config: watch::Receiver<Arc<Config>>,
    control: Control,
    averages: Averages,
}

impl Console {
    /// Makes a console that asks the workers through `collector` and the main task through
    /// `control`. `config` holds the configuration in force.
    #[must_use]
    pub fn new(
        collector: Collector,
        config: watch::Receiver<Arc<Config>>,
        control: Control,
    ) -> Self {
        Self { collector, config, control, averages: Averages::default() }
    }

    /// Serves a client that has logged in to the console, until it disconnects. `address` is the
    /// client's address for the log, in which each command is a line. A client without admin rights
    /// may only run commands that change nothing.
    ///
    /// # Errors
    /// The error of the connection; [`io::ErrorKind::InvalidData`] when the client breaks the
    /// protocol, and [`io::ErrorKind::TimedOut`] when it does not read its answers.
    pub async fn serve(&self, client: Authenticated, address: String) -> io::Result<()> {
        session::Session::new(self, client, address).serve().await
    }

    /// Takes the counters once a minute for the averages of SHOW STATS, which are zero before the
    /// second time. It runs until the future is dropped, and must run once in the process.
    pub async fn keep_averages(&self) {
        self.averages.keep(&self.collector).await;
    }

    /// Runs `command`, on all replicas when it acts on all, and returns its rows. Notices go to
    /// `out`, ahead of the rows.
    async fn run(
        &self,
        command: Command,
        role: ConsoleRole,
        out: &mut Notices,
    ) -> Result<Vec<Row>, Fault> {
        if command.changes_something() && role != ConsoleRole::Admin {
            let fault = Fault::new(SqlState::INSUFFICIENT_PRIVILEGE, "permission denied");
            let who = "Only the users of admin_users may do this.";
            return Err(fault.hint(who));
        }
        if !self.has_peers() || !command.acts_on_all() {
            return self.run_here(command, out).await;
        }
        let text = command.to_text();
        replicas::run_on_all(self.collector.peers(), &text, self.outcome(command), out).await
    }

    /// Whether there are other replicas, or may be.
    fn has_peers(&self) -> bool {
        self.collector.peers().is_on()
    }

    /// Runs `command` on this replica alone and returns what it said, `ok` when it said nothing.
    async fn outcome(&self, command: Command) -> Result<String, Fault> {
        let mut notices = Notices::default();
        self.run_here(command, &mut notices).await?;
        let said = notices.texts();
        Ok(if said.is_empty() { "ok".to_owned() } else { said })
    }

    /// Serves what other replicas ask, until the process ends. None of it is forwarded again.
    pub async fn serve_peers(
        self: Arc<Self>,
        mut commands: mpsc::UnboundedReceiver<Asked>,
        mut rows: mpsc::UnboundedReceiver<Asked>,
    ) {
        loop {
            let (is_command, asked) = tokio::select! {
                Some(asked) = commands.recv() => (true, asked),
                Some(asked) = rows.recv() => (false, asked),
                else => return,
            };
            let console = Arc::clone(&self);
            tokio::spawn(async move {
                let answer = match is_command {
                    true => console.command_of_peer(&asked).await,
                    false => console.rows_for_peer(&asked.body).await,
                };
                asked.reply.send(answer);
            });
        }
    }

    async fn command_of_peer(&self, asked: &Asked) -> Result<Vec<u8>, String> {
        let command = match command::parse(&asked.body).as_deref() {
            Ok([command]) if command.acts_on_all() => command.clone(),
            Ok(_) => return Err("this command is not for all replicas".to_owned()),
            Err(fault) => return Err(fault.log_text().to_owned()),
        };
        let shown = command.to_string();
        let done = self.outcome(command).await;
        let result = done.as_ref().map_or_else(|fault| fault.log_text(), |_| "ok");
        tracing::info!(from = %asked.from, command = shown, result, "console of another replica");
        Ok(replicas::outcome(done))
    }

    async fn rows_for_peer(&self, body: &[u8]) -> Result<Vec<u8>, String> {
        let asked: RowsAsked = serde_json::from_slice(body).map_err(|error| error.to_string())?;
        let table = match command::parse(asked.show.as_bytes()).as_deref() {
            Ok([Command::Show(table)]) => *table,
            _ => return Err("this version has no such table".to_owned()),
        };
        let mut notices = Notices::default();
        let rows = self.show(table, &mut notices).await;
        Ok(replicas::page(table.columns(), rows, asked.skip, &notices))
    }

    /// Runs `command`, whose user may, on this replica alone.
    async fn run_here(&self, command: Command, out: &mut Notices) -> Result<Vec<Row>, Fault> {
        match command {
            Command::Show(table) => Ok(self.show(table, out).await),
            Command::ShowAll(table) => {
                let here = self.show(table, out).await;
                let show = Command::Show(table).to_string();
                let table = (&*show, table.columns());
                Ok(replicas::show_all(self.collector.peers(), table, here, out).await)
            }
            Command::Reload => self.reload(out).await,
            Command::Shutdown(pace) => {
                self.control.shutdown(pace).await?;
                Ok(vec![])
            }
            Command::Cluster(command) => command.run(self.collector.clusters(), out).await,
            Command::Credential(command) => command.run(self.collector.credentials(), out).await,
            Command::Renewal(command) => command.run(&self.config, &self.control, out).await,
            Command::ExplainRoute(statement) => explain::run(&statement, &self.control).await,
            // These concern the session alone.
            Command::Set
            | Command::Begin
            | Command::Commit
            | Command::Rollback
            | Command::Deallocate
            | Command::Discard => Ok(vec![]),
        }
    }

    /// A reload's outcome goes into notices, because the answer has no rows, as PgBouncer's.
    async fn reload(&self, out: &mut Notices) -> Result<Vec<Row>, Fault> {
        let reloaded = self.control.reload().await?.map_err(|refused| {
            Fault::new(SqlState::CONFIG_FILE_ERROR, refused.to_string())
                .hint("Nothing was changed. Correct the configuration and say RELOAD again.")
        })?;
        let ReloadChanges { applied, needs_restart } = reloaded;
        if applied.is_empty() && needs_restart.is_empty() {
            notice(out, Severity::Notice, "nothing has changed");
        }
        if !applied.is_empty() {
            notice(out, Severity::Notice, &format!("in force now: {}", applied.join(", ")));
        }
        if !needs_restart.is_empty() {
            let text = format!("need a restart: {}", needs_restart.join(", "));
            notice(out, Severity::Warning, &text);
        }
        Ok(vec![])
    }
}

impl From<MainTaskGone> for Fault {
    fn from(gone: MainTaskGone) -> Self {
        Self::new(SqlState::ADMIN_SHUTDOWN, gone.to_string())
    }
}

#[cfg(test)]
mod tests;
