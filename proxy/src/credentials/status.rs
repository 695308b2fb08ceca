//! What people see of passwords that rotate: `SHOW CREDENTIALS`, metrics, answers to operators'
//! commands, and lines of the log. Never a password.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pgimbal_auth::SourceError;
use pgimbal_auth::account::PasswordRank;
use tokio::sync::oneshot;
use tracing::{info, warn};

use crate::dial::DialError;

/// Every user whose password rotates, at one moment. Empty when the task has not answered in time.
#[derive(Clone, Debug, Default)]
pub struct CredentialsStatus {
    /// Each user, in the order of their names.
    pub users: Vec<CredentialStatus>,
    /// Fetches of all users since the start.
    pub fetches: FetchCounts,
}

/// One user whose password rotates.
#[derive(Clone, Debug)]
pub struct CredentialStatus {
    /// The user's name.
    pub user: String,
    /// The kind of its source: `vault`, `file` or `env`.
    pub source: &'static str,
    /// The role in Vault, the path or the variable, as text for people.
    pub place: String,
    /// Time until the next rotation; `None` when the source does not tell.
    pub next_rotation: Option<Duration>,
    /// Time since the last fetch ended; `None` before the first.
    pub last_fetch: Option<Duration>,
    /// Its result as a metric's label: `ok`, [`SourceError::result_label`], or `none` before the
    /// first.
    pub last_result: &'static str,
    /// For how long fetches have failed; zero after one that succeeded.
    pub stale: Duration,
    /// The generations that clients may show, the newest first.
    pub generations: Vec<GenerationStatus>,
    /// Nodes that were logged in to, and whether each refuses all passwords, the newest included.
    pub nodes: Vec<(String, bool)>,
    /// Logins of clients since the start, one count for each of [`PasswordRank::ALL`].
    pub logins: [u64; PasswordRank::ALL.len()],
}

/// One generation of a user's password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GenerationStatus {
    /// Its number, counted from 1 in each process; 0 is `accept_also`.
    pub number: u32,
    /// Time since the source made it, or since it was first seen where the source does not tell.
    pub age: Duration,
    /// Connected clients that have logged in with it.
    pub clients: u64,
    /// Open server connections that were opened with it.
    pub servers: u64,
}

/// Fetches that have ended, for metrics.
#[derive(Clone, Debug, Default)]
pub struct FetchCounts {
    /// How many, by the source's kind and by the result ([`CredentialStatus::last_result`]).
    pub results: BTreeMap<(&'static str, &'static str), u64>,
    /// The time of all of them together.
    pub time: Duration,
    /// How many in all.
    pub count: u64,
}

/// No user of this name has a password that rotates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no user of this name has a password that rotates")]
pub struct UnknownRole;

/// Why old passwords are not revoked for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotRevoked {
    /// Nobody has them.
    #[error(transparent)]
    Unknown(#[from] UnknownRole),
    /// They are refused from now on, but the history could not be written.
    #[error(
        "refused from now on, but the history could not be written: a restart brings them back"
    )]
    NotKept,
}

/// The result of the fetch that an operator has ordered.
pub type Refreshed = Result<(), SourceError>;

/// Answers an operator who revokes passwords, once the history is written or could not be.
pub(super) type RevokeReply = oneshot::Sender<Result<(), NotRevoked>>;

type Counts = HashMap<Box<str>, HashMap<u32, Arc<Count>>>;

/// Connections by user and generation, of clients or of servers.
#[derive(Debug, Default)]
pub(super) struct ConnectionCounts(Mutex<Counts>);

/// A connection that counts as one of its user and generation until this is dropped.
#[derive(Debug)]
pub struct Counted(Arc<Count>);

#[derive(Debug)]
struct Count {
    generation: u32,
    count: AtomicU64,
}

impl Counted {
    /// The generation that the connection has logged in with.
    #[must_use]
    pub fn generation(&self) -> u32 {
        self.0.generation
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, Relaxed);
    }
}

impl ConnectionCounts {
    /// Counts one more connection.
    pub(super) fn add(&self, user: &str, generation: u32) -> Counted {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let own = counts.entry(user.into()).or_default();
        // Generations without connections take no memory.
        own.retain(|_, known| known.count.load(Relaxed) > 0);
        let new = || Arc::new(Count { generation, count: AtomicU64::new(0) });
        let known = own.entry(generation).or_insert_with(new);
        known.count.fetch_add(1, Relaxed);
        Counted(Arc::clone(known))
    }

