//! The kinds of state that a session can leave on its server connection.

/// A set of kinds of session state: what a session can leave on its server connection, so that
/// another session would find it there. The default is the empty set.
///
/// Most can be asked about ([`Kinds::ASKED`]): the server says what is there. The others
/// ([`Kinds::HIDDEN`]) no query shows: a server connection that carries one is reset, or closed,
/// before it serves another session.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Kinds(u16);

impl Kinds {
    /// The empty set: no session state.
    pub const NONE: Kinds = Kinds(0);
    /// Settings that SET or `set_config` has changed until the session ends (`pg_settings.source =
    /// 'session'`, and custom ones by name).
    pub const SETTINGS: Kinds = Kinds(1);
    /// The settings `role` (SET ROLE) and `session_authorization` (SET SESSION AUTHORIZATION):
    /// whose rights the session's statements have.
    pub const ROLE: Kinds = Kinds(1 << 1);
    /// Temporary tables, views, sequences, functions and types: what is in the schema `pg_temp`.
    pub const TEMPORARY: Kinds = Kinds(1 << 2);
    /// Session-level advisory locks (`pg_locks`), as `pg_advisory_lock` takes them; they end with
    /// their session.
    pub const LOCKS: Kinds = Kinds(1 << 3);
    /// Channels that LISTEN has named and UNLISTEN has not (`pg_listening_channels()`).
    pub const CHANNELS: Kinds = Kinds(1 << 4);
    /// Cursors WITH HOLD, which outlive their transaction (DECLARE, `pg_cursors`).
    pub const CURSORS: Kinds = Kinds(1 << 5);
    /// Prepared statements that SQL PREPARE or DEALLOCATE may have made or taken away
    /// (`pg_prepared_statements`).
    pub const STATEMENTS: Kinds = Kinds(1 << 6);
    /// The session's replication origin (`pg_replication_origin_session_setup`): no reset takes it
    /// off.
    pub const ORIGIN: Kinds = Kinds(1 << 7);
    /// Temporary replication slots (`pg_replication_slots`), which are dropped when their session
    /// ends: no reset takes them off.
    pub const SLOTS: Kinds = Kinds(1 << 8);
    /// Connections to other databases that the extension dblink keeps open: no reset takes them
    /// off.
    pub const DBLINK: Kinds = Kinds(1 << 9);
    /// Custom settings under names that nobody knows, and session state of extensions: what code
    /// that no text shows may have left.
    pub const UNNAMED_SETTINGS: Kinds = Kinds(1 << 10);
    /// The seed of `random()`, which `setseed` or SET seed has chosen.
    pub const SEED: Kinds = Kinds(1 << 11);
    /// A library (LOAD) or an interpreter that stays in the server process: it ends only with the
    /// server connection.
    pub const LOADED: Kinds = Kinds(1 << 12);

    /// The kinds about which the server can be asked: all from [`Self::SETTINGS`] to
    /// [`Self::DBLINK`].
    pub const ASKED: Kinds = Kinds((1 << 10) - 1);
    /// The kinds that no query shows: [`Self::UNNAMED_SETTINGS`], [`Self::SEED`] and
    /// [`Self::LOADED`].
    pub const HIDDEN: Kinds = Kinds(0b111 << 10);
    /// The kinds that code may leave of which only its author knows: DO, CALL, EXECUTE of what is
    /// not known, a text that cannot be read. Origins, slots, dblink and libraries are not among
    /// them.
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

    /// Whether the set has no kind: nothing was left in the session.
    #[inline]
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether `other` and this set have a kind in common; `false` if either is empty.
    #[inline]
    #[must_use]
    pub const fn meets(self, other: Kinds) -> bool {
        self.0 & other.0 != 0
    }

    /// Returns the kinds that are in this set or in `other`; neither of them is changed.
    #[inline]
    #[must_use]
    pub const fn union(self, other: Kinds) -> Kinds {
        Kinds(self.0 | other.0)
    }

    /// Returns the kinds that are in this set and in `other`; empty if they have none in common.
    #[inline]
    #[must_use]
    pub const fn and(self, other: Kinds) -> Kinds {
        Kinds(self.0 & other.0)
    }

    /// Returns the kinds of this set that are not in `other`; empty if all are.
    #[inline]
    #[must_use]
    pub const fn without(self, other: Kinds) -> Kinds {
        Kinds(self.0 & !other.0)
    }

    /// Adds the kinds of `other` to this set; kinds that it has already change nothing.
    #[inline]
    pub const fn insert(&mut self, other: Kinds) {
        self.0 |= other.0;
    }

    /// Takes the kinds of `other` out of this set; kinds that it does not have change nothing.
    #[inline]
    pub const fn remove(&mut self, other: Kinds) {
        self.0 &= !other.0;
    }

    /// Returns the name of each kind in the set, such as `advisory_locks`, as metric labels, logs
    /// and SHOW say it; always in the order of the constants above. No names for the empty set.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Self::NAMES.into_iter().filter(move |(_, kind)| self.meets(*kind)).map(|(name, _)| name)
    }
}

impl std::fmt::Debug for Kinds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}
