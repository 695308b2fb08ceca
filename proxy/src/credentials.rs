//! Passwords that rotate: the task that fetches them from their sources, gives them to logins at
//! servers, checks clients by them, and shows their state to operators.
//!
//! This module owns tasks, files and channels. What an answer of a source means, which password a
//! server is shown and which ones clients may show is decided in [`pgimbal_auth::rotation`].

mod cache_file;
mod fetch;
mod logins;
mod manager;
mod mismatch;
mod role;
mod server_logins;
mod shared;
mod status;

use std::sync::Arc;
use std::time::Duration;

use pgimbal_auth::SourceError;
use pgimbal_auth::account::{Account, MatchedPassword};
use pgimbal_auth::source::Sources;
use pgimbal_config::{Config, SourceConfig};
use pgimbal_pooler::server::credential::CredentialEvent;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::derivation::Derivations;
use crate::facts::Facts;
use manager::{Command, Task};
use shared::Shared;

pub(crate) use logins::Unproven;
pub use mismatch::Unavailable;
pub use status::{
    Counted, CredentialStatus, CredentialsStatus, FetchCounts, GenerationStatus, NotRevoked,
    Refreshed, UnknownRole,
};

/// Time limit of the task's answer for a status. The task answers within a turn of its loop; one
/// that does not must not keep a scrape waiting.
const ANSWER_TIME: Duration = Duration::from_secs(1);

/// Time limit for which a start waits for the passwords of the listed users.
const START_TIME: Duration = Duration::from_secs(10);

/// The handle to the one task that fetches the passwords which come from Vault, a file or an
/// environment variable, keeps their accepted generations, and tells when the password of a server
/// login changes. Clones are cheap and share the task, which ends with the last clone. A handle of
/// [`Self::idle`] has no task: it knows no account, and commands are lost.
#[derive(Clone, Debug)]
pub struct CredentialManager {
    shared: Arc<Shared>,
    commands: mpsc::UnboundedSender<Command>,
}

impl CredentialManager {
    /// Reads the password cache and the `facts`, and starts the task on this runtime with the users of `config`. The
    /// task calls `notify` with a role's name for each change that concerns its server connections;
    /// it must not block. Before [`Self::ready`], the only effects are fetches and lines in the
    /// log.
    ///
    /// # Errors
    /// [`SourceError`] when a source cannot be set up, for example a Vault's certificate; no task
    /// runs then.
    pub fn start(
        config: &Arc<Config>,
        facts: &Facts,
        notify: impl Fn(&Arc<str>, &CredentialEvent) + Send + 'static,
    ) -> Result<Self, SourceError> {
        let sources = Sources::new(config)?;
        let (commands, requests) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared::new(rotates(config)));
        let task = Task::new(
            Arc::clone(config),
            sources,
            facts.clone(),
            Box::new(notify),
            Arc::clone(&shared),
            commands.downgrade(),
        );
        tokio::spawn(task.run(requests));
        Ok(Self { shared, commands })
    }

    /// A handle without users and without a task, for a configuration in which no password rotates.
    /// [`Self::account`] is always `None`, and commands are lost.
    #[must_use]
    pub fn idle() -> Self {
        let (commands, _) = mpsc::unbounded_channel();
        Self { shared: Arc::new(Shared::new(false)), commands }
    }

    /// Waits until the password of every listed user was fetched once, with or without success, for
    /// 10 s at most. Called at the start, before clients are accepted; passwords that come later
    /// are used then. Returns at once without a listed user whose password rotates.
    pub async fn ready(&self) {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Ready(reply));
        let _ = timeout(START_TIME, answer).await;
    }

    /// Applies a reloaded configuration, and returns when clients are checked by it. Passwords of
    /// users that stay are kept; users that are gone, or whose password is now in the
    /// configuration, are dropped. A user whose source has another place is fetched at once.
    ///
    /// # Errors
    /// [`SourceError`] when a source cannot be set up; nothing is changed then.
    pub async fn reload(&self, config: &Arc<Config>) -> Result<(), SourceError> {
        let sources = Sources::new(config)?;
        self.shared.set_rotates(rotates(config));
        let (reply, answer) = oneshot::channel();
        self.send(Command::Reload(Arc::clone(config), Box::new(sources), reply));
        // A task that has ended checks nobody.
        let _ = answer.await;
        Ok(())
    }

    /// The accepted passwords of `user`, by which its login is checked. `None` when its password
    /// does not rotate, or is not known (yet). Reads what the task has published, without waiting
    /// for the task.
    #[must_use]
    pub fn account(&self, user: &str) -> Option<Arc<Account>> {
        self.shared.account(user)
    }

    /// Whether the configuration, also by its rule `*`, has a user whose password comes from Vault,
    /// a file or an environment variable; the passwords need not be known yet.
    #[must_use]
    pub fn rotates(&self) -> bool {
        self.shared.rotates()
    }

    /// The limiter under which keys of clients' passwords (PBKDF2) are derived.
    pub(crate) fn derivations(&self) -> &Derivations {
        self.shared.derivations()
    }

    /// Counts a client that has logged in as `user` with the password `matched`. It counts as
    /// connected until the value is dropped. The first login as a user since the start makes the
    /// task write its passwords to the password cache, and share their verifiers. `None`, without effect, for a user whose
    /// password does not rotate, or has no accepted password any more.
    #[must_use]
    pub fn logged_in(&self, user: &str, matched: MatchedPassword) -> Option<Counted> {
        self.account(user)?;
        if self.shared.count_login(user, matched.rank) {
            self.send(Command::FirstLogin(user.into()));
        }
        Some(self.shared.clients().add(user, matched.generation))
    }

    /// Drops all generations of a user's password but the newest (REVOKE OLD). Clients are refused
    /// with them at once; this returns when the store has it too, so that a restart does not
    /// bring them back. It waits for the verifier of a password that was just fetched. Clients that are connected stay.
    ///
    /// # Errors
    /// [`NotRevoked`] when the user is not known, or the store could not be written.
    pub async fn revoke_old(&self, user: &str) -> Result<(), NotRevoked> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::RevokeOld(user.into(), reply));
        answer.await.map_err(|_| NotRevoked::Unknown(UnknownRole))?
    }

    /// Fetches the password of `user` at once (REFRESH), and returns the result of the fetch once
    /// its verifier is made. `Ok(Err(_))` is the source's error; the known passwords stay in use
    /// then. The time is limited only by the source's own timeout.
    ///
    /// # Errors
    /// [`UnknownRole`] when no such user has a password that rotates, or the task has ended.
    pub async fn refresh(&self, user: &str) -> Result<Refreshed, UnknownRole> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Refresh(user.into(), reply));
        answer.await.map_err(|_| UnknownRole)
    }

    /// The state of all users for SHOW CREDENTIALS and the metrics; empty when the task does not
    /// answer within a second.
    pub async fn status(&self) -> CredentialsStatus {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Status(reply));
        match timeout(ANSWER_TIME, answer).await {
            Ok(Ok(status)) => status,
            _ => CredentialsStatus::default(),
        }
    }

    /// Sends a command to the task. When the task has ended the command is lost, and so is its
    /// reply.
    fn send(&self, command: Command) {
        let _ = self.commands.send(command);
    }
}

impl Default for CredentialManager {
    fn default() -> Self {
        Self::idle()
    }
}

/// Whether the password of any user comes from elsewhere than the configuration.
fn rotates(config: &Config) -> bool {
    config.users.values().any(|user| user.source() != SourceConfig::Inline)
}
