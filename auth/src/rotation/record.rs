//! The history as it is kept: verifiers and times, and how two histories become one.

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

/// The histories of all users.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryDocument {
    version: u32,
    /// Each user's.
    pub users: BTreeMap<String, HistoryRecord>,
}

/// One user's history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryRecord {
    pub(super) salt: Bytes<Vec<u8>>,
    pub(super) iterations: u32,
    pub(super) revoked_before: Option<Time>,
    pub(super) generations: Vec<StoredGeneration>,
}

/// One generation: what a login is checked by, and its times.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StoredGeneration {
    pub(super) rotated_at: Option<Time>,
    pub(super) stored_key: Bytes<[u8; 32]>,
    pub(super) server_key: Bytes<[u8; 32]>,
    pub(super) first_seen: Time,
    pub(super) retired_at: Option<Time>,
}

/// A document that is not what it should be; nothing of it is used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Unreadable {
    /// Not JSON of the expected form: cut in half, or something else altogether. Says where, never
    /// what stands there.
    #[error("not of the expected form (line {line}, column {column})")]
    Malformed {
        /// Where.
        line: usize,
        /// Where in the line.
        column: usize,
    },
    /// Written by a later pgimbal.
    #[error("of version {0}, which this pgimbal does not know")]
    Version(u32),
}

impl From<serde_json::Error> for Unreadable {
    fn from(error: serde_json::Error) -> Self {
        Self::Malformed { line: error.line(), column: error.column() }
    }
}

impl HistoryDocument {
    /// The document of these users.
    #[must_use]
    pub const fn new(users: BTreeMap<String, HistoryRecord>) -> Self {
        Self { version: VERSION, users }
    }

    /// Reads a document.
    ///
    /// # Errors
    /// [`Unreadable`] for anything else.
    pub fn parse(bytes: &[u8]) -> Result<Self, Unreadable> {
        let document: Self = serde_json::from_slice(bytes)?;
        if document.version != VERSION {
            return Err(Unreadable::Version(document.version));
        }
        Ok(document)
    }

    /// The document as bytes.
    ///
    /// # Errors
    /// None that occurs: every part of it has a form in JSON.
    pub fn to_bytes(&self) -> Result<Zeroizing<Vec<u8>>, Unreadable> {
        Ok(Zeroizing::new(serde_json::to_vec_pretty(self)?))
    }

    /// Adds what another document knows.
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
    /// Adds what another record of the same user knows: the greatest `revoked_before`, of each
    /// generation the least `retired_at`, else the union. A revoked generation never returns. With
    /// another salt the other's verifiers are worth nothing: the first writer's counts.
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

    /// The generations, the newest last.
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

/// A time as nanoseconds since 1970: exact, so that times read back are equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Time(u64);

impl Time {
    pub(super) fn of(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
    }

    pub(super) fn time(self) -> SystemTime {
        UNIX_EPOCH + Duration::from_nanos(self.0)
    }
}

/// Bytes that are written in base64 and wiped when dropped.
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
