//! A model of PostgreSQL: what it answers to which bytes, and when it sends that.
//!
//! The same model serves behind the proxy, shared by many clients, and alone for each client, to
//! say what the client must see.

mod answers;
mod extended;
mod gucs;
mod run;
mod sql;
mod state;
mod transactions;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::rc::Rc;

use gucs::{Gucs, Standing};
pub(crate) use sql::Token;

use super::message::{self, field};
use crate::nodes::Nodes;

/// PostgreSQL's output buffer: what is above it leaves without a Flush.
const SEND_BUFFER: usize = 8192;

/// One backend.
pub(crate) struct Backend {
    pub(crate) input: Vec<u8>,
    /// What has been sent.
    pub(crate) output: Vec<u8>,
    /// What waits for Sync or Flush.
    held: Vec<u8>,
    pub(crate) transaction: Transaction,
    skipping: bool,
    pub(crate) statements: BTreeMap<String, Prepared>,
    portals: BTreeMap<String, Portal>,
    pub(crate) gucs: Gucs,
    copy: Option<CopyIn>,
    /// The statement that runs until it is told how it ends.
    pub(crate) asleep: Option<Asleep>,
    pub(crate) temporary: BTreeSet<String>,
    pub(crate) channels: BTreeSet<String>,
    /// What NOTIFY has named, which no backend was told of yet.
    pub(crate) notified: Vec<String>,
    /// Session-level advisory locks, which outlive the transaction that took them.
    pub(crate) locks: u32,
    /// What the proxy sends on its own account next fails.
    pub(crate) balks: Option<Balk>,
    /// The transaction block may not write.
    read_only: bool,
    /// What was inserted, by transactions that are committed.
    pub(crate) committed: Vec<String>,
    pending: Vec<String>,
    /// The connection is at its end.
    pub(crate) closed: bool,
    /// Statements that are known to have been cancelled, for a model that runs after the fact.
    pub(crate) cancelled: HashSet<String>,
    /// Statements that are known to have come to their end.
    pub(crate) finished: HashSet<String>,
    pub(crate) queries: usize,
    /// The node of a cluster that it runs on, where what was written there matters.
    pub(crate) node: Option<(Rc<RefCell<Nodes>>, usize)>,
}

/// Where a transaction stands.
pub(crate) enum Transaction {
    None,
    /// Ends with the query or at Sync.
    Implicit(Snapshot),
    Block(Snapshot),
    Failed(Snapshot),
}

/// What a rollback returns to, and the savepoints since.
pub(crate) struct Snapshot {
    before: Kept,
    savepoints: Vec<(String, Kept)>,
    /// A statement has run in it.
    used: bool,
}

/// What a rollback brings back.
#[derive(Clone)]
struct Kept {
    standing: Standing,
    temporary: BTreeSet<String>,
    channels: BTreeSet<String>,
    pending: usize,
}

#[derive(Clone)]
pub(crate) struct Prepared {
    statement: Vec<Token>,
    /// TimeZone when it was parsed: constants are bound then.
    zone: String,
    origin: Origin,
}

/// How a prepared statement came about.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Origin {
    Parse,
    /// SQL PREPARE.
    Sql,
    /// Parse of a question of the proxy's, under this name.
    Question(String),
}

struct Portal {
    prepared: Prepared,
    parameter: String,
    /// Rows that are still to come; `None` when it was run to its end.
    left: Option<usize>,
}

struct CopyIn {
    rows: Vec<String>,
    from: Asked,
}

/// How a statement came, and for a query what is still to run of it.
#[derive(Clone)]
pub(crate) enum Asked {
    Query(Vec<Vec<Token>>),
    Execute,
}

pub(crate) struct Asleep {
    pub(crate) token: String,
    from: Asked,
}

