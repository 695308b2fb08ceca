//! The latest of several moments, shared between threads without a lock.

use std::sync::OnceLock;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::time::{Duration, Instant};

/// The latest of the moments that were noted on any thread. It never goes back.
#[derive(Debug, Default)]
pub struct LatestMoment {
    /// The first moment that was noted.
    base: OnceLock<Instant>,
    /// Nanoseconds since the base, plus one; 0 before the first moment.
    nanos: AtomicU64,
}

impl LatestMoment {
    /// Notes a moment; one before the latest changes nothing.
    pub fn note(&self, moment: Instant) {
        let base = *self.base.get_or_init(|| moment);
        let nanos = moment.saturating_duration_since(base).as_nanos();
        // 64 bits of nanoseconds are 584 years.
        self.nanos.fetch_max(u64::try_from(nanos).unwrap_or(u64::MAX - 1) + 1, Release);
    }

    /// Returns the latest moment; `None` before the first was noted.
    #[must_use]
    pub fn get(&self) -> Option<Instant> {
        let nanos = self.nanos.load(Acquire).checked_sub(1)?;
        Some(*self.base.get()? + Duration::from_nanos(nanos))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_moment_stays() {
        let start = Instant::now();
        let latest = LatestMoment::default();
        assert_eq!(latest.get(), None);
        for (millisecond, expected) in [(5, 5), (9, 9), (7, 9), (0, 9), (10, 10)] {
            latest.note(start + Duration::from_millis(millisecond));
            assert_eq!(latest.get(), Some(start + Duration::from_millis(expected)));
        }
    }
}
