//! The prepared statements and portals of a console session, for drivers that use the extended
//! query protocol only.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::vec::IntoIter;

use pgimbal_wire::encode::{self, TransactionStatus};
use pgimbal_wire::error::SqlState;
use pgimbal_wire::extended::{Bind, Execute, Malformed, Parse, StatementOrPortal};
use pgimbal_wire::tag::{backend, frontend};

use super::answer::{self, Fault, Formats, Row};
use super::command::{self, Command};
use super::connection::protocol;

/// Limit of a session's prepared statements; there are a dozen commands.
const STATEMENTS_LIMIT: usize = 256;
/// Limit of a session's portals, each of which may keep a row for every client.
const PORTALS_LIMIT: usize = 16;

/// A session's prepared statements and portals.
#[derive(Debug)]
pub(super) struct Extended {
    is_pgbouncer: bool,
    has_peers: bool,
    /// `None` is the empty text.
    statements: HashMap<Vec<u8>, Option<Command>>,
    portals: HashMap<Vec<u8>, Portal>,
}

#[derive(Debug)]
struct Portal {
    command: Option<Command>,
    formats: Formats,
    /// What is still to be sent, once the command has run.
    rows: Option<IntoIter<Row>>,
}

/// An Execute message that was read.
#[derive(Debug)]
pub(super) struct Execution {
    portal: Vec<u8>,
    /// 0 for all rows.
    row_limit: usize,
    /// The portal's command; `None` when it has run already.
    pub(super) to_run: Option<Command>,
}

impl Extended {
    /// Those of a new session: none. `is_pgbouncer` says that its database is `pgbouncer`, and
    /// `has_peers` that there are other replicas.
    pub(super) fn new(is_pgbouncer: bool, has_peers: bool) -> Self {
        let (statements, portals) = (HashMap::new(), HashMap::new());
        Self { is_pgbouncer, has_peers, statements, portals }
    }

    /// Answers a Parse, Bind, Describe or Close (any other `tag` counts as Close); runs no command.
    ///
    /// # Errors
    /// [`Fault`] of a malformed message, an unknown command, statement or portal, or a name in use.
    pub(super) fn prepare(&mut self, tag: u8, body: &[u8], out: &mut Vec<u8>) -> Result<(), Fault> {
        match tag {
            frontend::PARSE => self.parse(body, out),
            frontend::BIND => self.bind(body, out),
            frontend::DESCRIBE => self.describe(body, out),
            _ => self.close(body, out),
        }
    }

    /// Reads an Execute; the caller runs its command, if there is one, and gives its rows to
    /// [`Self::hold`].
    ///
    /// # Errors
    /// [`Fault`] when the message is malformed, or there is no such portal.
    pub(super) fn execute(&self, body: &[u8]) -> Result<Execution, Fault> {
        let name = whole(Execute::view(body, body.len()))?.portal;
        let limit = body.last_chunk().map_or(0, |limit| i32::from_be_bytes(*limit));
        let portal = self.portals.get(name).ok_or_else(|| no_portal(name))?;
        Ok(Execution {
            portal: name.to_vec(),
            row_limit: usize::try_from(limit).unwrap_or(0),
            to_run: portal.command.clone().filter(|_| portal.rows.is_none()),
        })
    }

    /// Keeps the rows of the portal's command.
    pub(super) fn hold(&mut self, execution: &Execution, rows: Vec<Row>) {
        if let Some(portal) = self.portals.get_mut(&execution.portal) {
            portal.rows = Some(rows.into_iter());
        }
    }

    /// Appends the portal's next rows, as many as the Execute asks for. Returns `true` when these
    /// were the last and CommandComplete follows them; `false` after PortalSuspended,
    /// EmptyQueryResponse, or for a portal that is gone.
    pub(super) fn rows(&mut self, execution: Execution, out: &mut Vec<u8>) -> bool {
        let Some(portal) = self.portals.get_mut(&execution.portal) else { return false };
        let Some(command) = &portal.command else {
            encode::message(out, backend::EMPTY_QUERY_RESPONSE, |_| {});
            return false;
        };
        if let Some(rows) = &mut portal.rows {
            let limit = if execution.row_limit == 0 { usize::MAX } else { execution.row_limit };
            rows.take(limit).for_each(|row| answer::row(out, &row, &portal.formats));
            if rows.len() > 0 {
                encode::message(out, backend::PORTAL_SUSPENDED, |_| {});
                return false;
            }
        }
        encode::command_complete(out, command.tag());
        true
    }

    /// Closes all portals, as Sync does; in a transaction block, also a failed one, they stay.
    pub(super) fn sync(&mut self, transaction: TransactionStatus) {
        if transaction == TransactionStatus::Idle {
            self.portals.clear();
        }
    }

    /// Drops the unnamed statement and portal, as a simple query does.
    pub(super) fn forget_unnamed(&mut self) {
        self.statements.remove(&b""[..]);
        self.portals.remove(&b""[..]);
    }

    /// Drops every prepared statement (DEALLOCATE ALL and DISCARD ALL); portals stay.
    pub(super) fn deallocate_all(&mut self) {
        self.statements.clear();
    }

