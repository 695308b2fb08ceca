//! Commands and tables of all replicas: what is asked of the others, and what they are answered.
//!
//! The rights of a user are checked where the user has logged in. What comes from another replica is
//! never forwarded again.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use pgimbal_wire::error::Severity;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::Console;
use super::answer::{Cell, Column, Fault, Notices, Row, int, notice, text};
use super::command::{self, Command, Show};
use crate::admin::collect::Phase;
use crate::peers::{AskError, Asked, Kind, PeerStatus, SILENT};

/// How long a replica may take for a command: REFRESH asks a Vault, whose time limit is 5 s.
const PATIENCE: Duration = Duration::from_secs(15);
/// Bytes of rows in one answer: half of the 1 MiB of a body, as JSON may double texts.
const PAGE: usize = 500_000;
/// Limit of pages of one table: the rows of 100,000 clients and more.
const PAGES: usize = 64;

/// The answer of a command that acts on all replicas.
pub(super) const RESULTS: &[Column] = &[text("replica"), text("result")];

pub(super) const PEERS: &[Column] = &[
    text("replica"),
    text("instance"),
    text("address"),
    int("peer_id"),
    text("version"),
    text("state"),
    text("ready"),
    int("heard_ms"),
    text("why"),
];

/// PgBouncer's columns, and no others.
pub(super) const PGBOUNCER_PEERS: &[Column] =
    &[int("peer_id"), text("host"), int("port"), int("pool_size")];

/// The column that rows of several replicas begin with.
pub(super) const REPLICA: Column = text("replica");

/// What a replica has answered to a command.
#[derive(Serialize, Deserialize)]
struct Outcome {
    /// Whether the command has done what it should.
    ok: bool,
    /// What it said.
    text: String,
}

/// A request for the rows of a table.
#[derive(Serialize, Deserialize)]
struct RowsAsked {
    /// The SHOW.
    show: String,
    /// Rows that have been answered already.
    skip: usize,
}

/// Some rows of a table.
#[derive(Serialize, Deserialize)]
struct RowsAnswered {
    columns: Vec<String>,
    rows: Vec<Vec<Cell>>,
    /// Whether there are more.
    more: bool,
    /// What else the replica said.
    notices: String,
}

impl Console {
    /// Runs a command on this replica and all others, and returns a row for each. When it failed on
    /// all, the error is that of this one.
    pub(super) async fn run_on_all(
        &self,
        command: Command,
        out: &mut Notices,
    ) -> Result<Vec<Row>, Fault> {
        let peers = self.collector.peers();
        let text = command.to_text();
        let (here, others) = tokio::join!(
            self.outcome_here(command),
            peers.ask_all(Kind::Command, text.as_bytes(), PATIENCE)
        );
        let (ok, result) = match &here {
            Ok(said) => (true, said.clone()),
            Err(fault) => (false, format!("ERROR: {}", fault.message)),
        };
        let mut results = vec![(peers.own_name().to_owned(), ok, result)];
        for (peer, answer) in others {
            let outcome = answer.map_err(|error| why(&peer, &error)).and_then(|body| {
                serde_json::from_slice(&body)
                    .map_err(|error| format!("its answer is none: {error}"))
            });
            let (ok, result) = match outcome {
                Ok(Outcome { ok: true, text }) => (true, text),
                Ok(Outcome { ok: false, text }) | Err(text) => (false, format!("ERROR: {text}")),
            };
            results.push((peer.name, ok, result));
        }
        let failed = results.iter().filter(|(_, ok, _)| !ok).count();
        if failed == results.len()
            && let Err(fault) = here
        {
            return Err(fault);
        }
        if failed > 0 {
            let text = format!("{failed} of {} replicas did not do it", results.len());
            notice(out, Severity::Warning, &text);
        }
        let row = |(name, _, result): (String, bool, String)| vec![name.into(), result.into()];
        Ok(results.into_iter().map(row).collect())
    }

    /// Runs a command on this replica alone and returns what it said, `ok` when it said nothing.
    async fn outcome_here(&self, command: Command) -> Result<String, Fault> {
        let mut notices = Notices::default();
        self.run_here(command, &mut notices).await?;
        let said = notices.texts();
        Ok(if said.is_empty() { "ok".to_owned() } else { said })
    }

