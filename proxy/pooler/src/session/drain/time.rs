//! Which client goes when, while a worker drains: at moments that its pool hides, spread over the
//! time, and never inside a transaction.
//!
//! A pool asks a connection that has lain idle for about a second whether it still lives before it
//! hands it out (HikariCP after 0.5 s, pgx after 1 s), and some ask each time (psycopg_pool's
//! `check`). So a client whose turn has come goes when it has been idle that long, or when it asks.

use std::time::{Duration, Instant};

use crate::ids::SessionId;

/// How long a client has been idle when every pool asks before it uses the connection: the second
/// of pgx, and what lies between pgimbal's last byte and the moment at which a pool takes the
/// connection back and begins to count.
const LONG_IDLE: Duration = Duration::from_millis(1200);

/// The same for pools that ask sooner, HikariCP among them. Enough only when the time runs out.
const SHORT_IDLE: Duration = Duration::from_millis(600);

/// The part of the time over which the turns of clients are spread that are idle all along.
pub(super) const IDLE_UNTIL: f64 = 0.9;

/// The same for clients that are at work: after their turn they need time to come to a pause.
pub(super) const ACTIVE_UNTIL: f64 = 0.45;

/// The part of the time after which a short pause is enough.
const SHORT_IDLE_FROM: f64 = 0.9;

/// The part of the time after which clients go that have not paused at all.
const BUSY_FROM: f64 = 0.97;

/// The part of the time after which pinned clients go: what they have on their server connection is
/// lost with it, so they keep it as long as possible. The rest is for those that hardly pause.
pub(super) const PINNED_FROM: f64 = 0.98;

/// The time in which a worker that drains lets its clients go. When it is over those that are in a
/// transaction are still served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrainTime {
    /// When it begins.
    pub begin: Instant,
    /// When it ends; the same as the beginning lets all go at once that are in no transaction.
    pub end: Instant,
}

/// What a client is doing, as far as its end depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It is in no transaction, and has been idle for so long.
    Idle(Duration),
    /// It is in no transaction, and pinned to its server connection.
    Pinned,
    /// It is in a transaction, waits for one to begin, or has left.
    Busy,
}

impl DrainTime {
    /// Whether a client goes at `now`. `place` is its place in the order, from 0 to 1.
    pub(super) fn lets_go(&self, standing: Standing, place: f64, now: Instant) -> bool {
        let passed = self.passed(now);
        match standing {
            Standing::Idle(_) if passed >= at_last(place) => true,
            Standing::Idle(quiet) if passed >= SHORT_IDLE_FROM => quiet >= SHORT_IDLE,
            Standing::Idle(quiet) => quiet >= LONG_IDLE && self.is_due(place, now, quiet),
            Standing::Pinned => passed >= PINNED_FROM,
            Standing::Busy => false,
        }
    }

    /// Whether the turn has come of a client that was last active so long ago: it goes as soon as
    /// its pool hides it.
    pub(super) fn is_due(&self, place: f64, now: Instant, quiet: Duration) -> bool {
        let is_active = now.saturating_duration_since(self.begin) > quiet;
        self.passed(now) >= place * if is_active { ACTIVE_UNTIL } else { IDLE_UNTIL }
    }

    /// The part of the time that has passed: 0 at the beginning, 1 at the end and later.
    fn passed(&self, now: Instant) -> f64 {
        if now >= self.end {
            return 1.0;
        }
        let whole = self.end.saturating_duration_since(self.begin);
        now.saturating_duration_since(self.begin).as_secs_f64() / whole.as_secs_f64()
    }
}

/// The part of the time after which a client of this place goes although it has not paused.
pub(super) fn at_last(place: f64) -> f64 {
    BUSY_FROM + place * (PINNED_FROM - BUSY_FROM)
}

/// A session's place in the order, from 0 to 1. Multiples of the golden ratio lie evenly, however
/// many there are, and nothing needs to be kept for it.
pub(super) fn place_of(id: SessionId) -> f64 {
    const GOLDEN: u32 = 0x9e37_79b9;
    f64::from(id.serial.wrapping_mul(GOLDEN)) / f64::from(u32::MAX)
}
