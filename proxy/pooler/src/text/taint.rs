//! What a text does that a shared server connection would leak or lose, and where it stands to
//! transactions.

/// One reason why a session must keep its server connection until the state is gone or it leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Taint {
    /// SET or RESET beside other statements (see [`super::sequence()`]).
    SetInLongerText,
    /// A SET whose form or size is not followed (above [`super::KEPT`] bytes, `U&''`, `FROM CURRENT`).
    SetUnread,
    /// As the two before, where it may change `role` or `session_authorization`, which RESET ALL
    /// leaves alone.
    RoleUntracked,
    /// `set_config` that is not transaction-local, or an UPDATE of `pg_settings`.
    SetConfig,
    /// SQL PREPARE: the statement lives on the server connection.
    SqlPrepare,
    /// DEALLOCATE beside other statements: it may have closed statements that the pooler made.
    DeallocateInLongerText,
    /// LISTEN.
    Listen,
    /// A temporary table, view or sequence, or a name in `pg_temp`.
    TemporaryTable,
    /// A session-level advisory lock.
    AdvisoryLock,
    /// A cursor that outlives its transaction.
    HoldCursor,
    /// LOAD: the library stays in the server process.
    Load,
    /// A function that leaves state in the server session: `setseed`, `dblink_connect`,
    /// `pg_replication_origin_session_setup`.
    SessionFunction,
    /// A DO block that names one of the above.
    DoBlock,
    /// The text cannot be followed: a dollar-quote tag above 64 bytes, or a `U&""` identifier.
    Unjudged,
    /// More settings, or larger ones, than are tracked for one client. Never found in a text:
    /// given by [`crate::settings::ClientSettings`].
    TooManySettings,
}

impl Taint {
    /// Every taint, in the order of their bits.
    pub const ALL: [Taint; 15] = [
        Taint::SetInLongerText,
        Taint::SetUnread,
        Taint::RoleUntracked,
        Taint::SetConfig,
        Taint::SqlPrepare,
        Taint::DeallocateInLongerText,
        Taint::Listen,
        Taint::TemporaryTable,
        Taint::AdvisoryLock,
        Taint::HoldCursor,
        Taint::Load,
        Taint::SessionFunction,
        Taint::DoBlock,
        Taint::Unjudged,
        Taint::TooManySettings,
    ];

    /// The reason, as SHOW CLIENTS and metric labels say it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Taint::SetInLongerText => "set_in_longer_text",
            Taint::SetUnread => "set_unread",
            Taint::RoleUntracked => "role_untracked",
            Taint::SetConfig => "set_config",
            Taint::SqlPrepare => "sql_prepare",
            Taint::DeallocateInLongerText => "deallocate_in_longer_text",
            Taint::Listen => "listen",
            Taint::TemporaryTable => "temporary_table",
            Taint::AdvisoryLock => "advisory_lock",
            Taint::HoldCursor => "hold_cursor",
            Taint::Load => "load",
            Taint::SessionFunction => "session_function",
            Taint::DoBlock => "do_block",
            Taint::Unjudged => "unjudged",
            Taint::TooManySettings => "too_many_settings",
        }
    }
}

/// A set of [`Taint`]s.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Taints(u16);

impl Taints {
    /// No taint.
    pub const NONE: Taints = Taints(0);

    /// Whether there is none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether `taint` is among them.
    pub const fn contains(self, taint: Taint) -> bool {
        self.0 & (1 << taint as u16) != 0
    }

    /// Adds `taint`.
    pub const fn insert(&mut self, taint: Taint) {
        self.0 |= 1 << taint as u16;
    }

    /// Removes `taint`.
    pub const fn remove(&mut self, taint: Taint) {
        self.0 &= !(1 << taint as u16);
    }

    /// Those of both.
    #[must_use]
    pub const fn union(self, other: Taints) -> Taints {
        Taints(self.0 | other.0)
    }

    /// Each of them, in the order of [`Taint::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Taint> {
        Taint::ALL.into_iter().filter(move |taint| self.contains(*taint))
    }

    /// The first of them, the one to show when there is room for one.
    pub fn first(self) -> Option<Taint> {
        self.iter().next()
    }
}

impl From<Taint> for Taints {
    fn from(taint: Taint) -> Taints {
        Taints(1 << taint as u16)
    }
}

impl std::fmt::Debug for Taints {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

/// What a text does to transactions and to the schema, whichever of its statements does it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Marks(u8);

impl Marks {
    pub(super) const BEGINS: Marks = Marks(1);
    pub(super) const MAY_COMMIT: Marks = Marks(2);
    pub(super) const SAVEPOINTS: Marks = Marks(4);
    pub(super) const SCHEMA: Marks = Marks(8);

    /// A statement begins a transaction block: BEGIN or START TRANSACTION.
    pub const fn begins(self) -> bool {
        self.has(Marks::BEGINS)
    }

    /// A statement ends a transaction: COMMIT, END, PREPARE TRANSACTION, ROLLBACK or ABORT. Also
    /// true for the END of a `BEGIN ATOMIC` body, to be on the safe side.
    pub const fn may_commit(self) -> bool {
        self.has(Marks::MAY_COMMIT)
    }

    /// SAVEPOINT, RELEASE or ROLLBACK TO. In a longer text, which settings hold afterwards cannot
    /// be known if any was changed in this transaction.
    pub const fn savepoints(self) -> bool {
        self.has(Marks::SAVEPOINTS)
    }

    /// A statement may change the schema (CREATE, ALTER, DROP, DO, CALL and the like), so that
    /// plans made earlier may no longer fit.
    pub const fn may_change_schema(self) -> bool {
        self.has(Marks::SCHEMA)
    }

    pub(super) const fn insert(&mut self, other: Marks) {
        self.0 |= other.0;
    }

    pub(super) const fn union(self, other: Marks) -> Marks {
        Marks(self.0 | other.0)
    }

    pub(super) const fn remove(&mut self, other: Marks) {
        self.0 &= !other.0;
    }

    const fn has(self, other: Marks) -> bool {
        self.0 & other.0 != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_taint_has_its_own_bit_and_reason() {
        let mut all = Taints::NONE;
        for (index, taint) in Taint::ALL.into_iter().enumerate() {
            assert_eq!(taint as usize, index);
            assert!(!all.contains(taint));
            all.insert(taint);
        }
        assert!(all.iter().eq(Taint::ALL));
        let reasons: std::collections::HashSet<_> = Taint::ALL.map(Taint::as_str).into();
        assert_eq!(reasons.len(), Taint::ALL.len());
        all.remove(Taint::SetInLongerText);
        assert_eq!(all.first(), Some(Taint::SetUnread));
    }
}
