//! The console's tables and commands for the page on the HTTP port: the same rows, as JSON, and the
//! same commands.

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::Console;
use super::answer::{Cell, Column, Notices, Row};
use super::command::{Command, Show};
use super::credentials::CredentialCommand;
use super::nodes::ClusterCommand;
use crate::login::ConsoleRole;

/// Limit of rows of a table, so that an answer stays below a megabyte. The console has them all.
const ROWS: usize = 500;

/// Tables that are cheap to make: no worker is asked for its clients, and no replica for anything.
const CHEAP: [Show; 6] =
    [Show::Pools, Show::Nodes, Show::Failovers, Show::Credentials, Show::Budget, Show::Peers];

/// A command that the page offers, for one cluster or user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageCommand {
    /// HOLD of a cluster.
    Hold,
    /// RESUME of a cluster.
    Resume,
    /// REFRESH of a user's password.
    Refresh,
    /// REVOKE OLD of a user.
    RevokeOld,
}

/// What a command has come to.
#[derive(Debug, Serialize)]
pub struct Outcome {
    /// Whether it has done what it should on every replica.
    pub ok: bool,
    /// For each replica its name, and what it said.
    pub replicas: Vec<[String; 2]>,
    /// What is to be said beside that: a warning, or why nothing was done. May be empty.
    pub said: String,
}

impl PageCommand {
    /// The command of this name, in capitals as on the console; `None` for a command that the page
    /// does not offer.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let all = [Self::Hold, Self::Resume, Self::Refresh, Self::RevokeOld];
        all.into_iter().find(|command| command.name() == name)
    }

    /// Its name in capitals, as on the console.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hold => "HOLD",
            Self::Resume => "RESUME",
            Self::Refresh => "REFRESH",
            Self::RevokeOld => "REVOKE OLD",
        }
    }

    fn for_target(self, target: &str) -> Command {
        match self {
            Self::Hold => Command::Cluster(ClusterCommand::Hold(target.into())),
            Self::Resume => Command::Cluster(ClusterCommand::Resume(Some(target.into()))),
            Self::Refresh => Command::Credential(CredentialCommand::Refresh(target.into())),
            Self::RevokeOld => Command::Credential(CredentialCommand::RevokeOld(target.into())),
        }
    }
}

/// Runs the command of an administrator for `target`, a cluster or user, on all replicas as the
/// console does. The caller has checked the rights, and logs.
pub async fn run(console: &Console, command: PageCommand, target: &str) -> Outcome {
    let mut notices = Notices::default();
    let command = command.for_target(target);
    let done = console.run(command, ConsoleRole::Admin, &mut notices).await;
    let text = |cell: Option<&Cell>| match cell {
        Some(Cell::Text(text)) => text.clone(),
        _ => String::new(),
    };
    match done {
        Err(fault) => {
            let hint = fault.hint.map(|hint| format!(" {hint}")).unwrap_or_default();
            let said = format!("{}.{hint}", fault.message);
            Outcome { ok: false, replicas: Vec::new(), said }
        }
        Ok(rows) if rows.is_empty() => {
            let said = notices.texts();
            let name = console.collector.peers().own_name().to_owned();
            let ok = !notices.has_warning();
            let said = if said.is_empty() { "ok".to_owned() } else { said };
            Outcome { ok, replicas: vec![[name, said]], said: String::new() }
        }
        Ok(rows) => Outcome {
            ok: !notices.has_warning(),
            replicas: rows.iter().map(|row| [text(row.first()), text(row.get(1))]).collect(),
            said: notices.texts(),
        },
    }
}

/// The tables of this replica that are cheap to make, as a JSON object of `tables`, each with its
/// `columns`, `rows` and `left_out` (number of rows beyond 500), and of `notices`.
pub async fn tables(console: &Console) -> Value {
    let mut notices = Notices::default();
    let mut tables = Map::new();
    for show in CHEAP {
        let mut rows = console.show(show, &mut notices).await;
        if show == Show::Pools {
            // Who waits is what one looks for.
            rows.sort_by_key(|row| std::cmp::Reverse(number(show, row, "cl_waiting")));
        }
        tables.insert(show.name().to_ascii_lowercase(), table(show.columns(), rows));
    }
    json!({"tables": tables, "notices": notices.texts()})
}

