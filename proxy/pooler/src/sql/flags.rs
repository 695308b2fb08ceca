//! What was seen of one statement, a bit each.

use super::kinds::Kinds;

/// What setting anything may leave.
pub(super) const ANY_SETTING: Kinds =
    Kinds::SETTINGS.union(Kinds::ROLE).union(Kinds::UNNAMED_SETTINGS);

/// Facts about a statement, as bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Flags(u32);

impl Flags {
    pub(super) const NONE: Flags = Flags(0);
    /// It is not plain, though it raises nothing.
    pub(super) const NOTED: Flags = Flags(1);
    pub(super) const UPDATE: Flags = Flags(1 << 1);
    pub(super) const PG_SETTINGS: Flags = Flags(1 << 2);
    pub(super) const ROLE: Flags = Flags(1 << 3);
    pub(super) const SEED: Flags = Flags(1 << 4);
    /// A setting's name has a dot.
    pub(super) const DOTTED: Flags = Flags(1 << 5);
    pub(super) const UNLOCK_ALL: Flags = Flags(1 << 6);
    pub(super) const SET_CONFIG: Flags = Flags(1 << 7);
    /// SET LOCAL, TRANSACTION or CONSTRAINTS, unless that is the name of a setting.
    pub(super) const PERHAPS_LOCAL: Flags = Flags(1 << 8);
    pub(super) const SET_LOCAL: Flags = Flags(1 << 9);
    /// SELECT … INTO.
    pub(super) const INTO: Flags = Flags(1 << 10);
    /// The query of DECLARE has begun.
    pub(super) const QUERY: Flags = Flags(1 << 11);
    /// CREATE FUNCTION or PROCEDURE, and whether its `BEGIN ATOMIC` is open.
    pub(super) const ROUTINE: Flags = Flags(1 << 12);
    pub(super) const BODY: Flags = Flags(1 << 13);
    /// PREPARE TRANSACTION with its literal.
    pub(super) const TWO_PHASE: Flags = Flags(1 << 14);
    /// The next token of DO says its language.
    pub(super) const LANGUAGE: Flags = Flags(1 << 15);
    /// The next token must begin a query: `JOIN (SELECT …)`.
    pub(super) const JOINED: Flags = Flags(1 << 16);
    /// A `set_config(` is open.
    pub(super) const CONFIG: Flags = Flags(1 << 17);
    /// It calls a function outside of `pg_catalog`, and leaves nothing otherwise.
    pub(super) const CALLS: Flags = Flags(1 << 18);
    pub(super) const ONLY_CALLS: Flags = Flags(1 << 19);

    /// An UPDATE of `pg_settings`.
    pub(super) const UPDATED_SETTINGS: Flags = Flags(Flags::UPDATE.0 | Flags::PG_SETTINGS.0);

    /// Those with which no statement is plain.
    pub(super) const SPECIAL: Flags =
        Flags(Flags::NOTED.0 | Flags::SET_CONFIG.0 | Flags::UNLOCK_ALL.0 | Flags::CALLS.0);

    /// Those for which the kind of every token matters.
    pub(super) const ATTENTIVE: Flags =
        Flags(Flags::PERHAPS_LOCAL.0 | Flags::LANGUAGE.0 | Flags::JOINED.0 | Flags::CONFIG.0);

    pub(super) fn note(&mut self, other: Flags) {
        self.0 |= other.0;
    }

    pub(super) fn has(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether it has one of `others`.
    pub(super) fn meets(self, others: Flags) -> bool {
        self.0 & others.0 != 0
    }

    pub(super) fn clear(&mut self, other: Flags) {
        self.0 &= !other.0;
    }
}
