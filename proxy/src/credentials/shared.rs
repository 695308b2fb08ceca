//! The state that logins read without asking the credentials' task, and the counts that they keep
//! for it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use pgimbal_auth::account::{Account, PasswordRank};
use tokio::sync::{Semaphore, watch};

use super::mismatch::{OlderPassword, Unavailable};
use super::status::ConnectionCounts;
use crate::derivation::Derivations;

/// Limit of logins that run at one node at a time, all roles together: two hundred roles that
/// rotate in the same second must not make PostgreSQL fork two hundred times in it.
const LOGINS_PER_NODE: usize = 16;

/// The shortest delay of a refusal: a fetch and a key derivation fit in it.
const SHORTEST_DELAY: Duration = Duration::from_millis(250);
/// The longest delay of a refusal that waits for nothing any more.
const LONGEST_DELAY: Duration = Duration::from_secs(2);
/// Longest time of a fetch that counts for the delay, in microseconds.
const LONGEST_SAMPLE: u64 = 10_000_000;
/// Addition to the time of two usual fetches in the delay, in microseconds.
const DELAY_MARGIN: u64 = 150_000;

type ByUser<T> = HashMap<Box<str>, Arc<T>>;

/// State that the task writes and logins read, and counts that logins write and the task reads.
#[derive(Debug)]
pub(super) struct Shared {
    accounts: RwLock<ByUser<Account>>,
    older: RwLock<ByUser<OlderPassword>>,
    /// Changes whenever an account has changed.
    published: watch::Sender<()>,
    /// Whether the password of any user comes from elsewhere than the configuration.
    rotates: AtomicBool,
    /// Mean of twice the time of a fetch and the margin, in microseconds; 0 before the first.
    delay: AtomicU64,
    /// Time limit of a fetch, in microseconds.
    fetch_limit: AtomicU64,
    unavailable: watch::Sender<Option<Unavailable>>,
    logins: Mutex<HashMap<Box<str>, [u64; PasswordRank::ALL.len()]>>,
    nodes: Mutex<ByUser<Semaphore>>,
    clients: ConnectionCounts,
    servers: ConnectionCounts,
    derivations: Derivations,
}

impl Shared {
    /// Makes the state without accounts; `rotates` as in [`Self::set_rotates`].
    pub(super) fn new(rotates: bool) -> Self {
        let ((unavailable, _), (published, _)) = (watch::channel(None), watch::channel(()));
        Self {
            accounts: RwLock::default(),
            older: RwLock::default(),
            published,
            rotates: AtomicBool::new(rotates),
            delay: AtomicU64::new(0),
            fetch_limit: AtomicU64::new(0),
            unavailable,
            logins: Mutex::default(),
            nodes: Mutex::default(),
            clients: ConnectionCounts::default(),
            servers: ConnectionCounts::default(),
            derivations: Derivations::default(),
        }
    }

    /// Whether the password of any user comes from elsewhere than the configuration.
    pub(super) fn rotates(&self) -> bool {
        self.rotates.load(Relaxed)
    }

    /// Sets, at a reload, whether the password of any user comes from elsewhere than the
    /// configuration.
    pub(super) fn set_rotates(&self, rotates: bool) {
        self.rotates.store(rotates, Relaxed);
    }

    /// The account by which clients of `user` are checked; `None` while no password is known, and
    /// for a user whose password does not rotate.
    pub(super) fn account(&self, user: &str) -> Option<Arc<Account>> {
        let accounts = self.accounts.read().unwrap_or_else(PoisonError::into_inner);
        accounts.get(user).cloned()
    }

    /// Replaces the account of `user`, or removes it with `None`, and wakes logins that wait for a
    /// change.
    pub(super) fn publish(&self, user: &str, account: Option<Account>) {
        let mut accounts = self.accounts.write().unwrap_or_else(PoisonError::into_inner);
        match account {
            Some(account) => drop(accounts.insert(user.into(), Arc::new(account))),
            None => drop(accounts.remove(user)),
        }
        drop(accounts);
        self.published.send_replace(());
    }

    /// A channel that changes whenever any account does.
    pub(super) fn published(&self) -> watch::Receiver<()> {
        self.published.subscribe()
    }

    /// The password of `user` with an older date than the newest, which a client may prove to know;
    /// `None` when there is none, or its verifier is not derived yet.
    pub(super) fn older(&self, user: &str) -> Option<Arc<OlderPassword>> {
        let older = self.older.read().unwrap_or_else(PoisonError::into_inner);
        older.get(user).cloned()
    }

