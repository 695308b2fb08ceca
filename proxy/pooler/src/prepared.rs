//! Prepared statements: what a client calls them, what the servers call them, who has which.
//!
//! Two clients share a server's statement only when its text, its parameter types, the settings
//! that matter to Parse and the count of schema changes seen are all equal.

use std::cell::OnceCell;
use std::hash::Hasher;
use std::rc::{Rc, Weak};

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use siphasher::sip128::{Hasher128, SipHasher13};

use crate::sql::Classified;

/// Every name that the proxy gives on a server starts so; a client's own name that starts so too
/// is never forwarded as it is.
pub const SERVER_NAME_PREFIX: &[u8] = b"pgimbal_";

/// Names that one client may hold at a time. A driver's cache holds some hundreds; the bound keeps
/// one client from filling memory.
pub const CLIENT_STATEMENTS_LIMIT: usize = 65_536;

/// The settings under which a statement was parsed, as numbers that are equal on every worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ParsedUnder {
    /// These.
    Settings {
        /// All that matter to Parse: two clients share a statement only if they are equal.
        all: u64,
        /// Those of them whose meaning is fixed when the statement is parsed. The others (the
        /// search path, the role) PostgreSQL looks at again when the statement is run.
        fixed: u64,
    },
    /// Nobody knows. It is not shared, and parsed anew, under the settings of then, once its
    /// transaction has ended.
    Unknown,
}

impl ParsedUnder {
    /// The server's defaults.
    pub const DEFAULTS: Self = Self::Settings { all: 0, fixed: 0 };

    /// Whether what was fixed when the statement was parsed would be fixed otherwise now.
    const fn is_fixed_otherwise(self, now: Self) -> bool {
        match (self, now) {
            (Self::Settings { fixed: then, .. }, Self::Settings { fixed: now, .. }) => then != now,
            _ => false,
        }
    }
}

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
    pub settings: ParsedUnder,
    /// What executing it means to the session; `None` if it is plain.
    pub classified: Option<Box<Classified>>,
    /// How it came about.
    pub origin: Origin,
    /// What its client was told of parameters and rows, once that has come.
    pub shape: OnceCell<Shape>,
}

/// How a statement came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// By Parse.
    Parse,
    /// By SQL PREPARE, which is its text.
    Sql,
    /// By Parse in session mode: the server has it under the client's own name.
    Session,
}

/// What a server says of a statement: PostgreSQL refuses to run one whose rows look otherwise than
/// when it was parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// The parameter types: a count of 2 bytes, then 4 bytes each.
    pub parameters: Box<[u8]>,
    /// A hash of its columns' names, types and type modifiers.
    pub rows: u64,
}

impl Statement {
    /// A statement whose text is kept; `body` as in [`Statement::body`].
    fn new(
        id: StatementId,
        content: StatementId,
        body: &[u8],
        settings: ParsedUnder,
        classified: Option<Box<Classified>>,
    ) -> Self {
        let (body, origin, shape) = (Some(body.into()), Origin::Parse, OnceCell::new());
        Self { id, content, body, settings, classified, origin, shape }
    }

    /// One that lives on one server only, because its text is not kept.
    #[must_use]
    pub fn large(id: StatementId) -> Self {
        let (body, classified, shape) = (None, None, OnceCell::new());
        let (settings, origin) = (ParsedUnder::DEFAULTS, Origin::Parse);
        Self { id, content: id, body, settings, classified, origin, shape }
    }

    /// One that a server has under its client's own name: what it does is all that is kept.
    #[must_use]
    pub fn of_session(id: StatementId, classified: Classified) -> Self {
        let classified = Some(Box::new(classified));
        let own = Self::new(id, id, &[], ParsedUnder::Unknown, classified);
        Self { origin: Origin::Session, ..own }
    }

    /// The text of the statement, without its NUL; empty when it was not kept.
    #[must_use]
    pub fn text(&self) -> &[u8] {
        self.body.as_deref().map_or(&[], |body| {
            let end = body.iter().position(|&b| b == 0).unwrap_or(body.len());
            &body[..end]
        })
    }

