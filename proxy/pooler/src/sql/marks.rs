//! Where a text stands to transactions and to the schema.

/// What a text does to transactions and to the schema: a set of marks, each of which holds if at
/// least one of the text's statements has it. The default is the empty set. A text that cannot be
/// read has all marks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Marks(u8);

impl Marks {
    pub(super) const NONE: Marks = Marks(0);
    pub(super) const BEGINS: Marks = Marks(1);
    pub(super) const MAY_COMMIT: Marks = Marks(2);
    pub(super) const SCHEMA: Marks = Marks(4);
    pub(super) const COMMITS_ON_ITS_WAY: Marks = Marks(8);
    pub(super) const ALL: Marks = Marks(15);

    /// Whether a statement begins a transaction block: BEGIN or START TRANSACTION. A pool in
    /// statement mode refuses such a text with SQLSTATE 0A000.
    #[must_use]
    pub const fn begins(self) -> bool {
        self.has(Marks::BEGINS)
    }

    /// Whether a statement ends a transaction: COMMIT, END, PREPARE TRANSACTION, ROLLBACK or ABORT.
    /// A text that is only a ROLLBACK has the mark too;
    /// [`Classified::only`](super::Classified::only) tells it from the others.
    #[must_use]
    pub const fn may_commit(self) -> bool {
        self.has(Marks::MAY_COMMIT)
    }

    /// Whether a statement may change the schema (CREATE, ALTER, DROP, SELECT INTO, DO, CALL and
    /// the like), so that plans made earlier may no longer fit, and event triggers may run. When
    /// the text is sent, this is noted at its server connection, and where the database may have
    /// event triggers the text raises [`Kinds::ANYTHING`](super::Kinds::ANYTHING).
    #[must_use]
    pub const fn may_change_schema(self) -> bool {
        self.has(Marks::SCHEMA)
    }

    /// Whether a statement may commit before it has ended (CALL, DO, CREATE INDEX CONCURRENTLY,
    /// VACUUM, CREATE DATABASE and the like), so that its failure does not prove that nothing of it
    /// is left. When the text is sent, this is noted at its server connection until ReadyForQuery.
    #[must_use]
    pub const fn may_commit_on_its_way(self) -> bool {
        self.has(Marks::COMMITS_ON_ITS_WAY)
    }

    pub(super) const fn insert(&mut self, other: Marks) {
        self.0 |= other.0;
    }

    pub(super) const fn remove(&mut self, other: Marks) {
        self.0 &= !other.0;
    }

    const fn has(self, other: Marks) -> bool {
        self.0 & other.0 != 0
    }
}
