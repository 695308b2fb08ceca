//! The pauses between attempts that fail.

use std::time::Duration;

/// Pauses that double with each failure, from a first one up to a longest one, which may change
/// between attempts. A backoff reads no clock and draws no random number: its owner adds jitter and
/// decides when a pause begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    first: Duration,
    /// The last pause; `None` before the first failure.
    current: Option<Duration>,
}

impl Backoff {
    /// Makes a backoff without failures, whose first pause is `first`. It should be above zero: a
    /// pause of zero never grows.
    #[must_use]
    pub const fn new(first: Duration) -> Self {
        Self { first, current: None }
    }

    /// Notes one more failure and returns the pause after it: the first pause, later twice the one
    /// before, and at most `longest` each time, also where `longest` is below the first pause. The
    /// caller waits; nothing here does.
    pub fn grow(&mut self, longest: Duration) -> Duration {
        let doubled = self.current.unwrap_or_default().saturating_mul(2);
        *self.current.insert(doubled.max(self.first).min(longest))
    }

    /// The pause that the latest [`Self::grow`] returned, for a further failure that counts as the
    /// same one; `None` before the first failure and after [`Self::reset`].
    #[must_use]
    pub const fn current(&self) -> Option<Duration> {
        self.current
    }

    /// Notes a success: the next failure is followed by the first pause again.
    pub const fn reset(&mut self) {
        self.current = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Duration = Duration::from_millis(200);

    fn pauses(backoff: &mut Backoff, longest: Duration) -> Vec<u128> {
        (0..5).map(|_| backoff.grow(longest).as_millis()).collect()
    }

    #[test]
    fn pauses_double_up_to_the_longest() {
        let mut backoff = Backoff::new(FIRST);
        assert_eq!(pauses(&mut backoff, Duration::from_secs(1)), [200, 400, 800, 1000, 1000]);
        assert_eq!(pauses(&mut backoff, FIRST), [200; 5], "a shorter bound counts at once");
        assert_eq!(backoff.grow(Duration::MAX), FIRST * 2, "and is what a longer one grows from");
    }

    #[test]
    fn a_bound_below_the_first_pause_counts_too() {
        assert_eq!(Backoff::new(FIRST).grow(FIRST / 2), FIRST / 2);
        let mut backoff = Backoff::new(FIRST);
        assert_eq!(backoff.grow(Duration::ZERO), Duration::ZERO);
        assert_eq!(backoff.grow(Duration::MAX), FIRST, "no pause does not stay none");
    }

    #[test]
    fn a_success_begins_anew() {
        let mut backoff = Backoff::new(FIRST);
        assert_eq!(backoff.current(), None);
        pauses(&mut backoff, Duration::MAX);
        assert_eq!(backoff.current(), Some(FIRST * 16));
        backoff.reset();
        assert_eq!(backoff, Backoff::new(FIRST));
        assert_eq!(backoff.grow(Duration::MAX), FIRST);
    }

    #[test]
    fn no_number_of_failures_overflows() {
        let mut backoff = Backoff::new(Duration::from_secs(1));
        assert!((0..200).map(|_| backoff.grow(Duration::MAX)).is_sorted());
        assert_eq!(backoff.current(), Some(Duration::MAX));
    }
}
