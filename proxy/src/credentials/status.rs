//! The state of passwords that rotate as operators see it: `SHOW CREDENTIALS`, metrics, answers to
//! commands of the console, and lines of the log. It never has a password.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pgimbal_auth::SourceError;
use pgimbal_auth::account::PasswordRank;
use tokio::sync::oneshot;
use tracing::{info, warn};

use crate::dial::DialError;
use crate::facts::NotStored;

/// The state of every user whose password rotates, at one moment. Empty when the task has not
/// answered in time.
#[derive(Clone, Debug, Default)]
pub struct CredentialsStatus {
    /// The state of each user, in the order of their names.
    pub users: Vec<CredentialStatus>,
    /// Counts of the fetches of all users that have ended since the start.
    pub fetches: FetchCounts,
}

/// The state of one user whose password rotates, as a row of SHOW CREDENTIALS.
#[derive(Clone, Debug)]
pub struct CredentialStatus {
    /// The user's name.
    pub user: String,
    /// The kind of the user's source: `vault`, `file` or `env`.
    pub source: &'static str,
    /// The location of the password as text for people: Vault and role, path, or variable.
    pub place: String,
    /// Time until the next expected rotation; zero when it is due, `None` when the source does not
    /// tell.
    pub next_rotation: Option<Duration>,
    /// Time since the last fetch ended; `None` before the first.
    pub last_fetch: Option<Duration>,
    /// The result of the last fetch as a metric's label: `ok`, [`SourceError::result_label`], or
    /// `none` before the first.
    pub last_result: &'static str,
    /// Time since the first failed fetch after the last success; zero when the last fetch
    /// succeeded.
    pub stale: Duration,
    /// The generations that clients may show, the newest first; empty when none is known.
    pub generations: Vec<GenerationStatus>,
    /// Nodes at which logins were tried, as `host:port`; `true` for a node that refuses all known
    /// passwords, the newest included. Empty before the first login.
    pub nodes: Vec<(String, bool)>,
    /// Number of clients' logins since the start, for each of [`PasswordRank::ALL`].
    pub logins: [u64; PasswordRank::ALL.len()],
}

/// The state of one generation of a user's password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GenerationStatus {
    /// The number of the generation, counted from 1 in each process; 0 is `accept_also`.
    pub number: u32,
    /// Time since the source made the password, or since pgimbal first saw it where the source does
    /// not tell.
    pub age: Duration,
    /// Number of connected clients that have logged in with this generation.
    pub clients: u64,
    /// Number of open server connections that were opened with this generation.
    pub servers: u64,
}

/// Counts of fetches that have ended since the start, for metrics.
#[derive(Clone, Debug, Default)]
pub struct FetchCounts {
    /// Number of fetches by the source's kind (`vault`, `file` or `env`) and by the result (`ok` or
    /// [`SourceError::result_label`]). A pair that has not occurred is absent.
    pub results: BTreeMap<(&'static str, &'static str), u64>,
    /// The sum of the times of all fetches, each from its start to its end.
    pub time: Duration,
    /// Number of all fetches.
    pub count: u64,
}

/// The error of REFRESH and REVOKE OLD for a user that does not exist or whose password does not
/// rotate, and after the credentials' task has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no user of this name has a password that rotates")]
pub struct UnknownRole;

