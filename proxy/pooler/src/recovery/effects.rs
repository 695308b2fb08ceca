//! What the texts of one segment do, as far as recovery has to know: all that it decides by when
//! their server connection breaks.

use super::block::Block;
use crate::sql::{AccessKind, Classified, Form, StatementClass};

/// What the texts of one segment (the messages up to a Sync, or a simple query) do together, as far
/// as recovery must know to judge whether it may be run again. Each text adds to it when it is
/// sent; a prepared statement does when it is parsed and again when it is bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SegmentEffects {
    block: Block,
    flags: u8,
}

/// A Query or an Execute is among the messages.
const EXECUTES: u8 = 1;
/// A text does something else than to read.
const MORE_THAN_READS: u8 = 2;
/// A text does something else than to read or to copy rows out of the database.
const MORE_THAN_READS_AND_COPIES: u8 = 4;
/// A text does something else than to begin a transaction block.
const MORE_THAN_BEGINS: u8 = 8;
/// A text may count before the Sync if it is executed.
const MAY_COUNT_EARLY: u8 = 16;

impl SegmentEffects {
    /// The effects of no text: a segment without a message, or one whose messages bring no text.
    pub const NONE: Self = Self { block: Block::Same, flags: 0 };

    /// The effects of an Execute (or the executing half of a simple query); what the statement
    /// itself does was added by its Bind.
    pub const EXECUTE: Self = Self { block: Block::Same, flags: EXECUTES };

    /// The effects of a bound statement whose text is not known: it may write, and commit by itself.
    /// It is taken to begin and end no transaction block.
    pub const UNKNOWN: Self = Self {
        block: Block::Same,
        flags: MORE_THAN_READS | MORE_THAN_READS_AND_COPIES | MORE_THAN_BEGINS | MAY_COUNT_EARLY,
    };

    /// The effects of the text in a Parse, which is not executed yet; the transaction block stays
    /// the same.
    #[must_use]
    pub fn of_parse(classified: &Classified) -> Self {
        let (marks, access) = (classified.marks, classified.access);
        let harmless = classified.leaves_nothing
            && !(marks.begins() || marks.may_commit() || marks.may_change_schema())
            && !access.escapes;
        let reads = harmless && access.begins_as_read();
        let copies = harmless && access.kind == AccessKind::CopiesOut;
        let begins = classified.only() == Some(&Form::Begin);
        let early = access.escapes || marks.may_change_schema();
        let flag = |is_set: bool, flag: u8| if is_set { flag } else { 0 };
        let flags = flag(!reads, MORE_THAN_READS)
            | flag(!(reads || copies), MORE_THAN_READS_AND_COPIES)
            | flag(!begins, MORE_THAN_BEGINS)
            | flag(early, MAY_COUNT_EARLY);
        Self { block: Block::Same, flags }
    }

    /// The effects of a prepared statement that is bound, with what it does to the transaction
    /// block. Added to the segment when the Bind is sent, and not yet executed: [`Self::EXECUTE`]
    /// follows. A plain text leaves the block the same.
    #[must_use]
    pub fn of_bind(class: &StatementClass) -> Self {
        match class {
            StatementClass::Plain(access) => {
                Self::of_parse(&Classified { access: *access, ..Classified::PLAIN })
            }
            StatementClass::Other(classified) => {
                Self { block: Block::of(classified), ..Self::of_parse(classified) }
            }
        }
    }

    /// The effects of a simple query (protocol message Query), whose text is parsed and executed at
    /// once.
    #[must_use]
    pub fn of_query(classified: &Classified) -> Self {
        Self { block: Block::of(classified), ..Self::of_parse(classified) }.then(Self::EXECUTE)
    }

    /// The effects of a text that was sent before it could be classified: it may write, and commit
    /// by itself, so that its segment is never run again. Only what it does to the transaction
    /// block is taken from `classified`.
    #[must_use]
    pub fn of_unread(classified: &Classified) -> Self {
        Self { block: Block::of(classified), ..Self::UNKNOWN }
    }

    /// What `self` and then `next` do together: the last of the two decides of the block, all other
    /// effects are joined.
    #[must_use]
    pub const fn then(self, next: Self) -> Self {
        Self { block: self.block.then(next.block), flags: self.flags | next.flags }
    }

    /// What the segment does to the transaction block, if every statement succeeds; `Block::Same`
    /// for nothing.
    #[must_use]
    pub const fn block(self) -> Block {
        self.block
    }

