//! Why a session keeps its server connection beyond the end of a transaction.

use std::time::{Duration, Instant};

use crate::pool::shared::PinSlot;
use crate::sql::Kinds;

/// A reason why a session keeps its server connection beyond the end of a transaction (is pinned).
/// "The server has shown" means the proxy's own question to the server, after the transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum PinReason {
    /// The server has shown temporary tables or other temporary objects (CREATE TEMPORARY TABLE).
    /// DISCARD TEMP, or dropping them, ends the reason.
    TemporaryObjects,
    /// The server has shown a session-level advisory lock (`pg_advisory_lock`), until that is
    /// unlocked.
    AdvisoryLock,
    /// The server has shown a channel that the session listens to (LISTEN), until UNLISTEN.
    Listen,
    /// The server has shown a cursor WITH HOLD (DECLARE), until that is closed.
    HoldCursor,
    /// The server has shown statements of SQL PREPARE that the proxy does not know, because it has
    /// not read the texts that made them; until DEALLOCATE.
    SqlPrepare,
    /// The server has shown that the session has set up a replication origin
    /// (`pg_replication_origin_session_setup`).
    ReplicationOrigin,
    /// The server has shown a temporary replication slot of the session, until that is dropped.
    ReplicationSlot,
    /// The session may have opened a connection with `dblink_connect`; the server cannot be asked
    /// about that, so the reason stays until DISCARD ALL or the end of the session.
    Dblink,
    /// The server was asked what the session has left, and has refused (42501) or not answered. An
    /// answer to a later question ends the reason, unless the server refuses some kinds for good.
    Unknown,
    /// The client has more settings, or larger ones, than are kept for one client (64 and 16,384
    /// bytes), or more than 256 savepoints behind a changed setting; until DISCARD ALL.
    TooManySettings,
    /// The session may have state that no query shows (such as custom settings under unknown names,
    /// the seed of `random()`, a loaded library), and `hidden_state = "pin"` is configured; until
    /// DISCARD ALL.
    HiddenState,
    /// The text of one of the client's prepared statements is above the limit
    /// (`max_statement_bytes`), so that only this server connection has the statement; until the
    /// client closes or replaces it.
    LargeStatement,
    /// A named prepared statement of the client's was parsed under settings that do not hold any
    /// more; parsed again, it would mean something else. The reason ends when the settings that
    /// matter are those again, or the statement is closed.
    StatementUnderOlderSettings,
}

/// A set of [`PinReason`]s, one bit each; empty by default.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct PinReasons(u16);

/// The reasons why one session is pinned to its server connection, since when, and its place among
/// the pool's pinned sessions (`max_pinned`). Without a reason the session is not pinned.
#[derive(Debug, Default)]
pub struct Pin {
    reasons: PinReasons,
    /// Kinds of state that it may have, and about which the server does not answer.
    denied: Kinds,
    slot: Option<PinSlot>,
    since: Option<Instant>,
}

/// The kinds of state that the server shows, and the reason that each is.
const SHOWN: [(Kinds, PinReason); 7] = [
    (Kinds::TEMPORARY, PinReason::TemporaryObjects),
    (Kinds::LOCKS, PinReason::AdvisoryLock),
    (Kinds::CHANNELS, PinReason::Listen),
    (Kinds::CURSORS, PinReason::HoldCursor),
    (Kinds::STATEMENTS, PinReason::SqlPrepare),
    (Kinds::ORIGIN, PinReason::ReplicationOrigin),
    (Kinds::SLOTS, PinReason::ReplicationSlot),
];

impl PinReason {
    const ALL: [Self; 13] = [
        Self::TemporaryObjects,
        Self::AdvisoryLock,
        Self::Listen,
        Self::HoldCursor,
        Self::SqlPrepare,
        Self::ReplicationOrigin,
        Self::ReplicationSlot,
        Self::Dblink,
        Self::Unknown,
        Self::TooManySettings,
        Self::HiddenState,
        Self::LargeStatement,
        Self::StatementUnderOlderSettings,
    ];