/// The reason for which REVOKE OLD has not revoked a user's old passwords for good.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotRevoked {
    /// There is no such user with a password that rotates; nothing was revoked.
    #[error(transparent)]
    Unknown(#[from] UnknownRole),
    /// Clients are refused with the old passwords from now on, here and at the replicas that are
    /// reached, but a restart of all would bring them back.
    #[error("refused from now on, but {0}: a restart brings them back")]
    NotKept(#[from] NotStored),
}

/// The result of a fetch that an operator has ordered (REFRESH).
pub type Refreshed = Result<(), SourceError>;

/// The channel on which an operator who revokes passwords is answered, once the store has it or
/// could not be written.
pub(super) type RevokeReply = oneshot::Sender<Result<(), NotRevoked>>;

type Counts = HashMap<Box<str>, HashMap<u32, Arc<Count>>>;

/// Numbers of connections by user and generation, of clients or of servers.
#[derive(Debug, Default)]
pub(super) struct ConnectionCounts(Mutex<Counts>);

/// The guard of one counted connection, of a client or to a server: SHOW CREDENTIALS counts it for
/// its user and generation until this is dropped.
#[derive(Debug)]
pub struct Counted(Arc<Count>);

#[derive(Debug)]
struct Count {
    generation: u32,
    count: AtomicU64,
}

impl Counted {
    /// The number of the generation with which the connection has logged in.
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
    /// Counts one more connection of `user` with this generation, until the result is dropped.
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

    /// Whether `user` has any open connection of this kind (clients, or servers), of any
    /// generation.
    pub(super) fn has(&self, user: &str) -> bool {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.get(user).is_some_and(has_any)
    }

    /// Removes the entry of `user`, unless it still has a connection.
    pub(super) fn forget(&self, user: &str) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.get(user).is_some_and(|own| !has_any(own)) {
            counts.remove(user);
        }
    }

    /// Whether no user has an entry.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// Number of open connections of `user` with this generation; 0 when there is none.
    pub(super) fn count(&self, user: &str, generation: u32) -> u64 {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = counts.get(user).and_then(|own| own.get(&generation));
        known.map_or(0, |known| known.count.load(Relaxed))
    }
}

fn has_any(own: &HashMap<u32, Arc<Count>>) -> bool {
    own.values().any(|known| known.count.load(Relaxed) > 0)
}

/// Logs that the source has returned a new password.
pub(super) fn log_rotated(user: &str, source: &str, generation: u32) {
    info!(user, generation, "{source}: a new password");
}

/// Logs that a password with an older date has become the newest because a server accepts it.
pub(super) fn log_promoted(user: &str, source: &str, generation: u32) {
    info!(
        user,
        generation,
        "{source}: a password with an older date works while the newest one known is refused; it \
         is the newest from now on"
    );
}

/// Logs that the source returns an old password although a newer one works.
pub(super) fn log_lagging(user: &str, source: &str) {
    info!(user, "{source}: an answer older than what works is ignored; a standby may lag");
}

/// Logs that the source's answer names another user, `other`.
pub(super) fn log_other_name(user: &str, source: &str, other: &str) {
    warn!(
        user,
        "{source}: the password is said to be of user \"{other}\"; it is tried for user \"{user}\""
    );
}

/// Logs that a fetch has failed. `is_known` says whether a password is known to go on with.
pub(super) fn log_fetch_failed(user: &str, error: &SourceError, is_known: bool) {
    let then = if is_known { "what is known stays in use" } else { "no password is known yet" };
    match error.hint() {
        Some(hint) => warn!(user, result = error.result_label(), "{error}; {then}; add: {hint}"),
        None => warn!(user, result = error.result_label(), "{error}; {then}"),
    }
}

/// Logs that the source answers again, after it has failed for `silent_for`.
pub(super) fn log_answers_again(user: &str, source: &str, silent_for: Duration) {
    info!(user, silent_seconds = silent_for.as_secs(), "{source}: answers again");
}

/// Logs that no password works at `node`. `has_worked` says whether one has worked before.
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

/// Logs that the source still returns the password that the server refuses.
pub(super) fn log_contradicted(user: &str, source: &str) {
    warn!(
        user,
        "{source}: still says the password that the server refuses: another system has changed it \
         in PostgreSQL (ALTER ROLE), or the source lags"
    );
}

/// Logs that the source's newest password was revoked, so that clients cannot show it.
pub(super) fn log_revoked(user: &str, source: &str) {
    warn!(
        user,
        "{source}: returns a password that an operator has revoked (REVOKE OLD): clients are \
         refused with it until the source has another one"
    );
}

/// Logs that a password works again at `node`.
pub(super) fn log_works_again(user: &str, node: &str) {
    info!(user, node, "a password of user \"{user}\" works at {node} again");
}

/// Logs that `node` accepts only an older password and refuses the newest.
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
    /// An example for tests: a user of a sealed Vault with two accepted generations, whose node `a`
    /// refuses all passwords.
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
