//! A limit on how often something is done, with room for a few at once.

use std::time::{Duration, Instant};

/// A token bucket: limits how often something is done to `burst` times at once, and once per
/// `refill` in the long run. It has no clock; callers give the time. A clone is a bucket of its
/// own, with as many tokens.
#[derive(Clone, Debug)]
pub struct Bucket {
    burst: u32,
    refill: Duration,
    /// When it will be full again: each token taken moves it on.
    full_at: Option<Instant>,
}

impl Bucket {
    /// Makes a full bucket of `burst` tokens, of which one comes back every `refill`. A `burst` of
    /// 0 counts as 1.
    #[must_use]
    pub const fn new(burst: u32, refill: Duration) -> Self {
        Self { burst, refill, full_at: None }
    }

    /// The time at which a token can be taken: `now` when there is one. Takes none. Tokens that
    /// [`Self::reserve`] took in advance count as missing, so this may be several `refill`s ahead.
    #[must_use]
    pub fn ready_at(&self, now: Instant) -> Instant {
        let Some(full_at) = self.full_at else { return now };
        // With so much missing there is still one left.
        let slack = self.refill * self.burst.saturating_sub(1);
        full_at.checked_sub(slack).map_or(now, |ready| ready.max(now))
    }

    /// Takes the next token even if it is still to come, and returns the time from which it may be
    /// used (`now` or later). Every caller gets a turn, in the order of the calls.
    pub fn reserve(&mut self, now: Instant) -> Instant {
        let ready = self.ready_at(now);
        let from = self.full_at.map_or(now, |full_at| full_at.max(now));
        self.full_at = Some(from + self.refill);
        ready
    }

    /// Whether no token is missing at `now`. A full bucket can be dropped and made anew without
    /// effect.
    #[must_use]
    pub fn is_full(&self, now: Instant) -> bool {
        self.full_at.is_none_or(|full_at| full_at <= now)
    }

    /// Takes a token if there is one at `now`, and returns whether it did. Does not wait and takes
    /// nothing otherwise.
    pub fn take(&mut self, now: Instant) -> bool {
        if self.ready_at(now) > now {
            return false;
        }
        let from = self.full_at.map_or(now, |full_at| full_at.max(now));
        self.full_at = Some(from + self.refill);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_waits_gets_the_next_token() {
        let start = Instant::now();
        let mut bucket = Bucket::new(2, Duration::from_secs(1));
        let waits = [0, 0, 1, 2].map(Duration::from_secs);
        assert_eq!(waits.map(|_| bucket.reserve(start) - start), waits);
        assert!(!bucket.is_full(start) && bucket.is_full(start + Duration::from_secs(4)));
    }

    #[test]
    fn a_burst_then_one_for_each_refill() {
        let start = Instant::now();
        let mut bucket = Bucket::new(3, Duration::from_secs(1));
        assert_eq!((0..5).filter(|_| bucket.take(start)).count(), 3);
        assert_eq!(bucket.ready_at(start), start + Duration::from_secs(1));
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(bucket.take(at(1)) && !bucket.take(at(1)));
        assert_eq!((0..9).filter(|_| bucket.take(at(100))).count(), 3);
    }
}