    fn parse(&mut self, body: &[u8], out: &mut Vec<u8>) -> Result<(), Fault> {
        let parse = whole(Parse::view(body, body.len()))?;
        let commands = command::parse(parse.text)?;
        if commands.len() > 1 {
            return Err(Fault::new(
                SqlState::SYNTAX_ERROR,
                "cannot insert multiple commands into a prepared statement",
            ));
        }
        let full = self.statements.len() >= STATEMENTS_LIMIT;
        match self.statements.entry(parse.name.to_vec()) {
            Entry::Occupied(_) if !parse.name.is_empty() => {
                return Err(Fault::new(
                    SqlState::DUPLICATE_PSTATEMENT,
                    format!("prepared statement \"{}\" already exists", shown(parse.name)),
                ));
            }
            Entry::Vacant(_) if full => return Err(too_many("prepared statements")),
            entry => entry.insert_entry(match self.is_pgbouncer {
                true => commands.first().cloned().map(Command::of_pgbouncer),
                false => commands.first().cloned(),
            }),
        };
        encode::parse_complete(out);
        Ok(())
    }

    fn bind(&mut self, body: &[u8], out: &mut Vec<u8>) -> Result<(), Fault> {
        let bind = whole(Bind::view(body, body.len()))?;
        let command = self.statement(bind.statement)?;
        let formats = result_formats(&body[bind.rest..])?;
        if self.portals.len() >= PORTALS_LIMIT && !self.portals.contains_key(bind.portal) {
            return Err(too_many("portals"));
        }
        let portal = Portal { command, formats, rows: None };
        self.portals.insert(bind.portal.to_vec(), portal);
        encode::message(out, backend::BIND_COMPLETE, |_| {});
        Ok(())
    }

    fn describe(&self, body: &[u8], out: &mut Vec<u8>) -> Result<(), Fault> {
        let (command, formats) = match whole(StatementOrPortal::view(body, body.len()))? {
            StatementOrPortal::Statement(name) => {
                let command = self.statement(name)?;
                encode::message(out, backend::PARAMETER_DESCRIPTION, |out| {
                    out.extend_from_slice(&[0; 2]);
                });
                (command, &Formats::Text)
            }
            StatementOrPortal::Portal(name) => {
                let portal = self.portals.get(name).ok_or_else(|| no_portal(name))?;
                (portal.command.clone(), &portal.formats)
            }
        };
        match command.and_then(|command| command.columns(self.has_peers)) {
            Some(columns) => answer::describe(out, &columns, formats),
            None => encode::message(out, backend::NO_DATA, |_| {}),
        }
        Ok(())
    }

    fn close(&mut self, body: &[u8], out: &mut Vec<u8>) -> Result<(), Fault> {
        // What does not exist is closed already.
        match whole(StatementOrPortal::view(body, body.len()))? {
            StatementOrPortal::Statement(name) => drop(self.statements.remove(name)),
            StatementOrPortal::Portal(name) => drop(self.portals.remove(name)),
        }
        encode::close_complete(out);
        Ok(())
    }

    fn statement(&self, name: &[u8]) -> Result<Option<Command>, Fault> {
        self.statements.get(name).cloned().ok_or_else(|| {
            Fault::new(
                SqlState::INVALID_SQL_STATEMENT_NAME,
                format!("prepared statement \"{}\" does not exist", shown(name)),
            )
        })
    }
}

/// The result formats at the end of a Bind: counts and values of parameter formats, parameters and
/// result formats. No command has parameters.
fn result_formats(rest: &[u8]) -> Result<Formats, Fault> {
    let malformed = || protocol("invalid message format");
    let mut words = rest.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]));
    let parameter_formats = words.next().ok_or_else(malformed)?;
    let mut words = words.skip(parameter_formats.into());
    if words.next().ok_or_else(malformed)? != 0 {
        return Err(protocol("the console's commands have no parameters"));
    }
    let count = words.next().ok_or_else(malformed)?;
    let binary: Vec<bool> = words.map(|code| code == 1).collect();
    if binary.len() != usize::from(count) || !rest.len().is_multiple_of(2) {
        return Err(malformed());
    }
    Ok(match binary.as_slice() {
        [] | [false] => Formats::Text,
        [true] => Formats::Binary,
        _ => Formats::Each(binary),
    })
}

fn whole<T>(view: Result<Option<T>, Malformed>) -> Result<T, Fault> {
    view.ok().flatten().ok_or_else(|| protocol("invalid message format"))
}

fn no_portal(name: &[u8]) -> Fault {
    let text = format!("portal \"{}\" does not exist", shown(name));
    // PostgreSQL's invalid_cursor_name.
    Fault::new(SqlState::new(b"34000").unwrap_or(SqlState::PROTOCOL_VIOLATION), text)
}

fn too_many(what: &str) -> Fault {
    let text = format!("too many {what} in one session on the console");
    Fault::new(SqlState::CONFIGURATION_LIMIT_EXCEEDED, text)
}

/// A name of the client's in a message to that client.
fn shown(name: &[u8]) -> String {
    String::from_utf8_lossy(name).chars().take(64).collect()
}
