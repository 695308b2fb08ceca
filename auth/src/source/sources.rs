//! The sources of one configuration.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use pgimbal_config::{Config, SourceConfig, UserConfig};

use super::Source;
use super::file::{FileSource, Watcher};
use super::fixed::FixedSource;
use super::vault::{VaultClient, VaultSource};
use crate::SourceError;

/// Interval at which files are looked at without an event of inotify, which does not see what
/// another host writes to a network file system, nor what is mounted.
const POLL: Duration = Duration::from_secs(30);

/// The sources of one configuration, with what they share: a client for each Vault, a thread for
/// all files.
#[derive(Debug)]
pub struct Sources {
    vaults: BTreeMap<String, Arc<VaultClient>>,
    watcher: OnceLock<Watcher>,
}

impl Sources {
    /// Makes a client for each Vault. Nothing is connected to and no password is read yet.
    /// Certificate and key files of the Vaults are read, those of a login are not. Called at the
    /// start, at each reload and by `pgimbal check`.
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
    /// one. `None` for a name that is not configured, and for an empty one when there are none or
    /// several.
    #[must_use]
    pub fn vault(&self, name: &str) -> Option<&Arc<VaultClient>> {
        match self.vaults.values().next() {
            Some(only) if name.is_empty() && self.vaults.len() == 1 => Some(only),
            _ => self.vaults.get(name),
        }
    }
}
