//! The store: the place of one document that the replicas of a deployment share and that outlives
//! them. Bytes with a version: what is in them is not known here.
//!
//! Every call has a time limit ([`LIMIT`]) and a document a largest size ([`MAX_DOCUMENT`]). A call
//! is made once; whoever calls repeats it.

use pgimbal_config::{Config, StoreKind};

use self::file::FileStore;
use self::kubernetes::KubernetesStore;
use self::memory::MemoryStore;
use self::vault::VaultStore;
pub use document::{LIMIT, MAX_DOCUMENT, MAX_DOCUMENT_IN_VAULT, Stored, Version};
pub use error::StoreError;

mod document;
mod error;
mod file;
mod kubernetes;
mod memory;
mod vault;

/// The store that the table `[store]` names, shared by whoever holds a reference. Dropping it ends
/// its watch.
#[derive(Debug)]
pub struct Store {
    kind: StoreKind,
    driver: Driver,
}

#[derive(Debug)]
enum Driver {
    Memory(MemoryStore),
    File(FileStore),
    Kubernetes(KubernetesStore),
    Vault(Box<VaultStore>),
}

impl Store {
    /// Makes the store of `config`. Nothing is asked yet, so that a store that is away does not
    /// matter here. Called within a tokio runtime, where the watch of a Secret runs until the store
    /// is dropped.
    ///
    /// # Errors
    /// [`StoreError::Unusable`] when the configuration cannot work: a directory, a kubeconfig, a
    /// certificate or an address that cannot be used.
    pub fn new(config: &Config) -> Result<Self, StoreError> {
        // What a restart must not forget is kept in `state_dir`, if there is one.
        let kind = match config.store.kind {
            StoreKind::Memory if config.credentials.state_dir.is_some() => StoreKind::File,
            kind => kind,
        };
        let driver = match kind {
            StoreKind::Memory => Driver::Memory(MemoryStore::default()),
            StoreKind::File => Driver::File(FileStore::new(config)?),
            StoreKind::Kubernetes => Driver::Kubernetes(KubernetesStore::new(config)?),
            StoreKind::Vault => Driver::Vault(Box::new(VaultStore::new(config)?)),
        };
        Ok(Self { kind, driver })
    }

    /// Takes what a reload has changed: the Vault's address, login and certificates. The options of
    /// `[store]` itself wait for a restart.
    ///
    /// # Errors
    /// [`StoreError::Unusable`] as for [`Self::new`]; the store is then as before.
    pub fn reload(&self, config: &Config) -> Result<(), StoreError> {
        match &self.driver {
            Driver::Vault(store) => store.reload(config),
            Driver::Memory(_) | Driver::File(_) | Driver::Kubernetes(_) => Ok(()),
        }
    }

    /// Its kind, `kind` in `[store]`.
    #[must_use]
    pub const fn kind(&self) -> StoreKind {
        self.kind
    }

    /// Its place in words, without a secret: `file PATH`, `secret NAMESPACE/NAME`, `vault NAME,
    /// MOUNT/PATH`, or `memory`. Errors begin with it.
    #[must_use]
    pub fn location(&self) -> &str {
        match &self.driver {
            Driver::Memory(_) => memory::LOCATION,
            Driver::File(store) => store.location(),
            Driver::Kubernetes(store) => store.location(),
            Driver::Vault(store) => store.location(),
        }
    }

    /// Reads the document. Empty bytes when the store is there and nothing was written yet.
    ///
    /// # Errors
    /// [`StoreError`], after [`LIMIT`] at the latest; never [`StoreError::Conflict`].
    pub async fn read(&self) -> Result<Stored, StoreError> {
        self.limited(async {
            match &self.driver {
                Driver::Memory(store) => Ok(store.read()),
                Driver::File(store) => store.read().await,
                Driver::Kubernetes(store) => store.read().await,
                Driver::Vault(store) => store.read().await,
            }
        })
        .await
    }

    /// Writes the document if it is still in the state `at`, and returns its new state.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when somebody else has written since: read, merge, and replace
    /// again. After [`StoreError::Away`] and [`StoreError::TimedOut`] it may have been written
    /// nevertheless; reading tells.
    pub async fn replace(&self, bytes: &[u8], at: &Version) -> Result<Version, StoreError> {
        self.fits(bytes)?;
        self.limited(async {
            match &self.driver {
                Driver::Memory(store) => store.replace(bytes, at),
                Driver::File(store) => store.replace(bytes, at).await,
                Driver::Kubernetes(store) => store.replace(bytes, at).await,
                Driver::Vault(store) => store.replace(bytes, at).await,
            }
        })
        .await
    }

    /// Keeps a document that cannot be read under a name of its own in the same place, and returns
    /// that name. The same bytes are kept once. The document itself stays, but its version may be
    /// another one afterwards: read again before [`Self::replace`].
    ///
    /// # Errors
    /// [`StoreError::NoRoom`] when 4 others are kept already, or there is no room for it: the
    /// document must then not be overwritten, and an operator must look.
    pub async fn set_aside(&self, bytes: &[u8]) -> Result<String, StoreError> {
        self.fits(bytes)?;
        self.limited(async {
            match &self.driver {
                Driver::Memory(store) => store.set_aside(bytes),
                Driver::File(store) => store.set_aside(bytes).await,
                Driver::Kubernetes(store) => store.set_aside(bytes).await,
                Driver::Vault(store) => store.set_aside(bytes).await,
            }
        })
        .await
    }

    /// Returns when it is time to read again: a hint that somebody, perhaps this process, has
    /// written. At once after a change of the Secret; within a second for a file. Pends for ever in
    /// memory, and where nothing tells (Vault, and a Secret that may not be watched): whoever waits
    /// also reads now and then. For one waiter at a time; it may be dropped and called again, and
    /// hints in between are kept as one.
    pub async fn changed(&self) {
        match &self.driver {
            Driver::Memory(_) | Driver::Vault(_) => std::future::pending().await,
            Driver::File(store) => store.changed().await,
            Driver::Kubernetes(store) => store.changed().await,
        }
    }

    /// Asks the store whether this process has every right that it needs, without writing anything:
    /// for `pgimbal check`.
    ///
    /// # Errors
    /// [`StoreError::Forbidden`] that names the missing rights, and what [`Self::read`] returns.
    pub async fn check_rights(&self) -> Result<(), StoreError> {
        self.limited(async {
            match &self.driver {
                Driver::Memory(_) | Driver::File(_) => Ok(()),
                Driver::Kubernetes(store) => store.check_rights().await,
                Driver::Vault(store) => store.check_rights().await,
            }
        })
        .await
    }

    /// Limit of a document's size in bytes. Less may fit where a Secret has other keys.
    #[must_use]
    pub const fn max_document(&self) -> usize {
        match self.kind {
            StoreKind::Memory | StoreKind::File | StoreKind::Kubernetes => MAX_DOCUMENT,
            StoreKind::Vault => MAX_DOCUMENT_IN_VAULT,
        }
    }

    fn fits(&self, bytes: &[u8]) -> Result<(), StoreError> {
        let limit = self.max_document();
        match bytes.len() > limit {
            true => Err(StoreError::TooLarge { location: self.location().into(), limit }),
            false => Ok(()),
        }
    }

    async fn limited<T>(
        &self,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let timed_out = StoreError::TimedOut { location: self.location().into(), limit: LIMIT };
        tokio::time::timeout(LIMIT, call).await.unwrap_or(Err(timed_out))
    }
}
