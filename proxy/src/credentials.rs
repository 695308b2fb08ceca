//! Passwords that rotate: when they are fetched, who may use which, and what people see of it.
//!
//! Owns the tasks, files and channels of this. What an answer means, which password a server is
//! shown and which a client may show is decided in [`pgimbal_auth::rotation`].

mod fetch;
mod logins;
mod manager;
mod mismatch;
mod role;
mod server_logins;
mod shared;
mod state_files;
mod status;

use std::sync::Arc;
use std::time::Duration;

use pgimbal_auth::SourceError;
use pgimbal_auth::account::{Account, MatchedPassword};
use pgimbal_auth::source::Sources;
use pgimbal_auth::verifier::SaltKey;
use pgimbal_config::{Config, SourceConfig};
use pgimbal_pooler::server::credential::CredentialEvent;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::derivation::Derivations;
use manager::{Command, Task};
use shared::Shared;

pub(crate) use logins::Unproven;
pub use mismatch::Unavailable;
pub use state_files::salt_key;
pub use status::{
    Counted, CredentialStatus, CredentialsStatus, FetchCounts, GenerationStatus, NotRevoked,
    Refreshed, UnknownRole,
};

/// The task answers within a turn of its loop; one that does not must not keep a scrape waiting.
const ANSWER_TIME: Duration = Duration::from_secs(1);

/// How long a start waits for the passwords of the users that are listed.
const START_TIME: Duration = Duration::from_secs(10);

/// The way to the one task that knows all passwords that rotate. Cheap to clone; the task ends with
/// the last clone.
#[derive(Clone, Debug)]
pub struct CredentialManager {
    shared: Arc<Shared>,
    commands: mpsc::UnboundedSender<Command>,
}

impl CredentialManager {
    /// Reads the state files, and starts the task on this runtime with the users of `config`.
    /// `notify` is called from the task, with the role, for what concerns server connections: it
    /// must not block. The only effects before [`Self::ready`] are fetches and lines in the log.
    ///
    /// # Errors
    /// [`SourceError`] when a source cannot be set up.
    pub fn start(
        config: &Arc<Config>,
        salts: &SaltKey,
        notify: impl Fn(&Arc<str>, &CredentialEvent) + Send + 'static,
    ) -> Result<Self, SourceError> {
        let sources = Sources::new(config)?;
        let (commands, requests) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared::new(rotates(config)));
        let task = Task::new(
            Arc::clone(config),
            sources,
            salts.clone(),
            Box::new(notify),
            Arc::clone(&shared),
            commands.downgrade(),
        );
        tokio::spawn(task.run(requests));
        Ok(Self { shared, commands })
    }

    /// A manager without users and without a task, for a configuration in which no password
    /// rotates.
    #[must_use]
    pub fn idle() -> Self {
        let (commands, _) = mpsc::unbounded_channel();
        Self { shared: Arc::new(Shared::new(false)), commands }
    }

    /// Waits until every listed user has been fetched once, for ten seconds at most. Those that are
    /// not known by then follow when they are.
    pub async fn ready(&self) {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Ready(reply));
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
        self.send(Command::Reload(Arc::clone(config), Box::new(sources), reply));
        // A task that has ended checks nobody.
        let _ = answer.await;
        Ok(())
    }

    /// What a user's password is checked by; `None` for one whose password does not rotate, or is
    /// not known yet. Reads what the task has published, without waiting for it.
    #[must_use]
    pub fn account(&self, user: &str) -> Option<Arc<Account>> {
        self.shared.account(user)
    }

    /// Whether any user's password rotates, known or not.
    #[must_use]
    pub fn rotates(&self) -> bool {
        self.shared.rotates()
    }

    /// Where the keys of clients' passwords are derived.
    pub(crate) fn derivations(&self) -> &Derivations {
        self.shared.derivations()
    }

    /// Counts a client that has logged in with what [`Self::account`] has. It counts as connected
    /// until the value is dropped; `None` for a user whose password does not rotate.
    #[must_use]
    pub fn logged_in(&self, user: &str, matched: MatchedPassword) -> Option<Counted> {
        self.account(user)?;
        if self.shared.count_login(user, matched.rank) {
            self.send(Command::FirstLogin(user.into()));
        }
        Some(self.shared.clients().add(user, matched.generation))
    }

    /// Drops all generations of a user's password but the newest. They are refused at once; this
    /// ends when the history says so too, so that a restart does not bring them back.
    ///
    /// # Errors
    /// [`NotRevoked`].
    pub async fn revoke_old(&self, user: &str) -> Result<(), NotRevoked> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::RevokeOld(user.into(), reply));
        answer.await.map_err(|_| NotRevoked::Unknown(UnknownRole))?
    }

    /// Fetches a user's password at once, and waits for the result, which is the value.
    ///
    /// # Errors
    /// [`UnknownRole`].
    pub async fn refresh(&self, user: &str) -> Result<Refreshed, UnknownRole> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Refresh(user.into(), reply));
        answer.await.map_err(|_| UnknownRole)
    }

    /// Everything as people see it; empty when the task does not answer within a second.
    pub async fn status(&self) -> CredentialsStatus {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Status(reply));
        match timeout(ANSWER_TIME, answer).await {
            Ok(Ok(status)) => status,
            _ => CredentialsStatus::default(),
        }
    }

    /// Sends a command. After the task has ended it is lost, and so is its reply.
    fn send(&self, command: Command) {
        let _ = self.commands.send(command);
    }
}

impl Default for CredentialManager {
    fn default() -> Self {
        Self::idle()
    }
}

/// Whether any user's password comes from elsewhere than the configuration.
fn rotates(config: &Config) -> bool {
    config.users.values().any(|user| user.source() != SourceConfig::Inline)
}
