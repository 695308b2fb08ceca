//! Who may have sources asked because of passwords that fit nothing. Anybody can make up names and
//! passwords, so each address has a budget, and so has each name.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use pgimbal_auth::rotation::{Bucket, MISMATCHES};

use crate::login::Peer;

/// What one address may show that fits nothing: a burst when many applications start at once, then
/// two in a second.
const OF_ADDRESS: Bucket = Bucket::new(20, Duration::from_millis(500));

/// Questions for users that only a rule knows, of all addresses together: fifty in a second are
/// nothing to a Vault, and more than two dozen addresses that make up names.
const OF_ALL: Bucket = Bucket::new(200, Duration::from_millis(20));

/// Addresses and names that are remembered; those beyond share one budget. An entry is gone when
/// its budget is whole again, after ten seconds at most.
const REMEMBERED: usize = 10_000;

/// What is whole again is looked for so often at most.
const SWEEP: Duration = Duration::from_secs(1);

/// Where a client comes from, as budgets see it. Whoever has an IPv6 address has 2^64 of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Origin {
    Unix,
    V4(Ipv4Addr),
    V6([u16; 4]),
}

impl From<Peer> for Origin {
    fn from(peer: Peer) -> Self {
        match peer {
            Peer::Unix => Self::Unix,
            Peer::Tcp(address) => match address.ip().to_canonical() {
                IpAddr::V4(address) => Self::V4(address),
                IpAddr::V6(address) => {
                    let [a, b, c, d, ..] = address.segments();
                    Self::V6([a, b, c, d])
                }
            },
        }
    }
}

/// The budgets.
#[derive(Debug)]
pub(super) struct Questions {
    all: Bucket,
    addresses: Budgets<Origin>,
    nobodies: Budgets<Box<str>>,
}

impl Questions {
    pub(super) fn new() -> Self {
        let nobodies = Budgets::new(MISMATCHES);
        Self { all: OF_ALL, addresses: Budgets::new(OF_ADDRESS), nobodies }
    }

    /// Whether an address may show one more that fits nothing.
    pub(super) fn admits(&mut self, origin: Origin, now: Instant) -> bool {
        self.addresses.of(origin, now).bucket.take(now)
    }

    /// Whether one more name may be asked about that only a rule knows.
    pub(super) fn admits_stranger(&mut self, now: Instant) -> bool {
        self.all.take(now)
    }

    /// When somebody who does not exist would have had a question: as those do who exist.
    pub(super) fn turn(&mut self, user: &str, now: Instant) -> Instant {
        let budget = self.nobodies.of(user.into(), now);
        if let Some(pending) = budget.pending.filter(|at| *at > now) {
            return pending;
        }
        let ready = budget.bucket.reserve(now);
        budget.pending = Some(ready);
        ready
    }
}

/// One budget for each of many.
#[derive(Debug)]
struct Budgets<K> {
    whole: Bucket,
    of: HashMap<K, Budget>,
    others: Budget,
    swept: Option<Instant>,
}

#[derive(Clone, Debug)]
struct Budget {
    bucket: Bucket,
    /// When the question is asked that is still to be.
    pending: Option<Instant>,
}

impl<K: Hash + Eq> Budgets<K> {
    fn new(whole: Bucket) -> Self {
        let others = Budget { bucket: whole.clone(), pending: None };
        Self { whole, of: HashMap::new(), others, swept: None }
    }

    fn of(&mut self, key: K, now: Instant) -> &mut Budget {
        if self.swept.is_none_or(|swept| now >= swept + SWEEP) {
            self.swept = Some(now);
            self.of.retain(|_, budget| !budget.bucket.is_full(now));
        }
        if self.of.len() >= REMEMBERED && !self.of.contains_key(&key) {
            return &mut self.others;
        }
        let new = || Budget { bucket: self.whole.clone(), pending: None };
        self.of.entry(key).or_insert_with(new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_makes_up_names_takes_nothing_from_another() {
        let start = Instant::now();
        let mut questions = Questions::new();
        let [one, other] = [Origin::V4([10, 0, 0, 1].into()), Origin::V4([10, 0, 0, 2].into())];
        let mut asked = 0;
        for name in 0..3800 {
            let now = start + Duration::from_millis(10) * name / 4;
            asked += usize::from(questions.admits(one, now) && questions.admits_stranger(now));
        }
        assert!((20..=40).contains(&asked), "{asked} questions in ten seconds");
        let now = start + Duration::from_secs(10);
        assert!((0..12).all(|_| questions.admits(other, now) && questions.admits_stranger(now)));
    }

    #[test]
    fn addresses_of_one_network_are_one() {
        let of = |text: &str| Origin::from(Peer::Tcp(text.parse().expect("an address")));
        assert_eq!(of("[2001:db8::1]:1"), of("[2001:db8::ffff:2]:2"));
        assert_ne!(of("[2001:db8::1]:1"), of("[2001:db8:0:1::1]:1"));
        assert_eq!(of("[::ffff:10.0.0.1]:1"), of("10.0.0.1:9"));
    }

    #[test]
    fn names_beyond_those_that_are_remembered_share_one_budget() {
        let start = Instant::now();
        let mut questions = Questions::new();
        for name in 0..REMEMBERED + 3 {
            assert_eq!(questions.turn(&name.to_string(), start), start);
        }
        assert!(questions.turn("one more", start) > start);
        assert_eq!(questions.turn("1", start), start, "it has two left");
        let later = start + Duration::from_secs(60);
        assert_eq!(questions.turn("one more", later), later);
        assert_eq!(questions.nobodies.of.len(), 1);
    }
}