    /// Replaces the older password of `user`, or removes it with `None`.
    pub(super) fn set_older(&self, user: &str, older: Option<Arc<OlderPassword>>) {
        let mut all = self.older.write().unwrap_or_else(PoisonError::into_inner);
        match older {
            Some(older) => drop(all.insert(user.into(), older)),
            None => drop(all.remove(user)),
        }
    }

    /// A channel with the reason for which the password of some user is unknown that should be
    /// known, of the first such user by name; `None` when there is none.
    pub(super) fn unavailable(&self) -> watch::Receiver<Option<Unavailable>> {
        self.unavailable.subscribe()
    }

    /// Sets the value of [`Self::unavailable`]; those who wait are woken only when it changes.
    pub(super) fn set_unavailable(&self, unavailable: Option<Unavailable>) {
        self.unavailable.send_if_modified(|now| std::mem::replace(now, unavailable) != unavailable);
    }

    /// The delay after its turn with which a login with a wrong password is refused, the same for
    /// every user: twice the usual time of a fetch and 150 ms, at least 0.25 s and at most 2 s.
    pub(super) fn refusal_delay(&self) -> Duration {
        Duration::from_micros(self.delay.load(Relaxed)).clamp(SHORTEST_DELAY, LONGEST_DELAY)
    }

    /// Records the time that a fetch took until its password came into use; longer ones count as
    /// 10 s. [`Self::refusal_delay`] aims at twice this time and 150 ms: the first sample sets it,
    /// each later one moves it by a quarter, so that it does not tell of a single fetch.
    pub(super) fn record_fetch(&self, time: Duration) {
        let wanted = 2 * micros(time).min(LONGEST_SAMPLE) + DELAY_MARGIN;
        let before = self.delay.load(Relaxed);
        let after = if before == 0 { wanted } else { before - before / 4 + wanted / 4 };
        self.delay.store(after, Relaxed);
    }

    /// The time limit of a fetch by the configuration: the longest `timeout` of a Vault; zero when
    /// there is no Vault.
    pub(super) fn fetch_limit(&self) -> Duration {
        Duration::from_micros(self.fetch_limit.load(Relaxed))
    }

    /// Sets [`Self::fetch_limit`], at the start and at a reload.
    pub(super) fn set_fetch_limit(&self, limit: Duration) {
        self.fetch_limit.store(micros(limit), Relaxed);
    }

    /// Counts a login of a client of `user` with a password of this rank. Returns true for the
    /// user's first one since the start, or since [`Self::forget`].
    pub(super) fn count_login(&self, user: &str, rank: PasswordRank) -> bool {
        let mut logins = lock(&self.logins);
        let counts = logins.entry(user.into()).or_default();
        let is_first = counts.iter().all(|count| *count == 0);
        counts[rank as usize] += 1;
        is_first
    }

    /// Number of logins of clients of `user` since the start, for each of [`PasswordRank::ALL`].
    pub(super) fn logins_of(&self, user: &str) -> [u64; PasswordRank::ALL.len()] {
        lock(&self.logins).get(user).copied().unwrap_or_default()
    }

    /// Counts of the clients that are logged in, by user and generation.
    pub(super) const fn clients(&self) -> &ConnectionCounts {
        &self.clients
    }

    /// Counts of the open server connections, by user and generation.
    pub(super) const fn servers(&self) -> &ConnectionCounts {
        &self.servers
    }

    /// Whether any client or server connection is logged in as `user`.
    pub(super) fn is_in_use(&self, user: &str) -> bool {
        self.clients.has(user) || self.servers.has(user)
    }

    /// Removes the accounts and counts of `user`; connections that are open stay counted.
    pub(super) fn forget(&self, user: &str) {
        self.publish(user, None);
        self.set_older(user, None);
        lock(&self.logins).remove(user);
        self.clients.forget(user);
        self.servers.forget(user);
    }

    /// The permits for logins at a node, 16 in all; the caller holds one of them while it logs in.
    /// `node` is host and port. A call for a new node forgets those whose permits nobody holds.
    pub(super) fn login_permits(&self, node: &str) -> Arc<Semaphore> {
        let mut nodes = lock(&self.nodes);
        if let Some(permits) = nodes.get(node) {
            return Arc::clone(permits);
        }
        // A name may lead to other nodes over time.
        nodes.retain(|_, permits| Arc::strong_count(permits) > 1);
        let permits = Arc::new(Semaphore::new(LOGINS_PER_NODE));
        nodes.insert(node.into(), Arc::clone(&permits));
        permits
    }

    /// The limiter under which keys of clients' passwords are derived.
    pub(super) const fn derivations(&self) -> &Derivations {
        &self.derivations
    }
}

/// Locks a mutex whose every change is complete, so that a panic elsewhere does not matter.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
