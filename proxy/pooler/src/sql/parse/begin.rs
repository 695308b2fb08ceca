//! How a text begins a transaction block: the characteristics in its BEGIN or START TRANSACTION.

use crate::sql::Reading;
use crate::sql::cursor::Cursor;

/// The characteristics that BEGIN or START TRANSACTION gives its transaction block; of several that
/// contradict each other the last counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlockMode {
    /// READ ONLY or READ WRITE.
    pub access: BlockAccess,
    /// ISOLATION LEVEL.
    pub isolation: BlockIsolation,
}

/// Whether a transaction block may write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BlockAccess {
    /// As `default_transaction_read_only` says.
    #[default]
    Default,
    /// READ ONLY.
    ReadOnly,
    /// READ WRITE.
    ReadWrite,
}

/// The isolation level of a transaction block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BlockIsolation {
    /// As `default_transaction_isolation` says.
    #[default]
    Default,
    /// SERIALIZABLE, which no standby allows.
    Serializable,
    /// Any other.
    Other,
}

/// Returns how the first statement of `text` begins a transaction block. `None` if it begins none,
/// or in a way that is not known.
#[must_use]
pub fn block_mode(text: &[u8], reading: Reading) -> Option<BlockMode> {
    let mut cursor = Cursor::new(text, true, reading);
    let cursor = &mut cursor;
    if cursor.word("begin") {
        let _ = cursor.word("work") || cursor.word("transaction");
    } else if !cursor.two_words("start", "transaction") {
        return None;
    }
    let mut mode = BlockMode::default();
    while characteristic(cursor, &mut mode)? {
        cursor.mark(b',');
    }
    (cursor.is_at_end() || cursor.mark(b';')).then_some(mode)
}

/// Goes past one characteristic, if one is next. `None` for one that is not known.
fn characteristic(cursor: &mut Cursor<'_>, mode: &mut BlockMode) -> Option<bool> {
    if cursor.two_words("read", "only") {
        mode.access = BlockAccess::ReadOnly;
    } else if cursor.two_words("read", "write") {
        mode.access = BlockAccess::ReadWrite;
    } else if cursor.two_words("isolation", "level") {
        mode.isolation = if cursor.word("serializable") {
            BlockIsolation::Serializable
        } else if cursor.two_words("repeatable", "read")
            || cursor.two_words("read", "committed")
            || cursor.two_words("read", "uncommitted")
        {
            BlockIsolation::Other
        } else {
            return None;
        };
    } else {
        return Some(cursor.word("deferrable") || cursor.two_words("not", "deferrable"));
    }
    Some(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characteristics_are_read_in_any_order_and_the_last_counts() {
        use BlockAccess::{Default, ReadOnly, ReadWrite};
        let mode = |text: &str| block_mode(text.as_bytes(), Reading::default());
        for (text, access, isolation) in [
            ("begin", Default, BlockIsolation::Default),
            ("BEGIN WORK", Default, BlockIsolation::Default),
            ("begin transaction read only", ReadOnly, BlockIsolation::Default),
            ("/* a */ BEGIN -- b\n READ ONLY; select 1", ReadOnly, BlockIsolation::Default),
            ("start transaction read only, read write;", ReadWrite, BlockIsolation::Default),
            (
                "begin isolation level repeatable read read only not deferrable",
                ReadOnly,
                BlockIsolation::Other,
            ),
            (
                "begin isolation level serializable, read only, deferrable",
                ReadOnly,
                BlockIsolation::Serializable,
            ),
        ] {
            assert_eq!(mode(text), Some(BlockMode { access, isolation }), "{text}");
        }
        for text in ["select 1", "begin read", "begin isolation level x", "start", "", "begin 'a'"]
        {
            assert_eq!(mode(text), None, "{text}");
        }
    }
}
