//! What a server says of its own limits: `rolconnlimit`, `datconnlimit`, `max_connections`.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;

/// How long a limit is believed that a server has told: an administrator may change it.
pub const LIMITS_LIFETIME: Duration = Duration::from_secs(60);

/// The limits that a server told a new connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LearnedLimits {
    /// Its setting `max_connections`.
    pub max_connections: u32,
    /// Its connections that only superusers and holders of pg_use_reserved_connections get:
    /// `superuser_reserved_connections` and `reserved_connections`.
    pub reserved: u32,
    /// `rolconnlimit` of the connection's role; `None` for no limit, and for a superuser.
    pub role: Option<u32>,
    /// `datconnlimit` of the connection's database; `None` for no limit, and for a superuser.
    pub database: Option<u32>,
}

/// How many names of roles or databases are kept at the least before those are dropped of which
/// nothing is known or in use: as many as a server commonly has.
const NAMES: usize = 64;

/// The connections of each role, or to each database, by name. Names come from clients, in any
/// number: kept are those with a connection, and those whose limit was told within
/// [`LIMITS_LIFETIME`], up to twice as many as when the others were last dropped.
#[derive(Debug, Default)]
pub(super) struct Caps {
    by_name: HashMap<Box<str>, Cap, RandomState>,
    /// How many names there may be before it is looked which of them are needed.
    room: usize,
}

impl Caps {
    /// The connections by this name, counted from now on if they were not before.
    pub(super) fn of(&mut self, name: &str, now: Instant) -> &mut Cap {
        if !self.by_name.contains_key(name) {
            if self.by_name.len() >= self.room.max(NAMES) {
                self.by_name.retain(|_, cap| cap.taken > 0 || !cap.is_old(now));
                self.room = 2 * self.by_name.len();
            }
            self.by_name.insert(name.into(), Cap::default());
        }
        // It was just put there.
        self.by_name.entry(name.into()).or_default()
    }

    pub(super) fn get(&self, name: &str) -> Option<&Cap> {
        self.by_name.get(name)
    }

    /// Whether the limit keeps one more from being opened, where `ahead` others come before it.
    pub(super) fn stands_in_the_way(&mut self, name: &str, ahead: u32, now: Instant) -> bool {
        let Some(cap) = self.by_name.get_mut(name) else { return false };
        cap.free().is_some_and(|free| free <= ahead) && !cap.may_try_beyond(now)
    }

    /// A connection by this name is being closed for somebody else.
    pub(super) fn begin_to_close(&mut self, name: &str) {
        if let Some(cap) = self.by_name.get_mut(name) {
            cap.closing += 1;
        }
    }

    /// A connection by this name has ended; `leaves` is 1 if it was closed for somebody else.
    pub(super) fn give_back(&mut self, name: &str, leaves: u32) {
        let Some(cap) = self.by_name.get_mut(name) else { return };
        cap.taken -= 1;
        cap.closing -= leaves;
        if cap.taken == 0 && cap.asked_at.is_none() {
            self.by_name.remove(name);
        }
    }

    pub(super) fn clear(&mut self) {
        self.by_name.clear();
        self.room = 0;
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.by_name.len()
    }
}

/// The connections of one role, or to one database.
#[derive(Debug, Default)]
pub(super) struct Cap {
    limit: Option<u32>,
    asked_at: Option<Instant>,
    pub(super) taken: u32,
    /// Connections that are being closed for somebody else.
    pub(super) closing: u32,
}

impl Cap {
    /// How many more there may be; `None` for no limit.
    pub(super) fn free(&self) -> Option<u32> {
        // One must be tried, so that the server itself says that there may be none.
        self.limit.map(|limit| limit.max(1).saturating_sub(self.taken))
    }

    /// Whether one more may be opened although the limit is reached: it was told long ago. Once per
    /// [`LIMITS_LIFETIME`].
    pub(super) fn may_try_beyond(&mut self, now: Instant) -> bool {
        let may = self.is_old(now);
        if may {
            self.asked_at = Some(now);
        }
        may
    }

    /// Whether the server is to be asked for it.
    pub(super) fn is_old(&self, now: Instant) -> bool {
        self.asked_at.is_none_or(|at| now.saturating_duration_since(at) >= LIMITS_LIFETIME)
    }

    pub(super) const fn learn(&mut self, limit: Option<u32>, now: Instant) {
        self.limit = limit;
        self.asked_at = Some(now);
    }
}