    /// The reason's name in lower case, as SHOW CLIENTS and metric labels have it; each reason has
    /// its own.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TemporaryObjects => "temporary_table",
            Self::AdvisoryLock => "advisory_lock",
            Self::Listen => "listen",
            Self::HoldCursor => "hold_cursor",
            Self::SqlPrepare => "sql_prepare",
            Self::ReplicationOrigin => "replication_origin",
            Self::ReplicationSlot => "replication_slot",
            Self::Dblink => "dblink",
            Self::Unknown => "unknown",
            Self::TooManySettings => "too_many_settings",
            Self::HiddenState => "hidden_state",
            Self::LargeStatement => "large_statement",
            Self::StatementUnderOlderSettings => "statement_under_older_settings",
        }
    }
}

impl PinReasons {
    /// Whether the set contains `reason`.
    #[must_use]
    pub const fn contains(self, reason: PinReason) -> bool {
        self.0 & (1 << reason as u16) != 0
    }

    const fn set(&mut self, reason: PinReason, holds: bool) {
        if holds {
            self.0 |= 1 << reason as u16;
        } else {
            self.0 &= !(1 << reason as u16);
        }
    }

    fn iter(self) -> impl Iterator<Item = PinReason> {
        PinReason::ALL.into_iter().filter(move |reason| self.contains(*reason))
    }
}

impl std::fmt::Debug for PinReasons {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

impl Pin {
    /// Whether the session is pinned, for any reason: it keeps its server connection after the
    /// transaction.
    #[inline]
    #[must_use]
    pub const fn is_set(&self) -> bool {
        self.reasons.0 != 0
    }

    /// Whether the session holds a place among the pool's pinned sessions (`max_pinned`) already,
    /// so that further reasons need no other place.
    #[must_use]
    pub const fn has_slot(&self) -> bool {
        self.slot.is_some()
    }

    /// Stores the place among the pool's pinned sessions (`max_pinned`) that the session was given,
    /// before the statement that needs it runs or once the server has shown state. It is freed by
    /// [`Self::clear`], with the last reason, or by [`Self::drop_unused_place`]; a place stored
    /// before is freed too. The session is not pinned by this alone.
    pub fn hold(&mut self, slot: PinSlot) {
        self.slot = Some(slot);
    }

    /// Frees the place among the pool's pinned sessions, if the session is not pinned: the
    /// statement for which it was taken has left nothing. Called when the session's server
    /// connection goes back to the pool or is gone; does nothing for a pinned session.
    #[inline]
    pub fn drop_unused_place(&mut self) {
        if !self.is_set() {
            self.slot = None;
        }
    }

    /// Adds a reason (`holds` is true) or takes it away; a reason that is there already, or is not
    /// there, changes nothing. Without any reason left the place among the pinned sessions is
    /// freed. `now` becomes the beginning of the pin if there was no reason before. After adding,
    /// the caller takes a place if [`Self::has_slot`] is false.
    pub fn set(&mut self, reason: PinReason, holds: bool, now: Instant) {
        self.reasons.set(reason, holds);
        if self.is_set() {
            self.since.get_or_insert(now);
        } else {
            *self = Self::default();
        }
    }

    /// Notes the server's answer to a question about the kinds `asked`, of which it has `shown`
    /// some: a reason is added for each of those, and the reasons for the others among `asked` are
    /// taken away. Kinds that are not in `asked`, and settings and the role, which never pin,
    /// change nothing. `now` is the beginning of a new pin.
    pub fn show(&mut self, asked: Kinds, shown: Kinds, now: Instant) {
        for (kind, reason) in SHOWN {
            if asked.meets(kind) {
                self.set(reason, shown.meets(kind), now);
            }
        }
    }

