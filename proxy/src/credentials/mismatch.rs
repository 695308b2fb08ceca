//! Clients whose passwords match none that is known: how often the source is asked again because of
//! them, and the older passwords that they may still prove to know.
//!
//! Anybody can make up names and passwords, so each address has a budget, and so has each name.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

use pgimbal_auth::account::{Account, LoginKeys, MatchedPassword, PasswordRank};
use pgimbal_auth::rotation::{Bucket, MISMATCHES};
use pgimbal_auth::verifier::SaltParameters;
use pgimbal_config::{AuthType, Secret};
use tokio::sync::{Mutex, MutexGuard, oneshot};

use crate::pending_logins::Subnet;

/// Budget of mismatches of one address: 20 at once, because many applications may start together,
/// then two per second.
const OF_ADDRESS: Bucket = Bucket::new(20, Duration::from_millis(500));

/// Budget of fetches for users that only a rule knows, of all addresses together: fifty per second
/// are nothing to a Vault, and more than two dozen addresses that make up names can cause.
const OF_ALL: Bucket = Bucket::new(200, Duration::from_millis(20));

/// Limit of addresses and of names with a budget of their own; those beyond share one. An entry is
/// removed when its budget is full again, after ten seconds at most.
const MAX_BUDGETS: usize = 10_000;

/// Interval at which full budgets are removed.
const SWEEP: Duration = Duration::from_secs(1);

/// The state of a user whose passwords cannot be checked now, because its source has returned none
/// since the start. While any user is in it, a client whose password matches none waits up to 30 s,
/// and then gets an error (57P03) instead of a refusal (28P01).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unavailable {
    /// The label of the last fetch's result ([`pgimbal_auth::SourceError::result_label`]), or `no
    /// answer yet`.
    pub cause: &'static str,
}

/// The end of the fetch that a client's mismatch has requested, or that there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refetched {
    /// The time at which the fetch was allowed. A refusal follows at the same interval for
    /// everybody, so that it does not tell which users exist.
    pub(super) turn: Instant,
    /// Whether the client's address has used up its budget, so that nothing was fetched for it.
    pub(super) is_over_budget: bool,
}

/// The channel on which a client's login is told that the fetch has ended.
pub(super) type RefetchReply = oneshot::Sender<Refetched>;

/// The budgets of fetches that clients' wrong passwords may cause.
#[derive(Debug)]
pub(super) struct MismatchBudgets {
    all: Bucket,
    addresses: Budgets<Subnet>,
    unknown_users: Budgets<Box<str>>,
}

impl MismatchBudgets {
    /// Makes full budgets.
    pub(super) fn new() -> Self {
        let unknown_users = Budgets::new(MISMATCHES);
        Self { all: OF_ALL, addresses: Budgets::new(OF_ADDRESS), unknown_users }
    }

    /// Takes one mismatch from the budget of an address: 20 at once, then two per second. Returns
    /// false when the budget is used up; nothing is taken then, and the source is not asked. Beyond
    /// 10,000 addresses, all others share one budget.
    pub(super) fn take(&mut self, address: Subnet, now: Instant) -> bool {
        self.addresses.of(address, now).bucket.take(now)
    }

    /// Takes one fetch for a name that only a rule knows, from the budget that all addresses share:
    /// 200 at once, then fifty per second. Returns false when it is used up.
    pub(super) fn take_unlisted(&mut self, now: Instant) -> bool {
        self.all.take(now)
    }

    /// The time at which a user that does not exist would be fetched: `now` while its budget lasts,
    /// else later. Calls before that time share it and take nothing more. A user that exists has
    /// the same budget ([`MISMATCHES`]), so that the delay of a refusal does not tell them apart.
    pub(super) fn turn_of_unknown(&mut self, user: &str, now: Instant) -> Instant {
        let budget = self.unknown_users.of(user.into(), now);
        if let Some(pending) = budget.pending.filter(|at| *at > now) {
            return pending;
        }
        let ready = budget.bucket.reserve(now);
        budget.pending = Some(ready);
        ready
    }
}

/// A budget for each key, made when the key is first used.
#[derive(Debug)]
struct Budgets<K> {
    full: Bucket,
    by_key: HashMap<K, Budget>,
    /// For keys beyond [`MAX_BUDGETS`].
    others: Budget,
    swept_at: Option<Instant>,
}

