//! What a client calls its prepared statements.

use std::rc::Rc;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use pgimbal_wire::extended::NAME_BYTES;

use super::statement::{ParsedUnder, Statement, StatementId};

/// The most names of prepared statements (65,536) that one client may hold at a time. A driver's
/// cache holds some hundreds; the limit keeps one client from filling memory. A client that holds
/// so many and sends one more Parse of a named statement gets a FATAL error (08P01), and its
/// session ends.
pub const CLIENT_STATEMENTS_LIMIT: usize = 65_536;

/// One client's names of prepared statements, and the statement that each means. A name counts up
/// to its 63rd byte, as in PostgreSQL.
#[derive(Debug, Default)]
pub struct ClientStatements {
    names: HashMap<Box<[u8]>, Rc<Statement>, RandomState>,
    bytes: usize,
}

impl ClientStatements {
    /// The statement that `name` means, of which 63 bytes count; `None` if the client has no such
    /// name.
    #[inline]
    pub fn get(&self, name: &[u8]) -> Option<&Rc<Statement>> {
        self.names.get(cut(name))
    }

    /// Lets `name`, of which 63 bytes count, mean `statement`, or takes the name away (`None`).
    /// Returns what it meant before; `None` if it meant nothing. No limit is checked here, and no
    /// server is told.
    pub fn set(&mut self, name: &[u8], statement: Option<Rc<Statement>>) -> Option<Rc<Statement>> {
        if let Some(statement) = &statement {
            self.bytes += statement.kept_bytes();
        }
        let before = match statement {
            Some(statement) => self.names.insert(cut(name).into(), statement),
            None => self.names.remove(cut(name)),
        };
        if let Some(before) = &before {
            self.bytes -= before.kept_bytes();
        }
        before
    }

    /// How many bytes are kept for the client's statements: of their texts and of their
    /// classification. They count against the client's limit (`max_client_statement_bytes`). A
    /// statement counts once for each of its names, and in full although other clients know it too.
    /// A text that is not kept counts 0.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many names of prepared statements the client has; at most [`CLIENT_STATEMENTS_LIMIT`].
    #[must_use]
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether the client has no named prepared statement.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Whether the client has a statement whose text is not kept ([`Statement::body`] says why).
    /// Such a session keeps its server connection, because no other can be given the statement.
    #[must_use]
    pub fn any_uncached(&self) -> bool {
        self.uncached_count() > 0
    }

    /// How many of the client's names mean a statement whose text is not kept, which only the
    /// present server connection has. Walks all names.
    #[must_use]
    pub fn uncached_count(&self) -> u64 {
        self.names.values().filter(|statement| statement.body.is_none()).count() as u64
    }

    /// Whether one of the client's statements would mean something else if it were parsed now,
    /// under `settings`: something was fixed at its Parse. Such a session keeps its server
    /// connection. Statements without a kept text do not count, nor do those that were parsed under
    /// unknown settings; false if `settings` are unknown.
    #[must_use]
    pub fn any_fixed_otherwise(&self, settings: ParsedUnder) -> bool {
        self.all_kept().any(|s| s.settings.is_fixed_otherwise(settings))
    }

    /// The ids of the client's statements that would mean something else if they were parsed now,
    /// under `settings`: a setting whose meaning is fixed at Parse has changed since. The caller
    /// does not evict these from the server connection. Sorted; a statement with two names is there
    /// twice. Statements without a kept text, and those parsed under unknown settings, are left
    /// out; empty if `settings` is unknown.
    #[must_use]
    pub fn fixed_otherwise(&self, settings: ParsedUnder) -> Vec<StatementId> {
        in_order(self.all_kept().filter(|s| s.settings.is_fixed_otherwise(settings)))
    }

    /// The ids of the client's statements with a kept text, sorted; a statement with two names is
    /// there twice. None of them is evicted from the server while it is not known under which
    /// settings a Parse would be read there.
    #[must_use]
    pub fn kept(&self) -> Vec<StatementId> {
        in_order(self.all_kept())
    }

    fn all_kept(&self) -> impl Iterator<Item = &Rc<Statement>> {
        self.names.values().filter(|statement| statement.body.is_some())
    }
}

fn in_order<'a>(statements: impl Iterator<Item = &'a Rc<Statement>>) -> Vec<StatementId> {
    let mut ids: Vec<_> = statements.map(|statement| statement.id).collect();
    ids.sort_unstable();
    ids
}

/// What counts of a name: those in texts come uncut.
fn cut(name: &[u8]) -> &[u8] {
    &name[..name.len().min(NAME_BYTES)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_counts_up_to_its_sixty_third_byte() {
        let statement = Rc::new(Statement::large(StatementId(1)));
        let mut names = ClientStatements::default();
        names.set(&[b'a'; 70], Some(statement));
        assert!(names.get(&[b'a'; 63]).is_some() && names.get(&[b'a'; 62]).is_none());
    }
}
