//! What a client calls its prepared statements.

use std::rc::Rc;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use pgimbal_wire::extended::NAME_BYTES;

use super::statement::{ParsedUnder, Statement, StatementId};

/// Names that one client may hold at a time. A driver's cache holds some hundreds; the bound keeps
/// one client from filling memory.
pub const CLIENT_STATEMENTS_LIMIT: usize = 65_536;

/// What one client's names mean.
#[derive(Debug, Default)]
pub struct ClientStatements {
    names: HashMap<Box<[u8]>, Rc<Statement>, RandomState>,
    bytes: usize,
}

impl ClientStatements {
    /// What `name` means.
    #[inline]
    pub fn get(&self, name: &[u8]) -> Option<&Rc<Statement>> {
        self.names.get(cut(name))
    }

    /// Gives `name` a meaning or takes it away; returns what it meant before.
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

    /// Bytes of the texts that are kept for them, and of what is known of these. One that other
    /// clients know too counts in full: it stays when they leave.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
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
        self.all_kept().any(|s| s.settings.is_fixed_otherwise(settings))
    }

    /// Those statements, in order.
    #[must_use]
    pub fn fixed_otherwise(&self, settings: ParsedUnder) -> Vec<StatementId> {
        in_order(self.all_kept().filter(|s| s.settings.is_fixed_otherwise(settings)))
    }

    /// The statements with a kept text, in order.
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
