//! The kinds of state that a session can leave on its server connection.

/// A set of kinds of session state.
///
/// Most can be asked about ([`Kinds::ASKED`]): the server says what is there. The others
/// ([`Kinds::HIDDEN`]) no query shows: a server connection that carries one is reset, or closed,
/// before it serves another session.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Kinds(u16);

impl Kinds {
    /// No kind.
    pub const NONE: Kinds = Kinds(0);
    /// Settings (`pg_settings.source = 'session'`, and custom ones by name).
    pub const SETTINGS: Kinds = Kinds(1);
    /// `role` and `session_authorization`.
    pub const ROLE: Kinds = Kinds(1 << 1);
    /// Temporary tables, views, sequences, functions and types.
    pub const TEMPORARY: Kinds = Kinds(1 << 2);
    /// Session-level advisory locks.
    pub const LOCKS: Kinds = Kinds(1 << 3);
    /// Channels that LISTEN has named.
    pub const CHANNELS: Kinds = Kinds(1 << 4);
    /// Cursors WITH HOLD.
    pub const CURSORS: Kinds = Kinds(1 << 5);
    /// Statements that SQL PREPARE or DEALLOCATE may have made or taken away.
    pub const STATEMENTS: Kinds = Kinds(1 << 6);
    /// The session's replication origin.
    pub const ORIGIN: Kinds = Kinds(1 << 7);
    /// Temporary replication slots.
    pub const SLOTS: Kinds = Kinds(1 << 8);
    /// Connections that dblink keeps open.
    pub const DBLINK: Kinds = Kinds(1 << 9);
    /// Custom settings under names that nobody knows, and session state of extensions.
    pub const UNNAMED_SETTINGS: Kinds = Kinds(1 << 10);
    /// The seed of `random()`.
    pub const SEED: Kinds = Kinds(1 << 11);
    /// A library or an interpreter that stays in the server process.
    pub const LOADED: Kinds = Kinds(1 << 12);

    /// What the server can be asked about.
    pub const ASKED: Kinds = Kinds((1 << 10) - 1);
    /// What no query shows.
    pub const HIDDEN: Kinds = Kinds(0b111 << 10);
    /// What code may leave of which only its author knows: DO, CALL, EXECUTE of what is not known,
    /// a text that cannot be read.
    pub const ANYTHING: Kinds = Kinds(
        Self::SETTINGS.0
            | Self::ROLE.0
            | Self::TEMPORARY.0
            | Self::LOCKS.0
            | Self::CHANNELS.0
            | Self::CURSORS.0
            | Self::STATEMENTS.0
            | Self::UNNAMED_SETTINGS.0
            | Self::SEED.0,
    );

    const NAMES: [(&'static str, Kinds); 13] = [
        ("settings", Self::SETTINGS),
        ("role", Self::ROLE),
        ("temporary_objects", Self::TEMPORARY),
        ("advisory_locks", Self::LOCKS),
        ("channels", Self::CHANNELS),
        ("holdable_cursors", Self::CURSORS),
        ("sql_statements", Self::STATEMENTS),
        ("replication_origin", Self::ORIGIN),
        ("replication_slots", Self::SLOTS),
        ("dblink", Self::DBLINK),
        ("unnamed_settings", Self::UNNAMED_SETTINGS),
        ("seed", Self::SEED),
        ("loaded", Self::LOADED),
    ];

    /// Whether there is none.
    #[inline]
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether `other` and this set have a kind in common.
    #[inline]
    #[must_use]
    pub const fn meets(self, other: Kinds) -> bool {
        self.0 & other.0 != 0
    }

    /// The kinds of both.
    #[inline]
    #[must_use]
    pub const fn union(self, other: Kinds) -> Kinds {
        Kinds(self.0 | other.0)
    }

    /// The kinds that both have.
    #[inline]
    #[must_use]
    pub const fn and(self, other: Kinds) -> Kinds {
        Kinds(self.0 & other.0)
    }

    /// The kinds of this set that are not in `other`.
    #[inline]
    #[must_use]
    pub const fn without(self, other: Kinds) -> Kinds {
        Kinds(self.0 & !other.0)
    }

    /// Adds the kinds of `other`.
    #[inline]
    pub const fn insert(&mut self, other: Kinds) {
        self.0 |= other.0;
    }

    /// Takes the kinds of `other` away.
    #[inline]
    pub const fn remove(&mut self, other: Kinds) {
        self.0 &= !other.0;
    }

    /// Each kind's name, as metric labels and SHOW say it.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Self::NAMES.into_iter().filter(move |(_, kind)| self.meets(*kind)).map(|(name, _)| name)
    }

    /// Each kind by itself.
    pub fn iter(self) -> impl Iterator<Item = Kinds> {
        Self::NAMES.into_iter().map(|(_, kind)| kind).filter(move |kind| self.meets(*kind))
    }
}

impl std::fmt::Debug for Kinds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}
