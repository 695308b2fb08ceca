//! How long a Vault that failed is left alone, so that a thousand roles do not each find out.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::SourceError;

/// After the first failure; a restart of Vault's takes about a second.
const SHORTEST: Duration = Duration::from_millis(200);
/// So that recovery is noticed soon: one request in this time is no load, and a server that has a
/// newer password than pgimbal holds clients up until then.
const LONGEST: Duration = Duration::from_secs(1);
/// The longest that a `Retry-After` is followed.
const LONGEST_ASKED: Duration = Duration::from_secs(60);

/// Whether a Vault may be asked, and what it failed with last.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    failures: u32,
    until: Option<(Instant, SourceError)>,
}

impl Backoff {
    /// The last failure again, while nothing may be asked.
    pub(super) fn check(&self, now: Instant) -> Result<(), SourceError> {
        match &self.lock().until {
            Some((until, error)) if now < *until => Err(error.clone()),
            _ => Ok(()),
        }
    }

    /// Nothing is asked for a while, longer with each failure; `jitter` in 0..1 spreads the end.
    pub(super) fn failed(&self, now: Instant, error: &SourceError, jitter: f64) {
        let mut state = self.lock();
        let delay = SHORTEST.saturating_mul(1 << state.failures.min(16)).min(LONGEST);
        let asked = error.retry_after().unwrap_or_default().min(LONGEST_ASKED);
        // Never sooner than was asked for; otherwise between a half and the whole.
        let delay = asked.max(delay.mul_f64(0.5 + jitter / 2.0));
        // Calls that were under way together fail together: they count once.
        if state.until.as_ref().is_none_or(|(until, _)| now >= *until) {
            state.failures += 1;
            state.until = Some((now + delay, error.clone()));
        }
    }

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
        SourceError::Sealed { place: "v".into() }
    }

    #[test]
    fn the_quiet_grows_to_a_bound_and_ends_with_a_success() {
        let (quiet, mut now) = (Backoff::default(), Instant::now());
        let mut delays = Vec::new();
        for _ in 0..8 {
            assert_eq!(quiet.check(now), Ok(()));
            quiet.failed(now, &sealed(), 1.0);
            let begun = now;
            while quiet.check(now) == Err(sealed()) {
                now += Duration::from_millis(100);
            }
            delays.push((now - begun).as_millis());
        }
        assert_eq!(delays, [200, 400, 800, 1000, 1000, 1000, 1000, 1000]);
        quiet.succeeded();
        quiet.failed(now, &sealed(), 0.0);
        assert_eq!(quiet.check(now + SHORTEST / 2), Ok(()), "the least jitter halves it");
    }

    #[test]
    fn failures_of_calls_under_way_together_count_once() {
        let (quiet, now) = (Backoff::default(), Instant::now());
        for _ in 0..8 {
            quiet.failed(now, &sealed(), 1.0);
        }
        assert_eq!(quiet.check(now + SHORTEST), Ok(()));
    }

    #[test]
    fn vaults_own_wish_is_followed_within_reason() {
        let (quiet, now) = (Backoff::default(), Instant::now());
        let error = |seconds| SourceError::RateLimited {
            place: "v".into(),
            retry_after: Some(Duration::from_secs(seconds)),
        };
        quiet.failed(now, &error(7), 0.5);
        assert!(quiet.check(now + Duration::from_secs(6)).is_err());
        let later = now + Duration::from_secs(7);
        quiet.failed(later, &error(86_400), 0.5);
        assert!(quiet.check(later + LONGEST_ASKED).is_ok());
    }
}
