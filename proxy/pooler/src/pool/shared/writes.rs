//! When a database was last written to, over all sessions and workers.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use crate::topology::LatestMoment;

/// A worker's `now` is older than the moment by less than this.
const TURN: Duration = Duration::from_secs(1);

/// When the last write to a database, or what may have been one, ended. It is noted only once
/// somebody reads with `read_consistency = "pool"`: the others do not pay for it.
#[derive(Debug, Default)]
pub struct DatabaseWrites {
    is_read: AtomicBool,
    latest: LatestMoment,
}

impl DatabaseWrites {
    /// Notes that a write has ended; before its client is told.
    #[inline]
    pub fn note(&self, now: Instant) {
        if self.is_read.load(SeqCst) {
            self.latest.note(now);
        }
    }

    /// Returns when the last write ended; `None` if none has. What was not noted before the first
    /// call counts as written within a second after it.
    #[must_use]
    pub fn latest(&self, now: Instant) -> Option<Instant> {
        if !self.is_read.load(SeqCst) {
            // First, so that another worker that finds it read finds this too.
            self.latest.note(now + TURN);
            self.is_read.store(true, SeqCst);
        }
        self.latest.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_from_before_the_first_reader_count_as_new() {
        let start = Instant::now();
        let at = |second| start + Duration::from_secs(second);
        let writes = DatabaseWrites::default();
        writes.note(at(5));
        assert_eq!(writes.latest(at(10)), Some(at(11)));
        writes.note(at(9));
        assert_eq!(writes.latest(at(12)), Some(at(11)));
        writes.note(at(13));
        assert_eq!(writes.latest(at(14)), Some(at(13)));
    }
}