    /// The rows of a table of this replica and all others, each after its name. A replica that
    /// gives none has a row without values, and a warning.
    pub(super) async fn show_all(&self, table: Show, out: &mut Notices) -> Vec<Row> {
        let peers = self.collector.peers();
        let columns = table.columns();
        let mut all: Vec<Row> = self.show(table, out).await;
        let own: Cell = peers.own_name().into();
        all.iter_mut().for_each(|row| row.insert(0, own.clone()));
        // The first page shows who answers at all.
        let first = asked(table, 0);
        for (peer, answer) in peers.ask_all(Kind::Rows, &first, PATIENCE).await {
            let answer = answer.map_err(|error| why(&peer, &error));
            let rows = match answer {
                Ok(body) => self.pages(table, &peer, body.to_vec(), out).await,
                Err(why) => Err(why),
            };
            let name: Cell = peer.name.as_str().into();
            match rows {
                Ok(rows) => all.extend(rows.into_iter().map(|mut row| {
                    row.insert(0, name.clone());
                    row
                })),
                Err(why) => {
                    let text = format!("no rows from replica {}: {why}", peer.name);
                    notice(out, Severity::Warning, &text);
                    let mut row = vec![Cell::Null; columns.len()];
                    row.insert(0, name);
                    all.push(row);
                }
            }
        }
        all
    }

    /// The rows of one replica, of which `body` is the first page.
    async fn pages(
        &self,
        table: Show,
        peer: &PeerStatus,
        mut body: Vec<u8>,
        out: &mut Notices,
    ) -> Result<Vec<Row>, String> {
        let mut rows = Vec::new();
        for _ in 0..PAGES {
            let page: RowsAnswered = serde_json::from_slice(&body)
                .map_err(|error| format!("its answer is none: {error}"))?;
            if !page.notices.is_empty() && rows.is_empty() {
                let text = format!("replica {}: {}", peer.name, page.notices);
                notice(out, Severity::Warning, &text);
            }
            let is_empty = page.rows.is_empty();
            rows.extend(page.rows.into_iter().map(|row| fit(table, &page.columns, row)));
            if !page.more || is_empty {
                return Ok(rows);
            }
            let Some(instance) = peer.instance else { return Ok(rows) };
            let next = asked(table, rows.len());
            let answer = self.collector.peers().ask(instance, Kind::Rows, next, PATIENCE).await;
            body = answer.map_err(|error| why(peer, &error))?.to_vec();
        }
        notice(out, Severity::Warning, &format!("replica {} has more rows", peer.name));
        Ok(rows)
    }

