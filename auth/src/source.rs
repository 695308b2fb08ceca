//! Sources of passwords: Vault, files, environment variables and the configuration itself.
//!
//! A source answers when it is asked, and reports changes if it notices them. It remembers no
//! generations.

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

/// Interval at which files are looked at without an event of inotify, which sees neither writes of
/// another host to a network file system nor new mounts.
const POLL: Duration = Duration::from_secs(30);

/// A boxed future, so that sources of different kinds have one type.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A source of one user's password.
pub trait Source: Debug + Send + Sync {
    /// Asks for the current password.
    ///
    /// # Errors
    /// [`SourceError`] by cause, when the source cannot be asked or has no usable password.
    fn fetch(&self) -> BoxFuture<'_, Result<Answer, SourceError>>;

    /// A counter that grows when the place has changed; `None` for a source that must be polled
    /// (Vault), and for one that never changes.
    fn changes(&self) -> Option<watch::Receiver<u64>>;

    /// The kind of source: `vault`, `file`, `env` or `inline`.
    fn kind(&self) -> &'static str;

    /// The place of the password in words, without a secret.
    fn place(&self) -> String;
}

/// The sources of one configuration, with what they share: a client for each Vault, and one thread
/// that watches all files.
#[derive(Debug)]
pub struct Sources {
    vaults: BTreeMap<String, Arc<VaultClient>>,
    watcher: OnceLock<Watcher>,
}

impl Sources {
    /// Makes a client for each Vault. It reads certificate files, but connects to nothing and reads
    /// no password yet.
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

    /// The source of a user's password; `None` for a user without a password, and for one whose
    /// Vault is not configured. An environment variable is read now. A file is watched as long as
    /// the source or its receiver of changes exists.
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

    /// The client of the Vault `name`; an empty name stands for the only Vault. `None` when there
    /// is no such Vault.
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