/// What is refused, with which SQLSTATE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Balk {
    Question(&'static str),
    /// All settings at once.
    Settings(&'static str),
}

/// An error: SQLSTATE and text.
pub(crate) struct Failure(pub(crate) &'static str, pub(crate) String);

impl Backend {
    /// A backend whose client asked for these settings at login.
    pub(crate) fn new(startup: &[(String, String)]) -> Self {
        Self {
            input: Vec::new(),
            output: Vec::new(),
            held: Vec::new(),
            transaction: Transaction::None,
            read_only: false,
            skipping: false,
            statements: BTreeMap::new(),
            portals: BTreeMap::new(),
            gucs: Gucs::new(startup),
            copy: None,
            asleep: None,
            temporary: BTreeSet::new(),
            channels: BTreeSet::new(),
            notified: Vec::new(),
            locks: 0,
            balks: None,
            committed: Vec::new(),
            pending: Vec::new(),
            closed: false,
            cancelled: HashSet::new(),
            finished: HashSet::new(),
            queries: 0,
            node: None,
        }
    }

    /// Bytes from the client.
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
        self.work();
    }

    /// Somebody has notified a channel: told at once, if the backend listens to it.
    pub(crate) fn hear(&mut self, channel: &str, payload: &str) {
        if self.channels.contains(channel) && !self.closed {
            let body = [&[0, 0, 0, 9], channel.as_bytes(), b"\0", payload.as_bytes(), b"\0"];
            self.output.extend(message::message(b'A', &body.concat()));
        }
    }

    /// Why no other client could be given this connection: something is under way.
    pub(crate) fn unclean(&self) -> Option<&'static str> {
        let reasons = [
            (!self.output.is_empty() || !self.held.is_empty(), "output"),
            (!matches!(self.transaction, Transaction::None), "a transaction"),
            (self.skipping, "skipping to Sync"),
            (self.copy.is_some(), "COPY"),
            (self.asleep.is_some(), "a running statement"),
        ];
        reasons.iter().find(|(is, _)| *is).map(|(_, why)| *why)
    }

    /// The names of its prepared statements, but for those of questions.
    pub(crate) fn names(&self) -> impl Iterator<Item = &String> {
        self.statements.keys().filter(|name| !name.starts_with("pgimbal_ask_"))
    }

    pub(crate) fn in_block(&self) -> bool {
        matches!(self.transaction, Transaction::Block(_) | Transaction::Failed(_))
    }

    /// It dies, with or without a word.
    pub(crate) fn die(&mut self, word: Option<&str>) {
        self.input.clear();
        self.held.clear();
        self.asleep = None;
        if let Some(word) = word {
            self.output.extend(message::report(b'E', "FATAL", "57P01", word));
        }
        self.pending.clear();
        self.closed = true;
    }

    /// The running statement comes to its end.
    pub(crate) fn wake(&mut self) {
        if let Some(asleep) = self.asleep.take() {
            self.finished.insert(asleep.token.clone());
            self.reply(message::row(asleep.token.as_bytes()));
            self.reply(message::message(b'C', b"SELECT 1\0"));
            self.go_on(asleep.from);
            self.work();
        }
    }

    /// A cancel request arrives. The statement that it hits.
    pub(crate) fn cancel(&mut self) -> Option<String> {
        let token = match (&self.asleep, &self.copy) {
            (Some(asleep), _) => asleep.token.clone(),
            _ => return None,
        };
        let asleep = self.asleep.take().expect("it is asleep");
        self.cancelled.insert(token.clone());
        self.fail(Failure("57014", "canceling statement due to user request".into()), asleep.from);
        self.work();
        Some(token)
    }

    fn work(&mut self) {
        while !self.closed && self.asleep.is_none() {
            let Some((tag, body, length)) = message::first(&self.input) else { break };
            let body = body.to_vec();
            self.input.drain(..length);
            if self.copy.is_some() {
                self.copy_message(tag, &body);
            } else if !self.skipping || matches!(tag, b'S' | b'X') {
                self.message(tag, &body);
            }
        }
        if self.held.len() > SEND_BUFFER {
            self.send();
        }
    }

    fn message(&mut self, tag: u8, body: &[u8]) {
        match tag {
            b'Q' => self.query(text_of(body)),
            b'F' => self.function_call(),
            b'S' => self.sync(),
            b'H' => self.send(),
            b'X' => self.die(None),
            b'd' | b'c' | b'f' => {}
            _ => {
                if let Err(failure) = self.extended(tag, body) {
                    self.fail(failure, Asked::Execute);
                }
            }
        }
    }

    fn sync(&mut self) {
        self.skipping = false;
        if matches!(self.transaction, Transaction::Implicit(_)) {
            self.commit();
        }
        self.ready();
    }

    fn ready(&mut self) {
        self.gucs.changes_since(&mut self.held);
        let status = match self.transaction {
            Transaction::None | Transaction::Implicit(_) => b'I',
            Transaction::Block(_) => b'T',
            Transaction::Failed(_) => b'E',
        };
        self.reply(message::message(b'Z', &[status]));
        self.send();
    }

    fn reply(&mut self, bytes: Vec<u8>) {
        self.held.extend(bytes);
    }

    fn send(&mut self) {
        self.output.append(&mut self.held);
    }

    /// An error: the transaction fails, and what follows in the same breath does not run.
    fn fail(&mut self, failure: Failure, from: Asked) {
        self.reply(message::report(b'E', "ERROR", failure.0, &failure.1));
        self.send();
        match std::mem::replace(&mut self.transaction, Transaction::None) {
            Transaction::Implicit(snapshot) => self.rolled_back(&snapshot),
            Transaction::Block(snapshot) | Transaction::Failed(snapshot) => {
                self.transaction = Transaction::Failed(snapshot);
            }
            Transaction::None => {}
        }
        match from {
            Asked::Query(_) => self.ready(),
            Asked::Execute => self.skipping = true,
        }
    }

    fn copy_message(&mut self, tag: u8, body: &[u8]) {
        let Some(copy) = &mut self.copy else { return };
        match tag {
            b'd' => copy.rows.push(String::from_utf8_lossy(body).into_owned()),
            b'H' | b'S' => {}
            b'c' => {
                let copy = self.copy.take().expect("a copy");
                let tag = format!("COPY {}\0", copy.rows.len());
                self.pending.extend(copy.rows);
                self.reply(message::message(b'C', tag.as_bytes()));
                self.go_on(copy.from);
            }
            b'f' => {
                let copy = self.copy.take().expect("a copy");
                let text = format!("COPY from stdin failed: {}", text_of(body));
                self.fail(Failure("57014", text), copy.from);
            }
            b'X' => self.die(None),
            _ => self.die(Some("terminating connection because protocol synchronization was lost")),
        }
    }
}

fn text_of(body: &[u8]) -> String {
    let end = body.iter().position(|&b| b == 0).unwrap_or(body.len());
    String::from_utf8_lossy(&body[..end]).into_owned()
}

/// The token that an answer names, if it names one: constants look like `c7.12`.
pub(crate) fn token_in(tag: u8, body: &[u8]) -> Option<String> {
    let text = match tag {
        b'D' => String::from_utf8_lossy(body.get(6..)?).into_owned(),
        b'E' => field(body, b'M'),
        _ => return None,
    };
    let is_token = |word: &&str| {
        word.strip_prefix('c').and_then(|rest| rest.split_once('.')).is_some_and(
            |(client, number)| client.parse::<u32>().is_ok() && number.parse::<u32>().is_ok(),
        )
    };
    text.split([' ', ':', '@']).find(is_token).map(str::to_owned)
}
