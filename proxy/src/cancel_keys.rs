//! The limit of wrong cancel keys from one address, against guessing.
//!
//! A single wrong key is normal, because the session may just have ended. Hundreds of them are
//! guesses, and the address's requests are ignored for a while.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::pending_logins::Subnet;

/// Number of wrong keys that an address may send within a [`WINDOW`]. It exceeds the queries that
/// end just before they are cancelled, and is nothing against the 63 bits of a key.
const WRONG_KEYS: u32 = 100;

/// Time in which wrong keys are counted, and for which an address is ignored at most.
const WINDOW: Duration = Duration::from_secs(60);

/// Limit of remembered addresses, some 400 kB. Beyond it all are forgotten: a client with so many
/// addresses is not stopped by this limit.
const ADDRESSES: usize = 10_000;

/// The number of wrong cancel keys that each address has sent.
#[derive(Debug, Default)]
pub struct WrongKeyLimiter(Mutex<HashMap<Subnet, Wrong>>);

#[derive(Clone, Copy, Debug)]
struct Wrong {
    since: Instant,
    count: u32,
}

impl WrongKeyLimiter {
    /// Whether a CancelRequest from this address is processed: `false` from its hundredth wrong key
    /// until 60 s after its first; always `true` for an unknown address and for Unix sockets. A
    /// request that is not processed is dropped, and the client is told nothing.
    #[must_use]
    pub fn allows(&self, from: Subnet, now: Instant) -> bool {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(&from).is_none_or(|wrong| wrong.count < WRONG_KEYS || wrong.is_over(now))
    }

    /// Counts a wrong key, within a minute of the address's first. Returns `true` only for the
    /// hundredth, which reaches the limit, so that the caller logs it once. Unix sockets are not
    /// counted. Beyond 10,000 addresses all counts are forgotten.
    pub fn record_wrong(&self, from: Subnet, now: Instant) -> bool {
        if !from.is_network() {
            return false;
        }
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= ADDRESSES && !known.contains_key(&from) {
            known.retain(|_, wrong| !wrong.is_over(now));
            if known.len() >= ADDRESSES {
                known.clear();
            }
        }
        let wrong = known.entry(from).or_insert(Wrong { since: now, count: 0 });
        if wrong.is_over(now) {
            *wrong = Wrong { since: now, count: 0 };
        }
        wrong.count = wrong.count.saturating_add(1);
        wrong.count == WRONG_KEYS
    }
}

impl Wrong {
    fn is_over(&self, now: Instant) -> bool {
        now.duration_since(self.since) >= WINDOW
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(host: u32) -> Subnet {
        Subnet::of(Some(std::net::Ipv4Addr::from_bits(host).into()))
    }

    #[test]
    fn who_guesses_is_passed_over_for_a_while_and_nobody_else() {
        let (keys, now) = (WrongKeyLimiter::default(), Instant::now());
        for guess in 1..=WRONG_KEYS {
            assert!(keys.allows(from(1), now));
            assert_eq!(keys.record_wrong(from(1), now), guess == WRONG_KEYS);
        }
        assert!(!keys.allows(from(1), now) && keys.allows(from(2), now));
        assert!(keys.allows(from(1), now + WINDOW));
        assert!(!keys.record_wrong(from(1), now + WINDOW));
        assert!(keys.allows(from(1), now + WINDOW));
    }

    #[test]
    fn what_is_remembered_has_a_bound() {
        let (keys, now) = (WrongKeyLimiter::default(), Instant::now());
        for host in 0..3 * ADDRESSES as u32 {
            keys.record_wrong(from(host), now);
        }
        assert!(keys.0.lock().unwrap().len() <= ADDRESSES);
        assert!(!keys.record_wrong(Subnet::of(None), now), "this machine is not limited");
    }
}
