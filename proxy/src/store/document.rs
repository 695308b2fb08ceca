//! A document with its version, and the limits that all stores have.

use std::fmt;
use std::time::Duration;

use zeroize::Zeroizing;

/// Time limit of each call, a login at Vault included: as long as one request to Vault may take by
/// default. A store that is well answers in milliseconds.
pub const LIMIT: Duration = Duration::from_secs(5);

/// Limit of a document's size in bytes: what a Secret of Kubernetes may hold in all.
pub const MAX_DOCUMENT: usize = 1 << 20;
/// The same in Vault, which takes no text of JSON above 1 MiB (`max_json_string_value_length`), and
/// whose raft storage takes no larger entry. The document lies there as base64, a third longer, and
/// 64 KiB are for what Vault keeps with it.
pub const MAX_DOCUMENT_IN_VAULT: usize = MAX_DOCUMENT / 4 * 3 - (64 << 10);

/// How many unreadable documents are kept aside, each under a name of its own. More than one is
/// already an accident; the next one is refused until an operator has looked.
const MAX_ASIDE: usize = 4;

/// The state of a document in a store, equal for equal states only. [`super::Store::read`] and
/// [`super::Store::replace`] give one, and only the same store understands it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version(pub(super) VersionOf);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum VersionOf {
    /// A counter of this process, or Vault's number of a version.
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
    /// The state that was read, for [`super::Store::replace`].
    pub version: Version,
}

impl Stored {
    pub(super) fn new(bytes: Zeroizing<Vec<u8>>, version: VersionOf) -> Self {
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
pub(super) fn names_aside() -> impl Iterator<Item = String> {
    (1..=MAX_ASIDE).map(|number| format!("unreadable-{number}"))
}
