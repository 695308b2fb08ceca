//! What a server says of its own limits: `rolconnlimit`, `datconnlimit`, `max_connections`.

use std::time::{Duration, Instant};

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
