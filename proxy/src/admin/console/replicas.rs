//! What is asked of the other replicas for a command or a table of all, and what they answer.
//!
//! The rights of a user are checked where the user has logged in.

use std::fmt::Write;
use std::time::Duration;

use pgimbal_wire::error::Severity;
use serde::{Deserialize, Serialize};

use super::answer::{Cell, Column, Fault, Notices, Row, notice};
use crate::peers::{AskError, Kind, PeerStatus, Peers, SILENT};

/// How long a replica may take for a command: REFRESH asks a Vault, whose time limit is 5 s.
const PATIENCE: Duration = Duration::from_secs(15);
/// Bytes of rows in one answer: half of the 1 MiB of a body, as JSON may double texts.
const PAGE: usize = 500_000;
/// Limit of pages of one table: the rows of 100,000 clients and more.
const PAGES: usize = 64;

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
pub(super) struct RowsAsked {
    /// The SHOW.
    pub(super) show: String,
    /// Number of rows that have been answered already.
    pub(super) skip: usize,
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

/// Has every other replica run the command `text`, while `here` runs it on this one, and returns a
/// row for each. When it failed on all, the error is that of this one.
pub(super) async fn run_on_all(
    peers: &Peers,
    text: &str,
    here: impl Future<Output = Result<String, Fault>>,
    out: &mut Notices,
) -> Result<Vec<Row>, Fault> {
    let others = peers.ask_all(Kind::Command, text.as_bytes(), PATIENCE);
    let (here, others) = tokio::join!(here, others);
    let own = match &here {
        Ok(said) => Ok(said.clone()),
        Err(fault) => Err(fault.message.clone()),
    };
    let mut results = vec![(peers.own_name().to_owned(), own)];
    for (peer, answer) in others {
        let outcome = answer.map_err(|error| why(&peer, &error)).and_then(|body| read(&body));
        let result = outcome.and_then(|Outcome { ok, text }| if ok { Ok(text) } else { Err(text) });
        results.push((peer.name, result));
    }
    let failed = results.iter().filter(|(_, result)| result.is_err()).count();
    if failed == results.len()
        && let Err(fault) = here
    {
        return Err(fault);
    }
    if failed > 0 {
        let text = format!("{failed} of {} replicas did not do it", results.len());
        notice(out, Severity::Warning, &text);
    }
    let row = |(name, result): (String, Result<String, String>)| {
        vec![name.into(), result.unwrap_or_else(|why| format!("ERROR: {why}")).into()]
    };
    Ok(results.into_iter().map(row).collect())
}

/// The answer to a replica that has had this one run a command.
pub(super) fn outcome(done: Result<String, Fault>) -> Vec<u8> {
    let outcome = match done {
        Ok(text) => Outcome { ok: true, text },
        Err(fault) => Outcome { ok: false, text: fault.message },
    };
    write(&outcome)
}

/// The rows of the table `show` of this replica, which are `here`, and of all others, each after
/// its replica's name. A replica that gives none has a row without values, and a warning.
pub(super) async fn show_all(
    peers: &Peers,
    (show, columns): (&str, &[Column]),
    here: Vec<Row>,
    out: &mut Notices,
) -> Vec<Row> {
    let mut all = Vec::with_capacity(here.len());
    extend(&mut all, peers.own_name(), here);
    // The first page shows who answers at all.
    for (peer, answer) in peers.ask_all(Kind::Rows, &asked(show, 0), PATIENCE).await {
        let rows = match answer {
            Ok(body) => pages(peers, &peer, (show, columns), body.to_vec(), out).await,
            Err(error) => Err(why(&peer, &error)),
        };
        let rows = rows.unwrap_or_else(|why| {
            let text = format!("no rows from replica {}: {why}", peer.name);
            notice(out, Severity::Warning, &text);
            vec![vec![Cell::Null; columns.len()]]
        });
        extend(&mut all, &peer.name, rows);
    }
    all
}

fn extend(all: &mut Vec<Row>, name: &str, rows: Vec<Row>) {
    all.extend(rows.into_iter().map(|mut row| {
        row.insert(0, name.into());
        row
    }));
}

/// The rows of one replica, of which `body` is the first page.
async fn pages(
    peers: &Peers,
    peer: &PeerStatus,
    (show, columns): (&str, &[Column]),
    mut body: Vec<u8>,
    out: &mut Notices,
) -> Result<Vec<Row>, String> {
    let mut rows = Vec::new();
    for _ in 0..PAGES {
        let page: RowsAnswered = read(&body)?;
        if !page.notices.is_empty() && rows.is_empty() {
            let text = format!("replica {}: {}", peer.name, page.notices);
            notice(out, Severity::Warning, &text);
        }
        let is_last = !page.more || page.rows.is_empty();
        rows.extend(page.rows.into_iter().map(|row| fit(columns, &page.columns, &row)));
        let Some(instance) = peer.instance.filter(|_| !is_last) else { return Ok(rows) };
        let answer = peers.ask(instance, Kind::Rows, asked(show, rows.len()), PATIENCE).await;
        body = answer.map_err(|error| why(peer, &error))?.to_vec();
    }
    notice(out, Severity::Warning, &format!("replica {} has more rows", peer.name));
    Ok(rows)
}

fn asked(show: &str, skip: usize) -> Vec<u8> {
    write(&RowsAsked { show: show.to_owned(), skip })
}

/// The answer to a replica that asks for `rows`, as many as one answer has room for.
pub(super) fn page(columns: &[Column], rows: Vec<Row>, skip: usize, notices: &Notices) -> Vec<u8> {
    let columns = columns.iter().map(|column| column.name().to_owned()).collect();
    let mut page =
        RowsAnswered { columns, rows: Vec::new(), more: false, notices: notices.texts() };
    let mut size = page.notices.len();
    for row in rows.into_iter().skip(skip) {
        size += row.iter().map(Cell::size).sum::<usize>();
        if size > PAGE && !page.rows.is_empty() {
            page.more = true;
            break;
        }
        page.rows.push(row);
    }
    write(&page)
}

/// A row of another version's table, in this one's columns.
fn fit(columns: &[Column], names: &[String], row: &[Cell]) -> Row {
    let value = |column: &Column| {
        let index = names.iter().position(|name| name == column.name());
        index.and_then(|index| row.get(index)).cloned().unwrap_or(Cell::Null)
    };
    columns.iter().map(value).collect()
}

fn read<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, String> {
    serde_json::from_slice(body).map_err(|error| format!("its answer is none: {error}"))
}

/// A struct of texts and numbers can always be written.
fn write(message: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(message).unwrap_or_default()
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
    use super::super::answer::text;
    use super::*;

    #[test]
    fn rows_of_another_version_are_fitted_by_the_names_of_columns() {
        let (columns, names) = ([text("version")], ["version".to_owned(), "new".to_owned()]);
        let row = ["x".into(), Cell::Int(1)];
        assert_eq!(fit(&columns, &names, &row), ["x".into()]);
        assert_eq!(fit(&columns, &names[1..], &row[1..]), [Cell::Null]);
        assert_eq!(fit(&columns, &names, &[]), [Cell::Null]);
    }

    #[test]
    fn values_come_through_as_they_are() {
        let row = vec![Cell::Null, Cell::Int(-7), "7".into(), "null".into(), "".into()];
        let text = serde_json::to_string(&row).unwrap();
        assert_eq!(text, r#"[null,-7,"7","null",""]"#);
        assert_eq!(serde_json::from_str::<Vec<Cell>>(&text).unwrap(), row);
    }

    #[test]
    fn many_rows_are_answered_in_pages() {
        let columns = [text("a")];
        let rows: Vec<Row> = (0..3000).map(|n| vec![format!("{n:0>500}").into()]).collect();
        let (mut skip, mut pages) = (0, 0);
        loop {
            let bytes = page(&columns, rows.clone(), skip, &Notices::default());
            assert!(bytes.len() < 1 << 20);
            let page: RowsAnswered = read(&bytes).unwrap();
            assert_eq!(page.rows[0], rows[skip]);
            (skip, pages) = (skip + page.rows.len(), pages + 1);
            if !page.more {
                break;
            }
        }
        assert_eq!((skip, pages), (3000, 4));
    }
}
