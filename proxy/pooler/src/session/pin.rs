//! Why a session keeps its server connection beyond the end of a transaction.

use std::time::{Duration, Instant};

use crate::pool::shared::PinSlot;
use crate::sql::Kinds;

/// One reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum PinReason {
    /// The server has shown temporary objects.
    TemporaryObjects,
    /// The server has shown a session-level advisory lock.
    AdvisoryLock,
    /// The server has shown a channel that the session listens to.
    Listen,
    /// The server has shown a cursor WITH HOLD.
    HoldCursor,
    /// The server has shown statements of SQL PREPARE that are not in the books.
    SqlPrepare,
    /// The server has shown a replication origin.
    ReplicationOrigin,
    /// The server has shown a temporary replication slot.
    ReplicationSlot,
    /// `dblink_connect` was called.
    Dblink,
    /// The server was asked and has not answered.
    Unknown,
    /// More settings, or larger ones, than are followed for one client.
    TooManySettings,
    /// State that no query shows, under `hidden_state = "pin"`.
    HiddenState,
    /// A prepared statement's text is above the limit, so that it lives on one server only.
    LargeStatement,
    /// Named statements were parsed under settings that do not hold any more.
    StatementUnderOlderSettings,
}

/// A set of reasons.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct PinReasons(u16);

/// The reasons of one session, and its place among the pool's pinned sessions.
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

    /// The reason, as SHOW CLIENTS and metric labels say it.
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
    /// Whether `reason` is among them.
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
    /// Whether the session keeps its server connection.
    #[inline]
    #[must_use]
    pub const fn is_set(&self) -> bool {
        self.reasons.0 != 0
    }

    /// Whether a place is held already, so that further reasons cost nothing.
    #[must_use]
    pub const fn has_slot(&self) -> bool {
        self.slot.is_some()
    }

    /// Takes the place among the pool's pinned sessions that was found for it.
    pub fn hold(&mut self, slot: PinSlot) {
        self.slot = Some(slot);
    }

    /// Gives back a place that was taken for a statement which has left nothing.
    #[inline]
    pub fn drop_unused_place(&mut self) {
        if !self.is_set() {
            self.slot = None;
        }
    }

    /// Adds a reason, or takes it away.
    pub fn set(&mut self, reason: PinReason, holds: bool, now: Instant) {
        self.reasons.set(reason, holds);
        if self.is_set() {
            self.since.get_or_insert(now);
        } else {
            *self = Self::default();
        }
    }

    /// The server was asked about `asked` and has shown `shown` of it.
    pub fn show(&mut self, asked: Kinds, shown: Kinds, now: Instant) {
        for (kind, reason) in SHOWN {
            if asked.meets(kind) {
                self.set(reason, shown.meets(kind), now);
            }
        }
    }

    /// The server does not say whether the session has state of these kinds.
    pub fn deny(&mut self, kinds: Kinds, now: Instant) {
        self.denied.insert(kinds);
        self.set(PinReason::Unknown, true, now);
    }

    /// A question was answered: what was unknown for want of an answer is known.
    pub fn answered(&mut self, now: Instant) {
        if self.denied.is_empty() {
            self.set(PinReason::Unknown, false, now);
        }
    }

    /// The kinds of state for which it is pinned and which the server can be asked about.
    #[must_use]
    pub fn kinds(&self) -> Kinds {
        let unknown = match self.reasons.contains(PinReason::Unknown) {
            true => Kinds::ANYTHING.and(Kinds::ASKED),
            false => Kinds::NONE,
        };
        let shown = SHOWN.into_iter().filter(|(_, reason)| self.reasons.contains(*reason));
        shown.fold(unknown, |all, (kind, _)| all.union(kind))
    }

    /// The kinds of state for which it is pinned, whether the server can be asked about them or
    /// not.
    #[must_use]
    pub fn leaves(&self) -> Kinds {
        match self.has(PinReason::Dblink) {
            true => self.kinds().union(Kinds::DBLINK),
            false => self.kinds(),
        }
    }

    /// Whether `reason` is among its reasons.
    #[must_use]
    pub const fn has(&self, reason: PinReason) -> bool {
        self.reasons.contains(reason)
    }

    /// The session holds nothing any more, or its server connection is gone.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// How long it has been pinned; zero if it is not.
    #[must_use]
    pub fn lasted(&self, now: Instant) -> Duration {
        self.since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    /// Every reason, as SHOW CLIENTS and metric labels say it.
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
