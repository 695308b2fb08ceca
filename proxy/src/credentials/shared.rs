//! What logins read without asking the task, and what they count for it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use pgimbal_auth::account::{Account, PasswordRank};
use tokio::sync::{Semaphore, watch};

use super::mismatch::{OlderPassword, Unavailable};
use super::status::ConnectionCounts;
use crate::derivation::Derivations;

/// Logins at one node at a time, all roles together: two hundred roles that rotate in the same
/// second must not make PostgreSQL fork two hundred times in it.
const LOGINS_PER_NODE: usize = 16;

/// The least delay of a refusal: a fetch and a key derivation fit in.
const SHORTEST_DELAY: Duration = Duration::from_millis(250);
/// The longest delay although nothing is waited for any more.
const LONGEST_DELAY: Duration = Duration::from_secs(2);
/// A fetch that took longer counts as this for the delay, in microseconds.
const LONGEST_SAMPLE: u64 = 10_000_000;
/// What the delay has beyond two fetches of the usual length, in microseconds.
const DELAY_MARGIN: u64 = 150_000;

type ByUser<T> = HashMap<Box<str>, Arc<T>>;

/// Written by the task and read by logins, or counted by logins and read by the task.
#[derive(Debug)]
pub(super) struct Shared {
    accounts: RwLock<ByUser<Account>>,
    older: RwLock<ByUser<OlderPassword>>,
    /// Ticks when an account has changed.
    published: watch::Sender<()>,
    /// Some user's password comes from elsewhere than the configuration.
    rotates: AtomicBool,
    /// Mean time of a fetch and its margin, in microseconds; 0 before the first.
    delay: AtomicU64,
    /// The longest that a fetch may take, in microseconds.
    fetch_limit: AtomicU64,
    unavailable: watch::Sender<Option<Unavailable>>,
    logins: Mutex<HashMap<Box<str>, [u64; PasswordRank::ALL.len()]>>,
    nodes: Mutex<ByUser<Semaphore>>,
    clients: ConnectionCounts,
    servers: ConnectionCounts,
    derivations: Derivations,
}

impl Shared {
    /// `rotates` as in [`Self::set_rotates`].
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

    /// Whether any user's password comes from elsewhere than the configuration.
    pub(super) fn rotates(&self) -> bool {
        self.rotates.load(Relaxed)
    }

    pub(super) fn set_rotates(&self, rotates: bool) {
        self.rotates.store(rotates, Relaxed);
    }

    /// What a user's password is checked by; `None` while none is known.
    pub(super) fn account(&self, user: &str) -> Option<Arc<Account>> {
        let accounts = self.accounts.read().unwrap_or_else(PoisonError::into_inner);
        accounts.get(user).cloned()
    }

    /// Replaces it, and wakes logins that wait for a change.
    pub(super) fn publish(&self, user: &str, account: Option<Account>) {
        let mut accounts = self.accounts.write().unwrap_or_else(PoisonError::into_inner);
        match account {
            Some(account) => drop(accounts.insert(user.into(), Arc::new(account))),
            None => drop(accounts.remove(user)),
        }
        drop(accounts);
        self.published.send_replace(());
    }

    /// Changes whenever any account does.
    pub(super) fn published(&self) -> watch::Receiver<()> {
        self.published.subscribe()
    }

    /// A user's password with an older date than the newest.
    pub(super) fn older(&self, user: &str) -> Option<Arc<OlderPassword>> {
        let older = self.older.read().unwrap_or_else(PoisonError::into_inner);
        older.get(user).cloned()
    }

    pub(super) fn set_older(&self, user: &str, older: Option<Arc<OlderPassword>>) {
        let mut all = self.older.write().unwrap_or_else(PoisonError::into_inner);
        match older {
            Some(older) => drop(all.insert(user.into(), older)),
            None => drop(all.remove(user)),
        }
    }

    /// Why passwords are unknown that should be known; `None` when none is.
    pub(super) fn unavailable(&self) -> watch::Receiver<Option<Unavailable>> {
        self.unavailable.subscribe()
    }

    pub(super) fn set_unavailable(&self, unavailable: Option<Unavailable>) {
        self.unavailable.send_if_modified(|now| std::mem::replace(now, unavailable) != unavailable);
    }

    /// How long after its turn a login with a wrong password is refused, whoever it is for.
    pub(super) fn refusal_delay(&self) -> Duration {
        Duration::from_micros(self.delay.load(Relaxed)).clamp(SHORTEST_DELAY, LONGEST_DELAY)
    }

    /// A fetch took this long until it came into use. The delay follows slowly: it must not tell of
    /// a single fetch.
    pub(super) fn record_fetch(&self, time: Duration) {
        let wanted = 2 * micros(time).min(LONGEST_SAMPLE) + DELAY_MARGIN;
        let before = self.delay.load(Relaxed);
        let after = if before == 0 { wanted } else { before - before / 4 + wanted / 4 };
        self.delay.store(after, Relaxed);
    }

    /// The longest that a fetch may take.
    pub(super) fn fetch_limit(&self) -> Duration {
        Duration::from_micros(self.fetch_limit.load(Relaxed))
    }

    pub(super) fn set_fetch_limit(&self, limit: Duration) {
        self.fetch_limit.store(micros(limit), Relaxed);
    }

    /// Counts a client's login; `true` for the first of this user.
    pub(super) fn count_login(&self, user: &str, rank: PasswordRank) -> bool {
        let mut logins = lock(&self.logins);
        let counts = logins.entry(user.into()).or_default();
        let is_first = counts.iter().all(|count| *count == 0);
        counts[rank as usize] += 1;
        is_first
    }

    /// A user's logins, one count for each of [`PasswordRank::ALL`].
    pub(super) fn logins_of(&self, user: &str) -> [u64; PasswordRank::ALL.len()] {
        lock(&self.logins).get(user).copied().unwrap_or_default()
    }

    /// Clients that are logged in.
    pub(super) const fn clients(&self) -> &ConnectionCounts {
        &self.clients
    }

    /// Server connections that are open.
    pub(super) const fn servers(&self) -> &ConnectionCounts {
        &self.servers
    }

    /// Whether a client or a server connection is logged in as this user.
    pub(super) fn is_in_use(&self, user: &str) -> bool {
        self.clients.has(user) || self.servers.has(user)
    }

    /// Removes everything of a user but connections that are open.
    pub(super) fn forget(&self, user: &str) {
        self.publish(user, None);
        self.set_older(user, None);
        lock(&self.logins).remove(user);
        self.clients.forget(user);
        self.servers.forget(user);
    }

    /// The permits for logins at a node, [`LOGINS_PER_NODE`] in all.
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

    /// Where the keys of clients' passwords are derived.
    pub(super) const fn derivations(&self) -> &Derivations {
        &self.derivations
    }
}

/// Every change under these locks is whole, whatever panicked beside it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
