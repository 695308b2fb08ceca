//! Where passwords come from: Vault, files, the environment, the configuration itself.
//!
//! Each source answers when it is asked, and says when it is worth asking again if it knows. It
//! remembers no generation and decides on none.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use pgimbal_config::{Config, SourceConfig, UserConfig};
use tokio::sync::watch;

use self::file::{FileSource, Watcher};
use self::fixed::FixedSource;
use self::vault::VaultSource;
use crate::{Answer, SourceError};

mod file;
mod fixed;
#[cfg(test)]
mod scratch;
mod vault;

pub use self::vault::{Health, TokenStanding, VaultClient};

/// How often files are looked at without inotify having said so: it does not see what another
/// host writes to a network file system, nor what is mounted.
const POLL: Duration = Duration::from_secs(30);

/// A future on the heap, so that sources of different kinds are one type.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Where the password of one user is.
pub trait Source: Debug + Send + Sync {
    /// Asks for the password as it is now.
    fn fetch(&self) -> BoxFuture<'_, Result<Answer, SourceError>>;

    /// Ticks when the place has changed; `None` for a source that must be asked regularly, and
    /// for one that never changes.
    fn changes(&self) -> Option<watch::Receiver<u64>>;

    /// `vault`, `file`, `env` or `inline`.
    fn kind(&self) -> &'static str;

    /// The place in words, without a secret.
    fn place(&self) -> String;
}

/// The sources of one configuration, with what they share: a client for each Vault, a thread for
/// all files.
#[derive(Debug)]
pub struct Sources {
    vaults: BTreeMap<String, Arc<VaultClient>>,
    watcher: OnceLock<Watcher>,
}

impl Sources {
    /// Makes a client for each Vault. Nothing is connected to and no password is read yet.
    ///
    /// # Errors
    /// [`SourceError`] when a certificate, a key or an address cannot be used.
    pub fn new(config: &Config) -> Result<Self, SourceError> {
        let client = |(name, config): (&String, _)| {
            Ok((name.clone(), Arc::new(VaultClient::new(name, config)?)))
        };
        Ok(Self {
            vaults: config.vaults.iter().map(client).collect::<Result<_, _>>()?,
            watcher: OnceLock::new(),
        })
    }

    /// The source of a user's password; `None` for a user without one, and for one whose Vault
    /// is not configured. An environment variable is read now, and a file is followed as long as
    /// the source or its changes are held.
    #[must_use]
    pub fn of_user(&self, name: &str, user: &UserConfig) -> Option<Arc<dyn Source>> {
        Some(match user.source() {
            SourceConfig::Inline => Arc::new(FixedSource::inline(name, user.password.clone()?)),
            SourceConfig::Vault { vault, role } => {
                let client = Arc::clone(self.vault(&vault)?);
                Arc::new(VaultSource { client, role: role.into() })
            }
            SourceConfig::File(path) => {
                let watcher = self.watcher.get_or_init(|| Watcher::new(POLL));
                Arc::new(FileSource::new(&path, name, watcher))
            }
            SourceConfig::Env(variable) => Arc::new(FixedSource::variable(&variable)),
        })
    }

    /// The client of a Vault by its name in the configuration; an empty name stands for the only
    /// one.
    #[must_use]
    pub fn vault(&self, name: &str) -> Option<&Arc<VaultClient>> {
        match self.vaults.values().next() {
            Some(only) if name.is_empty() && self.vaults.len() == 1 => Some(only),
            _ => self.vaults.get(name),
        }
    }
}

#[cfg(test)]
mod tests;
