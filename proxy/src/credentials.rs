//! Passwords that rotate: who asks for them, who may use which, and what people see of it.
//!
//! Owns the tasks, files and channels of this; what an answer means, which password a server is
//! shown and which a client may show is decided in [`pgimbal_auth::rotation`].

mod aside;
mod derive;
mod dial;
mod fetch;
mod files;
mod grace;
mod leaving;
mod logs;
mod manager;
mod mismatch;
mod questions;
mod role;
mod salts;
mod server_logins;
mod status;
mod stored;
mod tally;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use pgimbal_auth::SourceError;
use pgimbal_auth::account::{Account, Matched, Standing};
use pgimbal_auth::source::Sources;
use pgimbal_auth::verifier::SaltKey;
use pgimbal_config::{Config, SourceConfig};
use tally::Tally;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::time::timeout;

use crate::derivation::Derivations;
use crate::worker::Message;
use aside::Aside;
use manager::{Command, Task};
pub use mismatch::Unavailable;
pub use salts::salt_key;
pub use status::{CredentialStatus, CredentialsStatus, FetchCounts, GenerationStatus};
pub use tally::Counted;

/// The keeper answers within a turn of its loop; one that does not must not keep a scrape waiting.
const ANSWER_TIME: Duration = Duration::from_secs(1);

/// How long a start waits for the passwords of the users that are listed.
const START_TIME: Duration = Duration::from_secs(10);

/// Server logins at one node at a time, all roles together: two hundred roles that rotate in the
/// same second must not be two hundred forks in it.
const LOGINS_PER_NODE: usize = 16;

/// The way to the one task that keeps all passwords; cheap to clone.
#[derive(Clone, Debug)]
pub struct CredentialManager {
    shared: Arc<Shared>,
    commands: mpsc::UnboundedSender<Command>,
}

/// What logins read without asking the task.
#[derive(Debug)]
pub(crate) struct Shared {
    accounts: RwLock<HashMap<Box<str>, Arc<Account>>>,
    asides: RwLock<HashMap<Box<str>, Arc<Aside>>>,
    /// Ticks when an account has changed.
    published: watch::Sender<()>,
    /// Some user's password comes from elsewhere than the configuration.
    rotates: AtomicBool,
    /// How long a login with a wrong password waits, whoever it is for, in microseconds.
    delay: AtomicU64,
    /// How long a question to a source may take, in microseconds.
    question: AtomicU64,
    /// Why passwords are not known that should be, while that is so.
    unavailable: watch::Sender<Option<Unavailable>>,
    logins: Mutex<HashMap<Box<str>, [u64; Standing::ALL.len()]>>,
    nodes: Mutex<HashMap<Box<str>, Arc<Semaphore>>>,
    clients: Tally,
    servers: Tally,
    /// Who derives what passwords in clear are checked by.
    derivations: Derivations,
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

/// What became of a question that an operator wanted.
pub type Refreshed = Result<(), SourceError>;

impl CredentialManager {
    /// Who derives what clients' passwords are checked by.
    pub(crate) fn derivations(&self) -> &Derivations {
        &self.shared.derivations
    }

    /// Begins to keep the passwords of `config`'s users, on this runtime. `workers` are told of
    /// what concerns their server connections.
    ///
    /// # Errors
    /// [`SourceError`] when a source cannot be set up.
    pub fn start(
        config: &Arc<Config>,
        salts: &SaltKey,
        workers: &Arc<[mpsc::UnboundedSender<Message>]>,
    ) -> Result<Self, SourceError> {
        let sources = Sources::new(config)?;
        let (commands, requests) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared::new(rotates(config)));
        let task = Task::new(
            Arc::clone(config),
            sources,
            salts.clone(),
            Arc::clone(workers),
            Arc::clone(&shared),
            commands.downgrade(),
        );
        tokio::spawn(task.run(requests));
        Ok(Self { shared, commands })
    }

    /// A keeper of nothing: all passwords stand in the configuration.
    #[must_use]
    pub fn idle() -> Self {
        let (commands, _) = mpsc::unbounded_channel();
        Self { shared: Arc::new(Shared::new(false)), commands }
    }

    /// Waits until every listed user's source has been asked once, for ten seconds at most.
    pub async fn ready(&self) {
        let (reply, answer) = oneshot::channel();
        self.tell(Command::Ready(reply));
        // Whoever is not known by then is served when it is.
        let _ = timeout(START_TIME, answer).await;
    }

    /// Follows a new configuration; when this ends, clients are checked by it. What is known of
    /// users that stay is kept.
    ///
    /// # Errors
    /// [`SourceError`] when a source cannot be set up; nothing is changed then.
    pub async fn reload(&self, config: &Arc<Config>) -> Result<(), SourceError> {
        let sources = Sources::new(config)?;
        self.shared.set_rotates(rotates(config));
        let (reply, answer) = oneshot::channel();
        self.tell(Command::Reload(Arc::clone(config), Box::new(sources), reply));
        // A task that has ended checks nobody.
        let _ = answer.await;
        Ok(())
    }

