//! Prepared statements: what a client calls them, what the servers call them, who has which.
//!
//! Two clients share a server's statement only when its text, its parameter types, the settings
//! that matter to Parse and the count of schema changes seen are all equal.

use std::cell::Cell;
use std::hash::Hasher;
use std::rc::{Rc, Weak};

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use siphasher::sip128::{Hasher128, SipHasher13};

/// Every name that the proxy gives on a server starts so; a client's own name that starts so too
/// is never forwarded as it is.
pub const SERVER_NAME_PREFIX: &[u8] = b"pgimbal_";

/// Names that one client may hold at a time. A driver's cache holds some hundreds; the bound keeps
/// one client from filling memory.
pub const CLIENT_STATEMENTS_LIMIT: usize = 65_536;

/// The identity of a statement on every worker: a keyed 128-bit hash of all that must be equal.
/// A client cannot aim for a collision without the process's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StatementId(pub u128);

/// The process's secret key for [`StatementId`].
#[derive(Clone, Copy)]
pub struct StatementKey(pub [u8; 16]);

impl StatementKey {
    /// A seed for tables that hash what clients choose.
    #[must_use]
    pub const fn seed(&self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        u64::from_le_bytes([a, b, c, d, e, f, g, h])
    }
}

impl std::fmt::Debug for StatementKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("StatementKey(***)")
    }
}

/// A statement that may live on several servers and be known to several clients.
#[derive(Debug)]
pub struct Statement {
    /// Its identity.
    pub id: StatementId,
    /// The identity of what it was parsed from, which several statements may share.
    pub content: StatementId,
    /// The body of its Parse behind the name: text, NUL, parameter types. `None` when the text is
    /// above the limit: then it lives on one server only.
    pub body: Option<Box<[u8]>>,
    /// The settings under which it was parsed, as far as they matter to Parse.
    pub settings: u64,
    /// What executing it means to the session, or nothing.
    pub kind: StatementKind,
    /// What its rows look like, as a hash of the server's description, once that has come.
    pub rows: Cell<Option<u64>>,
}

/// Whether executing a statement changes more than rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatementKind {
    /// Nothing that the session must know of.
    Plain,
    /// It changes session state, or ends a transaction: the text is judged when it is bound.
    Special,
}

impl Statement {
    /// A statement whose text is kept; `body` as in [`Statement::body`], `kind` judges the text.
    fn new(
        id: StatementId,
        content: StatementId,
        body: &[u8],
        settings: u64,
        kind: impl FnOnce(&[u8]) -> StatementKind,
    ) -> Self {
        let end = body.iter().position(|&b| b == 0).unwrap_or(body.len());
        Self {
            id,
            content,
            body: Some(body.into()),
            settings,
            kind: kind(&body[..end]),
            rows: Cell::new(None),
        }
    }

    /// The text of the statement, without its NUL; empty when it was not kept.
    #[must_use]
    pub fn text(&self) -> &[u8] {
        self.body.as_deref().map_or(&[], |body| {
            let end = body.iter().position(|&b| b == 0).unwrap_or(body.len());
            &body[..end]
        })
    }

    /// Appends the statement's name on the servers, without a NUL.
    pub fn write_server_name(&self, out: &mut Vec<u8>) {
        write_server_name(self.id, out);
    }
}

/// Appends the server-side name of `id`, without a NUL.
pub fn write_server_name(id: StatementId, out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    out.extend_from_slice(SERVER_NAME_PREFIX);
    for byte in id.0.to_be_bytes() {
        out.push(DIGITS[usize::from(byte >> 4)]);
        out.push(DIGITS[usize::from(byte & 15)]);
    }
}

/// A worker's statements: of each text, types and settings the newest, while any client knows it.
///
/// A client's Parse always reaches the server, under a name of its own, and is described there:
/// when its rows look as those of the newest statement do, the client is given that one to share,
/// otherwise (the schema has changed) its own becomes the newest. So nobody meets "cached plan must
/// not change result type" on a statement that it has just parsed.
#[derive(Debug)]
pub struct StatementTable {
    key: StatementKey,
    worker: u16,
    parses: u64,
    known: HashMap<StatementId, Weak<Statement>, RandomState>,
    sweep_at: usize,
}

impl StatementTable {
    /// An empty table; equal keys give equal identities on every worker.
    #[must_use]
    pub fn new(key: StatementKey, worker: u16) -> Self {
        Self { key, worker, parses: 0, known: HashMap::default(), sweep_at: 256 }
    }