    /// Appends what stands behind the name in a Parse of it: with the parameter types that its
    /// client was told, if that is known.
    pub fn write_body(&self, out: &mut Vec<u8>) {
        let Some(body) = self.body.as_deref() else { return };
        match self.shape.get() {
            None => out.extend_from_slice(body),
            Some(shape) => {
                out.extend_from_slice(self.text());
                out.push(0);
                out.extend_from_slice(&shape.parameters);
            }
        }
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

    /// `statement` as it is when it is parsed under `settings` and after `schema_changes` changes of
    /// the schema: the one that others share if its client was told the same of it.
    pub fn under(
        &mut self,
        statement: &Statement,
        settings: ParsedUnder,
        schema_changes: u64,
        classified: Option<Box<Classified>>,
    ) -> Rc<Statement> {
        let body = statement.body.as_deref().unwrap_or_default();
        let content = self.identify(body, settings, schema_changes);
        if let Some(known) = self.known.get(&content).and_then(Weak::upgrade)
            && known.shape.get() == statement.shape.get()
        {
            return known;
        }
        let id = self.unique(content);
        let own = Statement::new(id, content, body, settings, classified);
        if let Some(shape) = statement.shape.get() {
            let _ = own.shape.set(shape.clone());
        }
        Rc::new(own)
    }

    /// The statement of a client's Parse: one of its own until it is described.
    pub fn parse(
        &mut self,
        body: &[u8],
        settings: ParsedUnder,
        schema_changes: u64,
        classified: Option<Box<Classified>>,
    ) -> Rc<Statement> {
        let content = self.identify(body, settings, schema_changes);
        let id = self.unique(content);
        Rc::new(Statement::new(id, content, body, settings, classified))
    }

    /// The statement of a client's SQL PREPARE, whose text is `text`.
    pub fn from_sql(
        &mut self,
        text: &[u8],
        settings: ParsedUnder,
        classified: Option<Box<Classified>>,
    ) -> Rc<Statement> {
        let body = [text, &[0, 0, 0]].concat();
        let content = self.identify(&body, settings, 0);
        let id = self.unique(content);
        let statement = Statement::new(id, content, &body, settings, classified);
        Rc::new(Statement { origin: Origin::Sql, ..statement })
    }

    /// Some server may still have a statement under the name that the content alone would give.
    fn unique(&mut self, content: StatementId) -> StatementId {
        self.parses += 1;
        let mut hasher = SipHasher13::new_with_key(&self.key.0);
        hasher.write(&content.0.to_le_bytes());
        hasher.write_u16(self.worker);
        hasher.write_u64(self.parses);
        StatementId(hasher.finish128().as_u128())
    }

    /// A number for what the statement's rows look like, from the body of a RowDescription (as much
    /// of it as is at hand), or `None` for NoData.
    #[must_use]
    pub fn rows(&self, description: Option<&[u8]>) -> u64 {
        let Some(body) = description else { return 0 };
        let mut hasher = SipHasher13::new_with_key(&self.key.0);
        let mut rest = body.get(2..).unwrap_or_default();
        // Name, then table (4), attribute (2), type (4), size (2), type modifier (4), format (2).
        while let Some(end) = rest.iter().position(|&byte| byte == 0) {
            let Some(fields) = rest[end + 1..].first_chunk::<18>() else { break };
            hasher.write(&rest[..=end]);
            hasher.write(&fields[6..10]);
            hasher.write(&fields[12..16]);
            rest = &rest[end + 1 + fields.len()..];
        }
        hasher.write(rest);
        hasher.finish128().h1.max(1)
    }

    /// The server has described a statement that a client has just parsed. Returns the statement to
    /// use instead, if there is one with the same shape that is `shared`.
    pub fn described(&mut self, statement: &Rc<Statement>, shape: Shape) -> Option<Rc<Statement>> {
        let newest = self.known.get(&statement.content).and_then(Weak::upgrade);
        let shape = statement.shape.get_or_init(|| shape);
        if statement.settings == ParsedUnder::Unknown {
            return None;
        }
        match newest {
            Some(newest) if Rc::ptr_eq(&newest, statement) => None,
            Some(newest) if newest.shape.get() == Some(shape) => Some(newest),
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

    fn identify(&self, body: &[u8], settings: ParsedUnder, schema_changes: u64) -> StatementId {
        let mut hasher = SipHasher13::new_with_key(&self.key.0);
        if let ParsedUnder::Settings { all, .. } = settings {
            hasher.write_u64(all);
        }
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
        self.names.get(cut(name))
    }

    /// Gives `name` a meaning or takes it away; returns what it meant before.
    pub fn set(&mut self, name: &[u8], statement: Option<Rc<Statement>>) -> Option<Rc<Statement>> {
        match statement {
            Some(statement) => self.names.insert(cut(name).into(), statement),
            None => self.names.remove(cut(name)),
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
        self.unkept_count() > 0
    }

    /// How many statements without a kept text are among them.
    #[must_use]
    pub fn unkept_count(&self) -> u64 {
        self.names.values().filter(|statement| statement.body.is_none()).count() as u64
    }

    /// Whether something of a kept statement was fixed when it was parsed that would be fixed
    /// otherwise under `settings`.
    #[must_use]
    pub fn any_fixed_otherwise(&self, settings: ParsedUnder) -> bool {
        self.names.values().any(|s| s.body.is_some() && s.settings.is_fixed_otherwise(settings))
    }
}

/// The bytes of a name that PostgreSQL looks at (`NAMEDATALEN`), inside a character too.
fn cut(name: &[u8]) -> &[u8] {
    &name[..name.len().min(63)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> StatementTable {
        StatementTable::new(StatementKey([7; 16]), 0)
    }

    fn under(all: u64) -> ParsedUnder {
        ParsedUnder::Settings { all, fixed: 0 }
    }

    #[test]
    fn what_postgresql_looks_at_again_is_not_fixed() {
        let now = ParsedUnder::Settings { all: 2, fixed: 7 };
        assert!(!ParsedUnder::Settings { all: 1, fixed: 7 }.is_fixed_otherwise(now));
        assert!(ParsedUnder::Settings { all: 1, fixed: 8 }.is_fixed_otherwise(now));
        assert!(!ParsedUnder::Unknown.is_fixed_otherwise(now));
    }

    fn shape(rows: u64) -> Shape {
        Shape { parameters: [0, 0][..].into(), rows }
    }

    #[test]
    fn behaviour_19_a_parse_shares_the_newest_statement_of_the_same_shape() {
        let mut table = table();
        let body = b"select * from t\0\0\0";
        let first = table.parse(body, under(1), 0, None);
        assert!(table.described(&first, shape(10)).is_none());
        let second = table.parse(body, under(1), 0, None);
        assert_ne!(first.id, second.id);
        assert!(Rc::ptr_eq(&table.described(&second, shape(10)).unwrap(), &first));
        let third = table.parse(body, under(1), 0, None);
        assert!(table.described(&third, shape(11)).is_none(), "the rows look otherwise now");
        let fourth = table.parse(body, under(1), 0, None);
        assert!(Rc::ptr_eq(&table.described(&fourth, shape(11)).unwrap(), &third));
        let float = Shape { parameters: [0, 1, 0, 0, 2, 189][..].into(), rows: 11 };
        let fifth = table.parse(body, under(1), 0, None);
        assert!(table.described(&fifth, float).is_none(), "its parameter is another");
    }

    #[test]
    fn any_difference_of_what_is_parsed_separates() {
        let mut table = table();
        let first = table.parse(b"select 1\0\0\0", under(1), 0, None);
        assert_eq!(first.text(), b"select 1");
        for (body, settings, changes) in [
            (&b"select 2\0\0\0"[..], 1, 0),
            (b"select 1\0\0\x01\0\0\0\x17", 1, 0),
            (b"select 1\0\0\0", 2, 0),
            (b"select 1\0\0\0", 1, 1),
        ] {
            assert_ne!(table.parse(body, under(settings), changes, None).content, first.content);
        }
    }

    #[test]
    fn what_a_client_was_told_stays_when_its_statement_is_parsed_under_other_settings() {
        let mut table = table();
        let body = b"select * from t\0\0\0";
        let first = table.parse(body, under(1), 0, None);
        table.described(&first, shape(10));
        let other = table.parse(body, under(2), 0, None);
        table.described(&other, shape(11));
        let moved = table.under(&first, under(2), 0, None);
        assert_ne!(moved.id, other.id, "its client was told of other rows");
        assert_eq!(moved.shape.get(), Some(&shape(10)));
        let same = table.parse(body, under(3), 0, None);
        table.described(&same, shape(10));
        assert_eq!(table.under(&first, under(3), 0, None).id, same.id);
    }

    #[test]
    fn the_table_of_a_column_is_no_part_of_its_shape() {
        let table = table();
        let column = |table: u8, kind: u8| {
            [&b"\0\x01a\0"[..], &[0, 0, 0, table, 0, 1], &[0, 0, 0, kind, 0, 8], &[0; 6]].concat()
        };
        assert_eq!(table.rows(Some(&column(1, 20))), table.rows(Some(&column(2, 20))));
        assert_ne!(table.rows(Some(&column(1, 20))), table.rows(Some(&column(1, 23))));
        assert_ne!(table.rows(Some(&column(1, 20))), table.rows(None));
    }

    #[test]
    fn statements_that_nobody_knows_are_swept() {
        let mut table = table();
        for n in 0..10_000_u32 {
            let text = format!("select {n}\0\0\0");
            let statement = table.parse(text.as_bytes(), under(0), 0, None);
            table.described(&statement, shape(1));
        }
        assert!(table.known.len() <= 256, "{} left", table.known.len());
    }

    #[test]
    fn a_name_counts_up_to_its_sixty_third_byte() {
        let mut table = table();
        let statement = table.parse(b"select 1\0\0\0", under(0), 0, None);
        let mut names = ClientStatements::default();
        names.set(&[b'a'; 70], Some(statement));
        assert!(names.get(&[b'a'; 63]).is_some() && names.get(&[b'a'; 62]).is_none());
    }
}