    /// Serves what other replicas ask of the console, until the process ends.
    pub async fn serve_peers(
        self: Arc<Self>,
        mut commands: mpsc::Receiver<Asked>,
        mut rows: mpsc::Receiver<Asked>,
    ) {
        loop {
            let (kind, asked) = tokio::select! {
                Some(asked) = commands.recv() => (Kind::Command, asked),
                Some(asked) = rows.recv() => (Kind::Rows, asked),
                else => return,
            };
            let console = Arc::clone(&self);
            tokio::spawn(async move {
                let answer = match kind {
                    Kind::Rows => console.rows_for_peer(&asked.body).await,
                    _ => console.command_of_peer(&asked).await,
                };
                // The peer may have gone.
                let _ = asked.reply.send(answer);
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
        let outcome = match self.outcome_here(command).await {
            Ok(text) => Outcome { ok: true, text },
            Err(fault) => Outcome { ok: false, text: fault.message },
        };
        let result = if outcome.ok { "ok" } else { &outcome.text };
        tracing::info!(replica = %asked.from, command = shown, result, "console of a replica");
        Ok(serde_json::to_vec(&outcome).unwrap_or_default())
    }

    async fn rows_for_peer(&self, body: &[u8]) -> Result<Vec<u8>, String> {
        let asked: RowsAsked = serde_json::from_slice(body).map_err(|error| error.to_string())?;
        let table = match command::parse(asked.show.as_bytes()).as_deref() {
            Ok([Command::Show(table)]) => *table,
            _ => return Err("this version has no such table".to_owned()),
        };
        let mut notices = Notices::default();
        let mut rows = self.show(table, &mut notices).await.into_iter().skip(asked.skip).peekable();
        let columns = table.columns().iter().map(|column| column.name().to_owned()).collect();
        let mut page =
            RowsAnswered { columns, rows: Vec::new(), more: false, notices: notices.texts() };
        let mut size = page.notices.len();
        while let Some(row) = rows.peek() {
            size += row.iter().map(Cell::size).sum::<usize>();
            if size > PAGE && !page.rows.is_empty() {
                page.more = true;
                break;
            }
            page.rows.extend(rows.next());
        }
        Ok(serde_json::to_vec(&page).unwrap_or_default())
    }

    /// The rows of SHOW PEERS: this replica, then the others.
    pub(super) fn peers(&self) -> Vec<Row> {
        let peers = self.collector.peers();
        let own = peers.instance().map(|instance| -> Row {
            let ready = self.collector.process().phase() == Phase::Serving;
            vec![
                peers.own_name().into(),
                instance.to_string().into(),
                Cell::Null,
                peers.peer_id().map(u32::from).into(),
                env!("CARGO_PKG_VERSION").into(),
                "self".into(),
                yes(ready).into(),
                Cell::Null,
                "".into(),
            ]
        });
        let other = |peer: PeerStatus| -> Row {
            let state = match (peer.instance, peer.is_alive()) {
                (None, _) => "unreachable",
                (Some(_), true) => "alive",
                (Some(_), false) => "silent",
            };
            vec![
                peer.name.as_str().into(),
                peer.instance.map(|instance| instance.to_string()).as_deref().into(),
                peer.address.to_string().into(),
                peer.peer_id.map(u32::from).into(),
                peer.version.as_str().into(),
                state.into(),
                peer.instance.map(|_| yes(peer.ready)).into(),
                peer.heard.map_or(Cell::Null, |heard| (heard.as_millis() as u64).into()),
                peer.why.as_str().into(),
            ]
        };
        own.into_iter().chain(peers.members().into_iter().map(other)).collect()
    }

    /// The rows of PgBouncer's SHOW PEERS: the others that have a peer id. No pool of connections
    /// to them has a size.
    pub(super) fn pgbouncer_peers(&self) -> Vec<Row> {
        let row = |peer: PeerStatus| -> Option<Row> {
            let host = peer.address.ip().to_string();
            let port = u32::from(peer.address.port());
            Some(vec![u32::from(peer.peer_id?).into(), host.into(), port.into(), Cell::Null])
        };
        self.collector.peers().members().into_iter().filter_map(row).collect()
    }

    /// Whether there are other replicas, or may be.
    pub(super) fn has_peers(&self) -> bool {
        self.collector.peers().is_on()
    }
}

fn yes(is: bool) -> &'static str {
    if is { "yes" } else { "no" }
}

fn asked(table: Show, skip: usize) -> Vec<u8> {
    let asked = RowsAsked { show: Command::Show(table).to_string(), skip };
    // A struct of texts and numbers can always be written.
    serde_json::to_vec(&asked).unwrap_or_default()
}

/// A row of another version's table, in this one's columns.
fn fit(table: Show, columns: &[String], row: Vec<Cell>) -> Row {
    let value = |column: &Column| {
        let index = columns.iter().position(|name| name == column.name());
        index.and_then(|index| row.get(index)).cloned().unwrap_or(Cell::Null)
    };
    table.columns().iter().map(value).collect()
}

/// Why a replica has not answered, with the time of its silence.
fn why(peer: &PeerStatus, error: &AskError) -> String {
    let mut text = error.to_string();
    if let (AskError::Silent, Some(heard)) = (error, peer.heard) {
        // Writing to a String cannot fail.
        let _ = write!(text, " for {} s", heard.max(SILENT).as_secs());
    }
    if *error == AskError::Timeout {
        text.push_str("; it may still do it");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_another_version_are_fitted_by_the_names_of_columns() {
        let names = ["version".to_owned(), "new".to_owned()];
        assert_eq!(fit(Show::Version, &names, vec!["x".into(), Cell::Int(1)]), ["x".into()]);
        assert_eq!(fit(Show::Version, &names[1..], vec![Cell::Int(1)]), [Cell::Null]);
        assert_eq!(fit(Show::Version, &names, vec![]), [Cell::Null]);
    }

    #[test]
    fn values_come_through_as_they_are() {
        let row = vec![Cell::Null, Cell::Int(-7), "7".into(), "null".into(), "".into()];
        let text = serde_json::to_string(&row).unwrap();
        assert_eq!(text, r#"[null,-7,"7","null",""]"#);
        assert_eq!(serde_json::from_str::<Vec<Cell>>(&text).unwrap(), row);
    }
}
