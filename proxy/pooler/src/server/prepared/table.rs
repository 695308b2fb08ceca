//! A worker's prepared statements, and when a client is given another's to share.

use std::hash::Hasher;
use std::rc::{Rc, Weak};

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use siphasher::sip128::{Hasher128, SipHasher13};

use super::statement::{Origin, ParsedUnder, Shape, Statement, StatementId, StatementKey};
use crate::sql::StatementClass;

/// A worker's prepared statements: for each text, types and settings the newest statement, as long
/// as any client knows it.
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
    /// An empty table. Equal keys give a statement the same identity on every worker; `worker` is
    /// this worker's number.
    #[must_use]
    pub fn new(key: StatementKey, worker: u16) -> Self {
        Self { key, worker, parses: 0, known: HashMap::default(), sweep_at: 256 }
    }

    /// A hash of a list of names and values, equal on every worker; their order counts. Never 0,
    /// not even for an empty list: the caller uses 0 where no setting differs from the defaults.
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

    /// Finds or makes the statement with the text of `statement` and the effects `class`, for a
    /// Parse under `settings` and after `schema_changes` changes of the schema. The shared statement
    /// is returned if its parameters and rows were described as those of `statement` (or neither was
    /// described), otherwise a new one that is not shared, with the description of `statement`. The
    /// table is not changed; the caller puts the result under the client's name. Used before a
    /// statement is parsed again on another server connection.
    pub fn under(
        &mut self,
        statement: &Statement,
        settings: ParsedUnder,
        schema_changes: u64,
        class: StatementClass,
    ) -> Rc<Statement> {
        let body = statement.body.as_deref().unwrap_or_default();
        let content = self.identify(body, settings, schema_changes);
        if let Some(known) = self.known.get(&content).and_then(Weak::upgrade)
            && known.shape.get() == statement.shape.get()
        {
            return known;
        }
        let id = self.unique(content);
        let own = Statement::new(id, content, body, settings, class);
        if let Some(shape) = statement.shape.get() {
            let _ = own.shape.set(shape.clone());
        }
        Rc::new(own)
    }

    /// A new statement for a client's Parse with this body (text, NUL, parameter types). It is the
    /// client's own until [`Self::described`] finds one to share. Its id is new each time, also for
    /// an equal body, so that no server has it yet; the table is not changed.
    pub fn parse(
        &mut self,
        body: &[u8],
        settings: ParsedUnder,
        schema_changes: u64,
        class: StatementClass,
    ) -> Rc<Statement> {
        let content = self.identify(body, settings, schema_changes);
        let id = self.unique(content);
        Rc::new(Statement::new(id, content, body, settings, class))
    }

    /// A new statement for a client's SQL PREPARE, whose text is `text`; it has no parameter types
    /// and is not shared.
    pub fn from_sql(
        &mut self,
        text: &[u8],
        settings: ParsedUnder,
        class: StatementClass,
    ) -> Rc<Statement> {
        let body = [text, &[0, 0, 0]].concat();
        let content = self.identify(&body, settings, 0);
        let id = self.unique(content);
        let statement = Statement::new(id, content, &body, settings, class);
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

    /// A hash of what a statement's rows look like, from the body of a RowDescription (as much of
    /// it as is at hand); 0 for NoData (`None`), and never for a RowDescription. The name, type and
    /// type modifier of each column count; its table, size and format do not.
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

    /// Notes the shape with which the server has described a statement that a client has just
    /// parsed. Returns the newest statement of the same content and shape, to be used instead;
    /// `None` if there is no other, and `statement` is the newest from now on (unless its settings
    /// are unknown). A shape that `statement` has already is kept.
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

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: StatementClass = StatementClass::UNREAD;

    fn table() -> StatementTable {
        StatementTable::new(StatementKey([7; 16]), 0)
    }

    fn under(all: u64) -> ParsedUnder {
        ParsedUnder::Settings { all, fixed: 0 }
    }

    fn shape(rows: u64) -> Shape {
        Shape { parameters: [0, 0][..].into(), rows }
    }

    #[test]
    fn behaviour_19_a_parse_shares_the_newest_statement_of_the_same_shape() {
        let mut table = table();
        let body = b"select * from t\0\0\0";
        let first = table.parse(body, under(1), 0, PLAIN);
        assert!(table.described(&first, shape(10)).is_none());
        let second = table.parse(body, under(1), 0, PLAIN);
        assert_ne!(first.id, second.id);
        assert!(Rc::ptr_eq(&table.described(&second, shape(10)).unwrap(), &first));
        let third = table.parse(body, under(1), 0, PLAIN);
        assert!(table.described(&third, shape(11)).is_none(), "the rows look otherwise now");
        let fourth = table.parse(body, under(1), 0, PLAIN);
        assert!(Rc::ptr_eq(&table.described(&fourth, shape(11)).unwrap(), &third));
        let float = Shape { parameters: [0, 1, 0, 0, 2, 189][..].into(), rows: 11 };
        let fifth = table.parse(body, under(1), 0, PLAIN);
        assert!(table.described(&fifth, float).is_none(), "its parameter is another");
    }

    #[test]
    fn any_difference_of_what_is_parsed_separates() {
        let mut table = table();
        let first = table.parse(b"select 1\0\0\0", under(1), 0, PLAIN);
        assert_eq!(first.text(), b"select 1");
        for (body, settings, changes) in [
            (&b"select 2\0\0\0"[..], 1, 0),
            (b"select 1\0\0\x01\0\0\0\x17", 1, 0),
            (b"select 1\0\0\0", 2, 0),
            (b"select 1\0\0\0", 1, 1),
        ] {
            assert_ne!(table.parse(body, under(settings), changes, PLAIN).content, first.content);
        }
    }

    #[test]
    fn what_a_client_was_told_stays_when_its_statement_is_parsed_under_other_settings() {
        let mut table = table();
        let body = b"select * from t\0\0\0";
        let first = table.parse(body, under(1), 0, PLAIN);
        table.described(&first, shape(10));
        let other = table.parse(body, under(2), 0, PLAIN);
        table.described(&other, shape(11));
        let moved = table.under(&first, under(2), 0, PLAIN);
        assert_ne!(moved.id, other.id, "its client was told of other rows");
        assert_eq!(moved.shape.get(), Some(&shape(10)));
        let same = table.parse(body, under(3), 0, PLAIN);
        table.described(&same, shape(10));
        assert_eq!(table.under(&first, under(3), 0, PLAIN).id, same.id);
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
            let statement = table.parse(text.as_bytes(), under(0), 0, PLAIN);
            table.described(&statement, shape(1));
        }
        assert!(table.known.len() <= 256, "{} left", table.known.len());
    }
}
