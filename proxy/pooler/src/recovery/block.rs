//! What a segment does to its client's transaction block, as far as its texts say: what followed a
//! BEGIN that is lost must not run outside of a transaction.

use crate::sql::{Chain, Classified, Form};

/// What a segment (the messages up to a Sync, or a simple query) or a text does to its client's
/// transaction block, if every statement of it succeeds. `Same` by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Block {
    /// The segment neither begins nor ends a block, or its texts do not show it.
    #[default]
    Same,
    /// A block is open behind the segment: its last such statement was BEGIN.
    Opens,
    /// No block is open behind the segment: its last such statement was COMMIT, ROLLBACK or PREPARE
    /// TRANSACTION (without AND CHAIN).
    Ends,
}

impl Block {
    /// What a classified text does to the transaction block. A text that cannot be read counts as
    /// one that begins no block: its client might never end it. `Same` for an empty text, and for
    /// COMMIT or ROLLBACK with AND CHAIN; savepoints do not count.
    #[must_use]
    pub fn of(classified: &Classified) -> Self {
        classified.steps().iter().fold(Self::Same, |before, step| {
            before.then(match &step.form {
                Form::Begin => Self::Opens,
                Form::Commit(Chain::No) | Form::Rollback(Chain::No) | Form::PrepareTransaction => {
                    Self::Ends
                }
                _ => Self::Same,
            })
        })
    }

    /// What `self` and then `next` do together: the last of them that is not `Same` decides.
    #[must_use]
    pub const fn then(self, next: Self) -> Self {
        match next {
            Self::Same => self,
            Self::Opens | Self::Ends => next,
        }
    }

    /// Whether a transaction block is open behind the segment, where one `was_open` before it;
    /// assumes that every statement succeeds.
    #[must_use]
    pub const fn leaves_open(self, was_open: bool) -> bool {
        match self {
            Self::Same => was_open,
            Self::Opens => true,
            Self::Ends => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::{self, Calls, Reading, Readings};

    #[test]
    fn the_last_word_on_the_block_counts() {
        for (text, block) in [
            ("select 1", Block::Same),
            ("savepoint a; rollback to a", Block::Same),
            ("begin", Block::Opens),
            ("/* a */ START TRANSACTION READ ONLY; select 1", Block::Opens),
            ("begin; select 1; commit", Block::Ends),
            ("commit; begin", Block::Opens),
            ("rollback", Block::Ends),
            ("commit and chain", Block::Same),
            ("prepare transaction 'a'", Block::Ends),
        ] {
            let reading = Readings::One(Reading::default());
            let classified = sql::classify(text.as_bytes(), reading, Calls::Text);
            assert_eq!(Block::of(&classified), block, "{text}");
        }
    }
}