    /// Whether this user has any connection.
    pub(super) fn has(&self, user: &str) -> bool {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.get(user).is_some_and(has_any)
    }

    /// Removes a user, unless it still has a connection.
    pub(super) fn forget(&self, user: &str) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.get(user).is_some_and(|own| !has_any(own)) {
            counts.remove(user);
        }
    }

    /// Whether nothing is kept of any user.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// How many connections this user has with this generation.
    pub(super) fn count(&self, user: &str, generation: u32) -> u64 {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = counts.get(user).and_then(|own| own.get(&generation));
        known.map_or(0, |known| known.count.load(Relaxed))
    }
}

fn has_any(own: &HashMap<u32, Arc<Count>>) -> bool {
    own.values().any(|known| known.count.load(Relaxed) > 0)
}

/// Log: there is a new generation.
pub(super) fn log_rotated(user: &str, source: &str, generation: u32) {
    info!(user, generation, "{source}: a new password");
}

/// Log: a generation with an older date has become the newest because it works.
pub(super) fn log_promoted(user: &str, source: &str, generation: u32) {
    info!(
        user,
        generation,
        "{source}: a password with an older date works while the newest one known is refused; it \
         is the newest from now on"
    );
}

/// Log: the source tells an old password although a newer one works.
pub(super) fn log_lagging(user: &str, source: &str) {
    info!(user, "{source}: an answer older than what works is ignored; a standby may lag");
}

/// Log: the source's answer names another user.
pub(super) fn log_other_name(user: &str, source: &str, other: &str) {
    warn!(
        user,
        "{source}: the password is said to be of user \"{other}\"; it is tried for user \"{user}\""
    );
}

/// Log: a fetch has failed. `is_known` says that there is a password to go on with.
pub(super) fn log_fetch_failed(user: &str, error: &SourceError, is_known: bool) {
    let then = if is_known { "what is known stays in use" } else { "no password is known yet" };
    match error.hint() {
        Some(hint) => warn!(user, result = error.result_label(), "{error}; {then}; add: {hint}"),
        None => warn!(user, result = error.result_label(), "{error}; {then}"),
    }
}

/// Log: the source answers again after `silent_for`.
pub(super) fn log_answers_again(user: &str, source: &str, silent_for: Duration) {
    info!(user, silent_seconds = silent_for.as_secs(), "{source}: answers again");
}

/// Log: no password works at a node. `has_worked` says that one has before.
pub(super) fn log_all_refused(user: &str, node: &str, has_worked: bool, error: Option<&DialError>) {
    let cause = error.map(ToString::to_string).unwrap_or_default();
    let text = if has_worked {
        "it worked before: somebody else has changed it in PostgreSQL (ALTER ROLE), its source has \
         not told a new one yet, or the role's VALID UNTIL has passed"
    } else {
        "none ever worked there: the source tells another role's password, or the role's VALID \
         UNTIL has passed"
    };
    warn!(user, node, "no password of user \"{user}\" works at {node}; {text}: {cause}");
}

/// Log: the source still tells the password that the server refuses.
pub(super) fn log_contradicted(user: &str, source: &str) {
    warn!(
        user,
        "{source}: still says the password that the server refuses: another system has changed it \
         in PostgreSQL (ALTER ROLE), or the source lags"
    );
}

/// Log: a password works again at a node.
pub(super) fn log_works_again(user: &str, node: &str) {
    info!(user, node, "a password of user \"{user}\" works at {node} again");
}

/// Log: a node accepts only an older password, though it had accepted the newest.
pub(super) fn log_fell_back(user: &str, node: &str) {
    warn!(
        user,
        node,
        "{node} refuses the newest password of user \"{user}\" and accepts an older one: it lags, \
         or has lost the change (a failover, a restore, an ALTER ROLE by another system)"
    );
}

#[cfg(test)]
impl CredentialStatus {
    /// A user of a sealed Vault: two generations are accepted, and node `a` takes none.
    pub(crate) fn example() -> Self {
        let generation = |number: u32, age| GenerationStatus {
            number,
            age: Duration::from_secs(age),
            clients: number.into(),
            servers: 0,
        };
        Self {
            user: "app".to_owned(),
            source: "vault",
            place: "vault main, role app".to_owned(),
            next_rotation: Some(Duration::from_secs(40)),
            last_fetch: None,
            last_result: "sealed",
            stale: Duration::from_secs(9),
            generations: vec![generation(7, 20), generation(6, 80)],
            nodes: vec![("a".to_owned(), true), ("b".to_owned(), false)],
            logins: [5, 4, 3, 2],
        }
    }
}
