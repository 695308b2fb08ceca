//! The history file: verifiers and times of the accepted generations, and how the histories of two
//! proxies are merged.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;
use zeroize::{Zeroize, Zeroizing};

use crate::verifier::MAX_ITERATIONS;

/// The form of the document; a later one may add fields.
const VERSION: u32 = 1;

/// The contents of the history file (JSON): the accepted generations of all users. Proxies that
/// share the file merge their documents. It holds no password, but verifiers, which are secrets.
/// The file is `credentials.json` in `state_dir`, kept with `credential_history = "file"`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryDocument {
    version: u32,
    /// The history of each user, by the user's name.
    pub users: BTreeMap<String, HistoryRecord>,
}

/// The history of one user: salt, iterations, and the generations that clients may show.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryRecord {
    /// Salt of all verifiers; Base64 in the file. With an empty one the generations are not used.
    pub(super) salt: Bytes<Vec<u8>>,
    /// PBKDF2 iterations of all verifiers. Outside of 1 to [`MAX_ITERATIONS`] the generations are
    /// not used.
    pub(super) iterations: u32,
    /// Older generations that were made before this time are revoked; `None` when none was revoked.
    pub(super) revoked_before: Option<Time>,
    /// The generations in any order.
    pub(super) generations: Vec<StoredGeneration>,
}

/// One generation in the history file: the keys by which a login is checked, and its times.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StoredGeneration {
    /// The source's date of the password; `None` when it has none.
    pub(super) rotated_at: Option<Time>,
    /// StoredKey of RFC 5802.
    pub(super) stored_key: Bytes<[u8; 32]>,
    /// ServerKey of RFC 5802.
    pub(super) server_key: Bytes<[u8; 32]>,
    /// When a proxy first saw the password.
    pub(super) first_seen: Time,
    /// When a newer generation became known; `None` for the newest.
    pub(super) retired_at: Option<Time>,
}

/// The reason for which a history or password cache file cannot be read. Nothing of it is used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Unreadable {
    /// The text is not JSON of the expected form, for example because it was cut off. The error
    /// gives the place and never the text, which is secret.
    #[error("not of the expected form (line {line}, column {column})")]
    Malformed {
        /// Number of the line, from 1 as serde_json counts; 0 when it is not known.
        line: usize,
        /// Number of the column in that line.
        column: usize,
    },
    /// The file has this version of the format; this pgimbal reads only version 1.
    #[error("of version {0}, which this pgimbal does not know")]
    Version(u32),
}

impl From<serde_json::Error> for Unreadable {
    fn from(error: serde_json::Error) -> Self {
        Self::Malformed { line: error.line(), column: error.column() }
    }
}

impl HistoryDocument {
    /// Makes the document of these users, to be written; it has the present version of the format
    /// (1).
    #[must_use]
    pub const fn new(users: BTreeMap<String, HistoryRecord>) -> Self {
        Self { version: VERSION, users }
    }

    /// Reads the bytes of a history file.
    ///
    /// # Errors
    /// [`Unreadable`] when the bytes are not JSON of this form or have another version.
    pub fn parse(bytes: &[u8]) -> Result<Self, Unreadable> {
        let document: Self = serde_json::from_slice(bytes)?;
        if document.version != VERSION {
            return Err(Unreadable::Version(document.version));
        }
        Ok(document)
    }

    /// The document as indented JSON; the bytes are wiped when dropped.
    ///
    /// # Errors
    /// None in practice: every field has a form in JSON.
    pub fn to_bytes(&self) -> Result<Zeroizing<Vec<u8>>, Unreadable> {
        Ok(Zeroizing::new(serde_json::to_vec_pretty(self)?))
    }

    /// Merges another proxy's document into this one: users by [`HistoryRecord::merge`], and users
    /// that only `other` has are added. Users that only this document has stay. It changes the
    /// memory only; the caller writes the file.
    pub fn merge(&mut self, other: Self) {
        for (user, record) in other.users {
            match self.users.get_mut(&user) {
                Some(own) => own.merge(record),
                None => {
                    self.users.insert(user, record);
                }
            }
        }
    }
}

