//! How far the connection is read ahead of the clients that it listens for.
//!
//! PostgreSQL makes notifications faster than many clients take them. While one of them is behind,
//! the connection is not read, and PostgreSQL keeps what comes in its own queue. Who may not read at
//! all is not waited for any longer than [`PATIENCE`].

use std::time::{Duration, Instant};

use crate::ids::SessionId;

/// How long a client that is behind keeps the others waiting.
const PATIENCE: Duration = Duration::from_secs(1);

/// The sessions that are behind, each with the time since when.
#[derive(Debug, Default)]
pub(super) struct Pace(Vec<(SessionId, Instant)>);

impl Pace {
    /// Whether the connection is not to be read.
    pub(super) const fn is_held(&self) -> bool {
        !self.0.is_empty()
    }

    /// A session is behind.
    pub(super) fn fell_behind(&mut self, session: SessionId, now: Instant) {
        self.0.push((session, now));
    }

    /// The session is not behind, or gone. Returns whether the connection is to be read again.
    pub(super) fn caught_up(&mut self, session: SessionId) -> bool {
        let was_held = self.is_held();
        self.0.retain(|(behind, _)| *behind != session);
        was_held && !self.is_held()
    }

    /// Takes the sessions that have been behind for too long.
    pub(super) fn take_late(&mut self, now: Instant) -> Vec<SessionId> {
        let is_late = |(_, since): &mut (SessionId, Instant)| *since + PATIENCE <= now;
        self.0.extract_if(.., is_late).map(|(session, _)| session).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_connection_waits_for_who_is_behind_until_it_has_caught_up_or_is_late() {
        const SESSIONS: [SessionId; 2] =
            [SessionId { slot: 0, serial: 1 }, SessionId { slot: 1, serial: 2 }];
        let (mut pace, start) = (Pace::default(), Instant::now());
        let [one, other] = SESSIONS;
        assert!(!pace.caught_up(one), "it was not held");
        pace.fell_behind(one, start);
        pace.fell_behind(other, start + PATIENCE / 2);
        assert!(!pace.caught_up(one) && pace.is_held());
        assert!(pace.caught_up(other) && !pace.is_held());
        pace.fell_behind(one, start);
        pace.fell_behind(other, start + PATIENCE / 2);
        assert_eq!(pace.take_late(start + PATIENCE / 2), []);
        assert_eq!(pace.take_late(start + PATIENCE), [one]);
        assert!(pace.is_held());
    }
}