    /// Whether every text only reads, as far as its words show (a call like `select f()` counts as
    /// a read), and does nothing that outlives it although a READ ONLY transaction allows it.
    /// Recovery may run such a segment again. True for [`Self::NONE`]; false for an empty query,
    /// BEGIN, COPY and a text that is not known ([`Self::UNKNOWN`]).
    #[must_use]
    pub const fn only_reads(self) -> bool {
        self.flags & MORE_THAN_READS == 0
    }

    /// As [`Self::only_reads`], where COPY TO STDOUT counts as a read. It cannot be run again,
    /// because nobody knows how much of it has arrived.
    #[must_use]
    pub const fn only_reads_or_copies_out(self) -> bool {
        self.flags & MORE_THAN_READS_AND_COPIES == 0
    }

    /// Whether the segment executes one statement that begins a transaction block, and does nothing
    /// else: it may be sent to another server as if for the first time. False if nothing is
    /// executed.
    #[must_use]
    pub const fn only_begins(self) -> bool {
        self.flags & (EXECUTES | MORE_THAN_BEGINS) == EXECUTES
    }

    /// Whether something of the segment may take effect before its Sync: a text is executed that
    /// escapes the transaction, or may commit by itself (a procedure, CREATE INDEX CONCURRENTLY).
    /// False if nothing is executed. If true, the segment is not sent elsewhere after a break.
    #[must_use]
    pub const fn counts_early(self) -> bool {
        const BOTH: u8 = EXECUTES | MAY_COUNT_EARLY;
        self.flags & BOTH == BOTH
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::{self, Calls, Reading, Readings};

    fn classified(text: &str) -> Classified {
        sql::classify(text.as_bytes(), Readings::One(Reading::default()), Calls::Text)
    }

    fn query(text: &str) -> SegmentEffects {
        SegmentEffects::of_query(&classified(text))
    }

    fn bound(text: &str) -> SegmentEffects {
        SegmentEffects::of_bind(&StatementClass::from(classified(text)))
    }

    #[test]
    fn what_only_reads_is_told_in_both_protocols() {
        for text in ["select 1", "(table t)", "show x", "explain select 1", "select f(); select 2"]
        {
            for effects in [query(text), bound(text)] {
                assert!(effects.only_reads() && effects.only_reads_or_copies_out(), "{text}");
                assert!(!effects.only_begins() && !effects.counts_early(), "{text}");
            }
        }
        for text in [
            "insert into t values (1)",
            "select lo_create(0)",
            "select set_config('a', 'b', false)",
            "select 1 into t",
            "select 1; commit",
            "with a as (select 1) select pg_advisory_lock(1)",
            "",
            "begin",
        ] {
            for effects in [query(text), bound(text)] {
                assert!(!effects.only_reads() && !effects.only_reads_or_copies_out(), "{text}");
            }
        }
        let copy = query("copy t to stdout");
        assert!(!copy.only_reads() && copy.only_reads_or_copies_out());
    }

    #[test]
    fn each_text_of_a_segment_counts() {
        let read = bound("select 1").then(SegmentEffects::EXECUTE);
        assert!(read.then(query("select 2")).only_reads());
        assert!(!read.then(bound("delete from t")).only_reads());
        assert!(!read.then(SegmentEffects::UNKNOWN).only_reads());
        assert!(SegmentEffects::NONE.only_reads());
        let begin = bound("begin");
        assert!(!begin.only_begins(), "nothing is executed");
        assert!(begin.then(SegmentEffects::EXECUTE).only_begins());
        assert!(!begin.then(query("select 1")).only_begins());
        assert_eq!(query("begin").block(), Block::Opens);
        assert_eq!(SegmentEffects::of_parse(&classified("begin")).block(), Block::Same);
    }

    #[test]
    fn what_escapes_or_commits_by_itself_counts_early_once_it_is_executed() {
        for text in ["call p()", "create index concurrently on t (a)", "select pg_notify('a', '')"]
        {
            let parsed = SegmentEffects::of_parse(&classified(text));
            assert!(!parsed.counts_early(), "{text}");
            assert!(parsed.then(SegmentEffects::EXECUTE).counts_early(), "{text}");
        }
        let unknown = SegmentEffects::UNKNOWN;
        assert!(!unknown.counts_early() && unknown.then(SegmentEffects::EXECUTE).counts_early());
        assert!(!query("insert into t values (1)").counts_early());
    }
}