    /// Notes that the server refuses to say whether the session has state of these kinds (42501):
    /// the session is pinned as [`PinReason::Unknown`], and stays so when other questions are
    /// answered.
    pub fn deny(&mut self, kinds: Kinds, now: Instant) {
        self.denied.insert(kinds);
        self.set(PinReason::Unknown, true, now);
    }

    /// Notes that a question was answered at `now`, which is only passed to [`Self::set`]:
    /// [`PinReason::Unknown`] is taken away, unless the server
    /// refuses to answer about some kinds ([`Self::deny`]). [`Self::show`] follows with what the
    /// answer says.
    pub fn answered(&mut self, now: Instant) {
        if self.denied.is_empty() {
            self.set(PinReason::Unknown, false, now);
        }
    }

    /// The kinds of state for which the session is pinned and about which the server can be asked;
    /// empty if there are none. For [`PinReason::Unknown`] these are all that code may leave
    /// ([`Kinds::ANYTHING`]) and a query shows. They are raised again with later statements, so
    /// that an answer can end the pin.
    #[must_use]
    pub fn kinds(&self) -> Kinds {
        let unknown = match self.reasons.contains(PinReason::Unknown) {
            true => Kinds::ANYTHING.and(Kinds::ASKED),
            false => Kinds::NONE,
        };
        let shown = SHOWN.into_iter().filter(|(_, reason)| self.reasons.contains(*reason));
        shown.fold(unknown, |all, (kind, _)| all.union(kind))
    }

    /// The kinds of [`Self::kinds`], and [`Kinds::DBLINK`] if the session is pinned for that: what
    /// is to be reset when the session ends. Reasons without such a kind (settings, statements that
    /// the proxy keeps, hidden state) are not in it; the caller adds what they leave.
    #[must_use]
    pub fn leaves(&self) -> Kinds {
        match self.has(PinReason::Dblink) {
            true => self.kinds().union(Kinds::DBLINK),
            false => self.kinds(),
        }
    }

    /// Whether the session is pinned for `reason`, perhaps beside others.
    #[must_use]
    pub const fn has(&self, reason: PinReason) -> bool {
        self.reasons.contains(reason)
    }

    /// Takes all reasons away and frees the place, because the session holds nothing any more: its
    /// DISCARD ALL has succeeded. What the server refused to answer about is forgotten too.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// How long the session has been pinned at the time `now`; zero if it is not.
    #[must_use]
    pub fn lasted(&self, now: Instant) -> Duration {
        self.since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    /// The name of every reason ([`PinReason::as_str`]), as SHOW CLIENTS and metric labels have it,
    /// in the order in which [`PinReason`] lists them; none if the session is not pinned.
    pub fn reasons(&self) -> impl Iterator<Item = &'static str> {
        self.reasons.iter().map(PinReason::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_lasts_as_long_as_the_server_shows_what_it_is_for() {
        let (mut pin, now) = (Pin::default(), Instant::now());
        pin.show(Kinds::CHANNELS.union(Kinds::TEMPORARY), Kinds::CHANNELS, now);
        pin.set(PinReason::LargeStatement, true, now);
        assert!(pin.reasons().eq(["listen", "large_statement"]));
        assert_eq!(pin.kinds(), Kinds::CHANNELS);
        pin.show(Kinds::TEMPORARY, Kinds::NONE, now + Duration::from_secs(1));
        assert_eq!(pin.lasted(now + Duration::from_secs(2)), Duration::from_secs(2));
        pin.show(Kinds::ASKED, Kinds::NONE, now);
        pin.set(PinReason::LargeStatement, false, now);
        assert!(!pin.is_set());
        assert_eq!(pin.lasted(now), Duration::ZERO);
    }

    #[test]
    fn every_reason_has_its_own_bit_and_label() {
        let labels: std::collections::HashSet<_> = PinReason::ALL.map(PinReason::as_str).into();
        assert_eq!(labels.len(), PinReason::ALL.len());
        for (index, reason) in PinReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index);
        }
    }
}