/// The budget of one key.
#[derive(Clone, Debug)]
struct Budget {
    bucket: Bucket,
    /// The time of the fetch that is still to be sent, which later mismatches share; `None` when
    /// there is none.
    pending: Option<Instant>,
}

impl<K: Hash + Eq> Budgets<K> {
    fn new(full: Bucket) -> Self {
        let others = Budget { bucket: full.clone(), pending: None };
        Self { full, by_key: HashMap::new(), others, swept_at: None }
    }

    fn of(&mut self, key: K, now: Instant) -> &mut Budget {
        if self.swept_at.is_none_or(|at| now >= at + SWEEP) {
            self.swept_at = Some(now);
            self.by_key.retain(|_, budget| !budget.bucket.is_full(now));
        }
        if self.by_key.len() >= MAX_BUDGETS && !self.by_key.contains_key(&key) {
            return &mut self.others;
        }
        let new = || Budget { bucket: self.full.clone(), pending: None };
        self.by_key.entry(key).or_insert_with(new)
    }
}

/// A password that the source has returned with an older date than the newest known one, which
/// works. The date of the newest may come from a clock that was ahead; so when a client proves that
/// it knows this password, it is tried at the server.
#[derive(Debug)]
pub(super) struct OlderPassword {
    generation: u32,
    password: Secret,
    keys: LoginKeys,
    account: Account,
    refused_at: Mutex<Option<Instant>>,
}

impl OlderPassword {
    /// Makes the entry of generation `generation`, whose keys are derived with `salt_parameters`.
    pub(super) fn new(
        auth_type: AuthType,
        salt_parameters: SaltParameters,
        generation: u32,
        password: Secret,
        keys: LoginKeys,
    ) -> Self {
        let matched = MatchedPassword { generation, rank: PasswordRank::Newest };
        let account = Account::of_keys(auth_type, salt_parameters, [(matched, keys.clone())]);
        Self { generation, password, keys, account, refused_at: Mutex::new(None) }
    }

    /// The number of the password's generation.
    pub(super) const fn generation(&self) -> u32 {
        self.generation
    }

    /// The password itself, to be shown to a server.
    pub(super) const fn password(&self) -> &Secret {
        &self.password
    }

    /// The keys of the password, to be accepted from clients once a server has accepted it.
    pub(super) const fn keys(&self) -> &LoginKeys {
        &self.keys
    }

    /// The account that accepts only this password, by which a client's proof is checked.
    pub(super) const fn account(&self) -> &Account {
        &self.account
    }

    /// The time at which a server last refused the password; `None` when none has. Only the holder
    /// of the lock may try it at a server; others wait.
    pub(super) async fn refused_at(&self) -> MutexGuard<'_, Option<Instant>> {
        self.refused_at.lock().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_makes_up_names_takes_nothing_from_another() {
        let start = Instant::now();
        let mut budgets = MismatchBudgets::new();
        let address = |text: &str| Subnet::of(Some(text.parse().expect("an address")));
        let [one, other] = [address("10.0.0.1"), address("10.0.0.2")];
        let mut fetches = 0;
        for name in 0..3800 {
            let now = start + Duration::from_millis(10) * name / 4;
            fetches += usize::from(budgets.take(one, now) && budgets.take_unlisted(now));
        }
        assert!((20..=40).contains(&fetches), "{fetches} fetches in ten seconds");
        let now = start + Duration::from_secs(10);
        assert!((0..12).all(|_| budgets.take(other, now) && budgets.take_unlisted(now)));
    }

    #[test]
    fn names_beyond_those_with_a_budget_of_their_own_share_one() {
        let start = Instant::now();
        let mut budgets = MismatchBudgets::new();
        for name in 0..MAX_BUDGETS + 3 {
            assert_eq!(budgets.turn_of_unknown(&name.to_string(), start), start);
        }
        assert!(budgets.turn_of_unknown("one more", start) > start);
        assert_eq!(budgets.turn_of_unknown("1", start), start, "it has two left");
        let later = start + Duration::from_secs(60);
        assert_eq!(budgets.turn_of_unknown("one more", later), later);
        assert_eq!(budgets.unknown_users.by_key.len(), 1);
    }
}