/// The clients of this replica that an operator may have to do with, of the columns of SHOW
/// CLIENTS: those that are pinned, and those that have logged in with a password that is not the
/// user's newest. The longest pinned come first.
pub async fn sessions(console: &Console) -> Value {
    let mut notices = Notices::default();
    let credentials = console.show(Show::Credentials, &mut notices).await;
    let newest = |user: &Cell| {
        let rows = credentials.iter().filter(|row| cell(Show::Credentials, row, "user") == user);
        rows.map(|row| number(Show::Credentials, row, "generation")).max()
    };
    let is_old = |row: &Row| match cell(Show::Clients, row, "generation") {
        Cell::Int(generation) => {
            newest(cell(Show::Clients, row, "user")).is_some_and(|newest| *generation < newest)
        }
        _ => false,
    };
    let clients = console.show(Show::Clients, &mut notices).await;
    let old = clients.iter().filter(|row| is_old(row)).cloned().collect();
    let is_pinned = |row: &&Row| matches!(cell(Show::Clients, row, "pinned"), Cell::Text(why) if !why.is_empty());
    let mut pinned: Vec<Row> = clients.iter().filter(is_pinned).cloned().collect();
    pinned.sort_by_key(|row| std::cmp::Reverse(number(Show::Clients, row, "pinned_seconds")));
    let columns = Show::Clients.columns();
    json!({
        "tables": {"pinned": table(columns, pinned), "old_passwords": table(columns, old)},
        "notices": notices.texts(),
    })
}

/// SHOW BUDGET of all replicas, as [`tables`].
pub async fn replicas(console: &Console) -> Value {
    let mut notices = Notices::default();
    let all = Command::ShowAll(Show::Budget);
    let columns = all.columns(console.has_peers()).unwrap_or_default();
    // SHOW never fails.
    let rows = console.run_here(all, &mut notices).await.unwrap_or_default();
    json!({"tables": {"budget": table(&columns, rows)}, "notices": notices.texts()})
}

fn table(columns: &[Column], mut rows: Vec<Row>) -> Value {
    let left_out = rows.len().saturating_sub(ROWS);
    rows.truncate(ROWS);
    let columns: Vec<_> = columns.iter().map(Column::name).collect();
    json!({"columns": columns, "rows": rows, "left_out": left_out})
}

fn cell<'a>(show: Show, row: &'a Row, column: &str) -> &'a Cell {
    let index = show.columns().iter().position(|known| known.name() == column);
    index.and_then(|index| row.get(index)).unwrap_or(&Cell::Null)
}

fn number(show: Show, row: &Row, column: &str) -> i64 {
    match cell(show, row, column) {
        Cell::Int(number) => *number,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_those_of_the_console_and_a_target_is_only_a_name() {
        for name in ["HOLD", "RESUME", "REFRESH", "REVOKE OLD"] {
            let command = PageCommand::named(name).unwrap().for_target("a\"; SHUTDOWN");
            assert_eq!(command.tag(), name);
            assert_eq!(command.to_text(), format!("{name} \"a\"\"; SHUTDOWN\""));
            assert!(command.acts_on_all() && command.changes_something(), "{name}");
        }
        for name in ["SHUTDOWN", "KILL", "hold", "ADOPT NODE", ""] {
            assert_eq!(PageCommand::named(name), None, "{name}");
        }
    }

    #[test]
    fn columns_that_the_page_looks_for_are_there() {
        for (show, column) in [
            (Show::Pools, "cl_waiting"),
            (Show::Credentials, "user"),
            (Show::Credentials, "generation"),
            (Show::Clients, "user"),
            (Show::Clients, "generation"),
            (Show::Clients, "pinned"),
            (Show::Clients, "pinned_seconds"),
        ] {
            assert!(show.columns().iter().any(|known| known.name() == column), "{column}");
        }
    }

    #[test]
    fn more_rows_than_the_page_takes_are_counted() {
        let rows = vec![vec![Cell::Int(1)]; ROWS + 3];
        let table = table(&[super::super::answer::int("a")], rows);
        assert_eq!(table["rows"].as_array().unwrap().len(), ROWS);
        assert_eq!(table["left_out"], 3);
    }
}