impl HistoryRecord {
    /// Merges another record of the same user into this one. The result has all generations of
    /// both, with the earlier `retired_at` and `first_seen`, and the later `revoked_before`;
    /// generations made before that are dropped for good, except the newest. When `other` has
    /// another salt or number of iterations its generations are left out: the first writer's salt
    /// counts.
    pub fn merge(&mut self, other: Self) {
        self.revoked_before = self.revoked_before.max(other.revoked_before);
        if (&self.salt, self.iterations) == (&other.salt, other.iterations) {
            for theirs in other.generations {
                let same = |own: &&mut StoredGeneration| own.stored_key == theirs.stored_key;
                match self.generations.iter_mut().find(same) {
                    Some(own) => own.merge(theirs),
                    None => self.generations.push(theirs),
                }
            }
        }
        let newest = self.in_order().last().map(|newest| newest.stored_key.clone());
        let revoked_before = self.revoked_before;
        self.generations.retain(|generation| {
            let revoked = revoked_before.is_some_and(|limit| generation.born() < limit);
            !revoked || Some(&generation.stored_key) == newest.as_ref()
        });
        self.generations.sort_by_key(StoredGeneration::order);
    }

    /// The generations, the newest last; none when salt or iterations cannot be used.
    pub(super) fn in_order(&self) -> impl Iterator<Item = &StoredGeneration> {
        let usable = (1..=MAX_ITERATIONS).contains(&self.iterations) && !self.salt.is_empty();
        let mut ordered: Vec<_> = self.generations.iter().filter(|_| usable).collect();
        ordered.sort_by_key(|generation| generation.order());
        ordered.into_iter()
    }
}

impl StoredGeneration {
    fn merge(&mut self, other: Self) {
        self.retired_at = match (self.retired_at, other.retired_at) {
            (Some(own), Some(theirs)) => Some(own.min(theirs)),
            (own, theirs) => own.or(theirs),
        };
        self.first_seen = self.first_seen.min(other.first_seen);
        self.rotated_at = self.rotated_at.or(other.rotated_at);
    }

    fn born(&self) -> Time {
        self.rotated_at.unwrap_or(self.first_seen)
    }

    /// The retired ones in the order of their end, then those that are in use.
    fn order(&self) -> (bool, Option<Time>, Time, [u8; 32]) {
        (self.retired_at.is_none(), self.retired_at, self.born(), *self.stored_key)
    }
}

/// A time as nanoseconds since 1970-01-01 UTC: exact, so that a time read back equals the one
/// written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Time(u64);

impl Time {
    /// Converts a time; one before 1970 becomes 0, one too late for 64 bits the latest.
    pub(super) fn of(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
    }

    /// Converts back to a time of the wall clock.
    pub(super) fn time(self) -> SystemTime {
        UNIX_EPOCH + Duration::from_nanos(self.0)
    }
}

/// Secret bytes that are written in Base64, masked in `Debug`, and wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Bytes<T: Zeroize>(T);

impl<T: Zeroize> Drop for Bytes<T> {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl<T: Zeroize> From<T> for Bytes<T> {
    fn from(bytes: T) -> Self {
        Self(bytes)
    }
}

impl<T: Zeroize> Deref for Bytes<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: Zeroize> std::fmt::Debug for Bytes<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

impl<T: Zeroize + AsRef<[u8]>> Serialize for Bytes<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&Zeroizing::new(BASE64.encode(&self.0)))
    }
}

impl<'de, T: Zeroize + TryFrom<Vec<u8>>> Deserialize<'de> for Bytes<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Zeroizing::new(String::deserialize(deserializer)?);
        let bytes = BASE64.decode(&*text).map_err(|_| D::Error::custom("not base64"))?;
        T::try_from(bytes).map(Self).map_err(|_| D::Error::custom("of the wrong length"))
    }
}
