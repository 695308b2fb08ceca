//! The pause after a failure of Vault, shared by all roles, so that each does not fail by itself.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use pgimbal_config::Backoff;

use crate::SourceError;

/// The pause after the first failure; a restart of Vault takes about a second.
const SHORTEST: Duration = Duration::from_millis(200);
/// The longest pause: recovery must be noticed soon. One request in this time is no load, and a
/// server that has a newer password than pgimbal holds clients up until then.
const LONGEST: Duration = Duration::from_secs(1);
/// The longest `Retry-After` that is followed.
const LONGEST_ASKED: Duration = Duration::from_secs(60);

/// The pause of one Vault after failures, shared by all its roles, with the last failure.
#[derive(Debug, Default)]
pub(super) struct SharedBackoff {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    pauses: Backoff,
    until: Option<(Instant, SourceError)>,
}

impl Default for State {
    fn default() -> Self {
        Self { pauses: Backoff::new(SHORTEST), until: None }
    }
}

impl SharedBackoff {
    /// Returns the last failure again while the pause lasts; `Ok` when Vault may be asked.
    pub(super) fn check(&self, now: Instant) -> Result<(), SourceError> {
        match &self.lock().until {
            Some((until, error)) if now < *until => Err(error.clone()),
            _ => Ok(()),
        }
    }

    /// Begins a pause, which is longer after each failure in a row; `jitter` (0 to 1) spreads its
    /// end.
    pub(super) fn failed(&self, now: Instant, error: &SourceError, jitter: f64) {
        let mut state = self.lock();
        // Calls that were under way together fail together: they count once.
        if state.until.as_ref().is_some_and(|(until, _)| now < *until) {
            return;
        }
        let pause = state.pauses.grow(LONGEST);
        let asked = error.retry_after().unwrap_or_default().min(LONGEST_ASKED);
        // Never sooner than was asked for; otherwise between a half and the whole.
        let pause = asked.max(pause.mul_f64(0.5 + jitter / 2.0));
        state.until = Some((now + pause, error.clone()));
    }

    /// Ends the pause, and lets the next one begin with the shortest.
    pub(super) fn succeeded(&self) {
        *self.lock() = State::default();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed() -> SourceError {
        SourceError::Sealed { location: "v".into() }
    }

    #[test]
    fn the_pause_grows_to_a_bound_and_ends_with_a_success() {
        let (backoff, mut now) = (SharedBackoff::default(), Instant::now());
        let mut delays = Vec::new();
        for _ in 0..8 {
            assert_eq!(backoff.check(now), Ok(()));
            backoff.failed(now, &sealed(), 1.0);
            let begun = now;
            while backoff.check(now) == Err(sealed()) {
                now += Duration::from_millis(100);
            }
            delays.push((now - begun).as_millis());
        }
        assert_eq!(delays, [200, 400, 800, 1000, 1000, 1000, 1000, 1000]);
        backoff.succeeded();
        backoff.failed(now, &sealed(), 0.0);
        assert_eq!(backoff.check(now + SHORTEST / 2), Ok(()), "the least jitter halves it");
    }

    #[test]
    fn failures_of_calls_under_way_together_count_once() {
        let (backoff, now) = (SharedBackoff::default(), Instant::now());
        for _ in 0..8 {
            backoff.failed(now, &sealed(), 1.0);
        }
        assert_eq!(backoff.check(now + SHORTEST), Ok(()));
    }

    #[test]
    fn vaults_own_wish_is_followed_within_reason() {
        let (backoff, now) = (SharedBackoff::default(), Instant::now());
        let error = |seconds| SourceError::RateLimited {
            location: "v".into(),
            retry_after: Some(Duration::from_secs(seconds)),
        };
        backoff.failed(now, &error(7), 0.5);
        assert!(backoff.check(now + Duration::from_secs(6)).is_err());
        let later = now + Duration::from_secs(7);
        backoff.failed(later, &error(86_400), 0.5);
        assert!(backoff.check(later + LONGEST_ASKED).is_ok());
    }
}