    /// What a user with a password that rotates is asked and checked by.
    #[must_use]
    pub fn account(&self, user: &str) -> Option<Arc<Account>> {
        let accounts = self.shared.accounts.read().unwrap_or_else(PoisonError::into_inner);
        accounts.get(user).cloned()
    }

    /// Whether any user's password rotates.
    #[must_use]
    pub fn rotates(&self) -> bool {
        self.shared.rotates.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// A client has logged in with what it has shown; counted until the answer is dropped.
    #[must_use]
    pub fn logged_in(&self, user: &str, matched: Matched) -> Option<Counted> {
        self.account(user)?;
        if self.shared.count_login(user, matched.standing) {
            self.tell(Command::Served(user.into()));
        }
        Some(self.shared.clients.count_in(user, matched.generation))
    }

    /// Drops all generations of a user's password but the newest, for good.
    ///
    /// # Errors
    /// [`NotRevoked`].
    pub async fn revoke_old(&self, user: &str) -> Result<(), NotRevoked> {
        let (reply, answer) = oneshot::channel();
        self.tell(Command::RevokeOld(user.into(), reply));
        answer.await.map_err(|_| NotRevoked::Unknown(UnknownRole))?
    }

    /// Asks for a user's password at once.
    ///
    /// # Errors
    /// [`UnknownRole`]; what became of the question is in the answer.
    pub async fn refresh(&self, user: &str) -> Result<Refreshed, UnknownRole> {
        let (reply, answer) = oneshot::channel();
        self.tell(Command::Refresh(user.into(), reply));
        answer.await.map_err(|_| UnknownRole)
    }

    /// Everything as people see it.
    pub async fn status(&self) -> CredentialsStatus {
        let (reply, answer) = oneshot::channel();
        self.tell(Command::Status(reply));
        match timeout(ANSWER_TIME, answer).await {
            Ok(Ok(status)) => status,
            _ => CredentialsStatus::default(),
        }
    }

    /// Sends a command; a task that has ended needs none.
    fn tell(&self, command: Command) {
        let _ = self.commands.send(command);
    }
}

impl Default for CredentialManager {
    fn default() -> Self {
        Self::idle()
    }
}

impl Shared {
    fn new(rotates: bool) -> Self {
        let ((unavailable, _), (published, _)) = (watch::channel(None), watch::channel(()));
        Self {
            accounts: RwLock::default(),
            asides: RwLock::default(),
            published,
            rotates: AtomicBool::new(rotates),
            delay: AtomicU64::new(0),
            question: AtomicU64::new(0),
            unavailable,
            logins: Mutex::default(),
            nodes: Mutex::default(),
            clients: Tally::default(),
            servers: Tally::default(),
            derivations: Derivations::default(),
        }
    }

    fn set_rotates(&self, rotates: bool) {
        self.rotates.store(rotates, std::sync::atomic::Ordering::Relaxed);
    }

    fn publish(&self, user: &str, account: Option<Account>) {
        let mut accounts = self.accounts.write().unwrap_or_else(PoisonError::into_inner);
        match account {
            Some(account) => drop(accounts.insert(user.into(), Arc::new(account))),
            None => drop(accounts.remove(user)),
        }
        drop(accounts);
        self.published.send_replace(());
    }

    /// Counts a login; whether it is the first of this user.
    fn count_login(&self, user: &str, standing: Standing) -> bool {
        let mut logins = self.logins.lock().unwrap_or_else(PoisonError::into_inner);
        let counts = logins.entry(user.into()).or_default();
        let is_first = counts.iter().all(|count| *count == 0);
        counts[standing as usize] += 1;
        is_first
    }

    /// Whether a client or a server connection is logged in as this user.
    fn is_in_use(&self, user: &str) -> bool {
        self.clients.has(user) || self.servers.has(user)
    }

    /// Nothing of this user is kept any more.
    fn forget(&self, user: &str) {
        self.publish(user, None);
        self.set_aside(user, None);
        self.logins.lock().unwrap_or_else(PoisonError::into_inner).remove(user);
        self.clients.forget(user);
        self.servers.forget(user);
    }

    fn logins_of(&self, user: &str) -> [u64; Standing::ALL.len()] {
        let logins = self.logins.lock().unwrap_or_else(PoisonError::into_inner);
        logins.get(user).copied().unwrap_or_default()
    }

    /// The places for logins at a node.
    fn node(&self, node: &str) -> Arc<Semaphore> {
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(places) = nodes.get(node) {
            return Arc::clone(places);
        }
        // Nodes of names that lead elsewhere over time.
        nodes.retain(|_, places| Arc::strong_count(places) > 1);
        let places = Arc::new(Semaphore::new(LOGINS_PER_NODE));
        nodes.insert(node.into(), Arc::clone(&places));
        places
    }
}

/// Whether any user's password comes from elsewhere than the configuration.
fn rotates(config: &Config) -> bool {
    config.users.values().any(|user| user.source() != SourceConfig::Inline)
}