    /// A number for a list of names and values, equal on every worker.
    pub fn fingerprint<'a>(&self, values: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> u64 {
        let mut hasher = SipHasher13::new_with_key(&self.key.0);
        for (name, value) in values {
            for part in [name, value] {
                hasher.write_usize(part.len());
                hasher.write(part);
            }
        }
        // Zero stands for "no settings".
        hasher.finish128().h1.max(1)
    }

    /// The one statement of this Parse body (text, NUL, types) under `settings` and after
    /// `schema_changes` changes of the schema.
    pub fn intern(
        &mut self,
        body: &[u8],
        settings: u64,
        schema_changes: u64,
        kind: impl FnOnce(&[u8]) -> StatementKind,
    ) -> Rc<Statement> {
        let id = self.identify(body, settings, schema_changes);
        if let Some(known) = self.known.get(&id).and_then(Weak::upgrade) {
            return known;
        }
        let statement = Rc::new(Statement::new(id, id, body, settings, kind));
        self.make_newest(&statement);
        statement
    }

    /// The statement of a client's Parse: one of its own until it is described.
    pub fn parse(
        &mut self,
        body: &[u8],
        settings: u64,
        schema_changes: u64,
        kind: impl FnOnce(&[u8]) -> StatementKind,
    ) -> Rc<Statement> {
        let content = self.identify(body, settings, schema_changes);
        // Some server may still have one under the name that the content alone would give.
        self.parses += 1;
        let mut hasher = SipHasher13::new_with_key(&self.key.0);
        hasher.write(&content.0.to_le_bytes());
        hasher.write_u16(self.worker);
        hasher.write_u64(self.parses);
        let id = StatementId(hasher.finish128().as_u128());
        Rc::new(Statement::new(id, content, body, settings, kind))
    }

    /// The server has described a statement that a client has just parsed; `rows` stands for what
    /// it said. Returns the statement to use instead, if there is one with the same rows.
    pub fn described(&mut self, statement: &Rc<Statement>, rows: u64) -> Option<Rc<Statement>> {
        statement.rows.set(Some(rows));
        let newest = self.known.get(&statement.content).and_then(Weak::upgrade);
        match newest {
            Some(newest) if Rc::ptr_eq(&newest, statement) => None,
            Some(newest) if newest.rows.get() == Some(rows) => Some(newest),
            _ => {
                self.make_newest(statement);
                None
            }
        }
    }

    fn make_newest(&mut self, statement: &Rc<Statement>) {
        self.sweep();
        self.known.insert(statement.content, Rc::downgrade(statement));
    }

    fn identify(&self, body: &[u8], settings: u64, schema_changes: u64) -> StatementId {
        let mut hasher = SipHasher13::new_with_key(&self.key.0);
        hasher.write_u64(settings);
        hasher.write_u64(schema_changes);
        hasher.write(body);
        StatementId(hasher.finish128().as_u128())
    }

    /// Drops what no client knows any more, each time the table has doubled.
    fn sweep(&mut self) {
        if self.known.len() >= self.sweep_at {
            self.known.retain(|_, statement| statement.strong_count() > 0);
            self.sweep_at = (self.known.len() * 2).max(256);
        }
    }
}

/// What one client's names mean.
#[derive(Debug, Default)]
pub struct ClientStatements {
    names: HashMap<Box<[u8]>, Rc<Statement>, RandomState>,
}

impl ClientStatements {
    /// What `name` means.
    #[inline]
    pub fn get(&self, name: &[u8]) -> Option<&Rc<Statement>> {
        self.names.get(name)
    }

    /// Gives `name` a meaning or takes it away; returns what it meant before.
    pub fn set(&mut self, name: &[u8], statement: Option<Rc<Statement>>) -> Option<Rc<Statement>> {
        match statement {
            Some(statement) => self.names.insert(name.into(), statement),
            None => self.names.remove(name),
        }
    }

    /// Names in use.
    #[must_use]
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether no name is in use.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Whether a statement without a kept text is among them.
    #[must_use]
    pub fn any_unkept(&self) -> bool {
        self.names.values().any(|statement| statement.body.is_none())
    }

    /// Whether a kept statement was parsed under other settings than `settings`.
    #[must_use]
    pub fn any_under_other(&self, settings: u64) -> bool {
        self.names.values().any(|s| s.body.is_some() && s.settings != settings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> StatementTable {
        StatementTable::new(StatementKey([7; 16]), 0)
    }

    #[test]
    fn equal_parses_share_and_any_difference_separates() {
        let mut table = table();
        let plain = |_: &[u8]| StatementKind::Plain;
        let a = table.intern(b"select 1\0\0\0", 1, 0, plain);
        assert!(Rc::ptr_eq(&a, &table.intern(b"select 1\0\0\0", 1, 0, plain)));
        assert_ne!(a.id, table.intern(b"select 2\0\0\0", 1, 0, plain).id);
        assert_ne!(a.id, table.intern(b"select 1\0\0\x01\0\0\0\x17", 1, 0, plain).id);
        assert_ne!(a.id, table.intern(b"select 1\0\0\0", 2, 0, plain).id);
        assert_ne!(a.id, table.intern(b"select 1\0\0\0", 1, 1, plain).id);
        assert_eq!(a.text(), b"select 1");
    }

    #[test]
    fn behaviour_19_a_parse_shares_the_newest_statement_with_the_same_rows() {
        let mut table = table();
        let plain = |_: &[u8]| StatementKind::Plain;
        let body = b"select * from t\0\0\0";
        let first = table.parse(body, 1, 0, plain);
        assert!(table.described(&first, 10).is_none());
        let second = table.parse(body, 1, 0, plain);
        assert_ne!(first.id, second.id);
        assert!(Rc::ptr_eq(&table.described(&second, 10).unwrap(), &first));
        let third = table.parse(body, 1, 0, plain);
        assert!(table.described(&third, 11).is_none(), "the rows look otherwise now");
        let fourth = table.parse(body, 1, 0, plain);
        assert!(Rc::ptr_eq(&table.described(&fourth, 11).unwrap(), &third));
    }

    #[test]
    fn statements_that_nobody_knows_are_swept() {
        let mut table = table();
        for n in 0..10_000_u32 {
            let text = format!("select {n}\0\0\0");
            let _ = table.intern(text.as_bytes(), 0, 0, |_| StatementKind::Plain);
        }
        assert!(table.known.len() <= 256, "{} left", table.known.len());
    }
}
