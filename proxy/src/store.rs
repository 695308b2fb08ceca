//! The store: the place of one document that the replicas of a deployment share and that outlives
//! them. Bytes with a version: what is in them is not known here.
//!
//! Every call has a time limit ([`LIMIT`]) and a document a largest size ([`MAX_DOCUMENT`]). A call
//! is made once; whoever calls repeats it.

use std::fmt;
use std::time::Duration;

use pgimbal_config::{Config, StoreKind};
use zeroize::Zeroizing;

use self::file::FileStore;
use self::kubernetes::KubernetesStore;
use self::memory::MemoryStore;
pub use error::StoreError;

mod error;
mod file;
mod kubernetes;
mod memory;

/// Time limit of each call, a login at Vault included: as long as one request to Vault may take by
/// default. A store that is well answers in milliseconds.
pub const LIMIT: Duration = Duration::from_secs(5);

/// Limit of a document's size in bytes: what a Secret of Kubernetes may hold in all. Vault's raft
/// storage takes three quarters of it, since it keeps the document as base64.
pub const MAX_DOCUMENT: usize = 1 << 20;

/// How many unreadable documents are kept aside, each under a name of its own. More than one is
/// already an accident; the next one is refused until an operator has looked.
const MAX_ASIDE: usize = 4;

/// How often a store is looked at that does not tell of changes, as often as Vault's roles are by
/// default.
const POLL: Duration = Duration::from_secs(30);

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
}

/// The state of a document in a store: one of its states, equal for equal states only. It is
/// [`Store::read`] or [`Store::replace`] that gives one, and only the same store understands it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version(VersionOf);

#[derive(Clone, Debug, PartialEq, Eq)]
enum VersionOf {
    /// A counter of this process.
    Count(u64),
    /// A resourceVersion of Kubernetes, whose text means nothing.
    Text(Box<str>),
    /// The SHA-256 of a file's bytes.
    Hash([u8; 32]),
}

/// A document as it was read. Its bytes are wiped from memory when dropped, and Debug shows their
/// number only.
pub struct Stored {
    /// The document; empty when the store is there and nothing was written yet.
    pub bytes: Zeroizing<Vec<u8>>,
    /// The state that was read, for [`Store::replace`].
    pub version: Version,
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
        let driver = match config.store.kind {
            StoreKind::Memory => Driver::Memory(MemoryStore::default()),
            StoreKind::File => Driver::File(FileStore::new(config)?),
            StoreKind::Kubernetes => Driver::Kubernetes(KubernetesStore::new(config)?),
            StoreKind::Vault => {
                return Err(StoreError::unusable("store", "this kind is not here yet"));
            }
        };
        Ok(Self { kind: config.store.kind, driver })
    }

    /// Takes what a reload has changed: the Vault's address, login and certificates. The options of
    /// `[store]` itself wait for a restart.
    ///
    /// # Errors
    /// [`StoreError::Unusable`] as for [`Self::new`]; the store is then as before.
    pub fn reload(&mut self, config: &Config) -> Result<(), StoreError> {
        let _ = config;
        Ok(())
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
            }
        })
        .await
    }

    /// Returns when it is time to read again: a hint that somebody, perhaps this process, has
    /// written. At once after a change of the Secret; within a second for a file; every 30 s where
    /// nothing tells (Vault, and a Secret that may not be watched). Pends for ever in memory. For
    /// one waiter at a time; it may be dropped and called again, and hints in between are kept as
    /// one.
    pub async fn changed(&self) {
        match &self.driver {
            Driver::Memory(_) => std::future::pending().await,
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
            }
        })
        .await
    }

    fn fits(&self, bytes: &[u8]) -> Result<(), StoreError> {
        if bytes.len() > MAX_DOCUMENT {
            return Err(StoreError::TooLarge {
                location: self.location().into(),
                limit: MAX_DOCUMENT,
            });
        }
        Ok(())
    }

    async fn limited<T>(
        &self,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let timed_out = StoreError::TimedOut { location: self.location().into(), limit: LIMIT };
        tokio::time::timeout(LIMIT, call).await.unwrap_or(Err(timed_out))
    }
}

impl Stored {
    fn new(bytes: Zeroizing<Vec<u8>>, version: VersionOf) -> Self {
        Self { bytes, version: Version(version) }
    }
}

impl fmt::Debug for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bytes, version } = self;
        f.debug_struct("Stored")
            .field("length", &bytes.len())
            .field("version", version)
            .finish_non_exhaustive()
    }
}

/// The names of documents that are kept aside, in the order in which they are used.
fn names_aside() -> impl Iterator<Item = String> {
    (1..=MAX_ASIDE).map(|number| format!("unreadable-{number}"))
}
