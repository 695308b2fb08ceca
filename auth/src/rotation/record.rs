//! What is kept of a user's accepted generations, in verifiers and times, and how the records of
//! two replicas are merged.

use std::cmp::Reverse;

use pgimbal_config::MAX_SHARED_GENERATIONS;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error;

use super::revocations::{GenerationId, Revocations};
use super::secret_bytes::{SecretBytes, Time};
use super::unknown_fields::UnknownFields;
use crate::verifier::{Key, SaltParameters};

/// Limit of a user's generations that are written.
pub const MAX_WRITTEN: usize = MAX_SHARED_GENERATIONS as usize;

/// The history of one user: the generations that clients may show, and those that are revoked. It
/// holds no password and no salt, but verifiers, which are secrets.
///
/// [`Self::merge`] is commutative, associative and idempotent. Whether a generation is accepted is
/// computed from its times and the revocations, never from its presence: one that was pruned and
/// comes back from another replica is accepted no longer than before.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryRecord {
    /// The generations, in the order of their StoredKeys.
    #[serde(default)]
    pub(super) generations: Vec<StoredGeneration>,
    #[serde(flatten)]
    pub(super) revocations: Revocations,
    #[serde(flatten)]
    pub(super) unknown: UnknownFields,
}

/// One generation of a record: the keys by which a login is checked, and its times.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StoredGeneration {
    /// Place among the user's generations: the newest has the greatest. Replicas count on from the
    /// greatest that they have seen, so that no clock decides which is the newest.
    pub(super) order: u64,
    /// How often the password has come back after a newer one; what counts is the last time.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(super) returns: u32,
    /// The source's date of the password; `None` when it has none.
    pub(super) rotated_at: Option<Time>,
    /// Which salt and iterations the keys were made with.
    pub(super) salt_id: SaltId,
    /// StoredKey of RFC 5802.
    pub(super) stored_key: SecretBytes<Key>,
    /// ServerKey of RFC 5802.
    pub(super) server_key: SecretBytes<Key>,
    /// When a replica first saw the password.
    pub(super) first_seen: Time,
    /// When a newer generation became known; `None` for the newest.
    pub(super) retired_at: Option<Time>,
    #[serde(flatten)]
    pub(super) unknown: UnknownFields,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
const fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// A short name of a salt with its iterations. Salts are derived from a key and never stored; keys
/// that were made with another salt are not used, and are pruned as newer ones come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct SaltId(u32);

impl SaltId {
    /// The name of these parameters.
    pub(super) fn of(salt: &SaltParameters) -> Self {
        let digest = Sha256::new().chain_update(salt.iterations.to_be_bytes());
        let digest: Key = digest.chain_update(&salt.salt).finalize().into();
        Self(u32::from_be_bytes(*digest.first_chunk().unwrap_or(&[0; 4])))
    }
}

/// The reason for which a stored history, document or password cache cannot be read. Nothing of it
/// is used.
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
    /// The text has this version of the format; this pgimbal reads only version 1.
    #[error("of version {0}, which this pgimbal does not know")]
    Version(u32),
}

impl From<serde_json::Error> for Unreadable {
    fn from(error: serde_json::Error) -> Self {
        Self::Malformed { line: error.line(), column: error.column() }
    }
}

impl HistoryRecord {
    /// Merges another replica's record of the same user into this one: the generations of both,
    /// with the least `retired_at`, less those that either has revoked by name. What has ended by
    /// its order is left to [`Self::prune`]: its order may be greater in a third record.
    pub fn merge(&mut self, other: Self) {
        self.revocations.merge(&other.revocations);
        self.unknown.merge(other.unknown);
        for theirs in other.generations {
            match self.find(&theirs.stored_key) {
                Ok(at) => self.generations[at].merge(theirs),
                Err(at) => self.generations.insert(at, theirs),
            }
        }
        let revocations = &self.revocations;
        self.generations.retain(|one| !revocations.names(one.id()));
    }

    /// Keeps the newest [`MAX_WRITTEN`] generations, and bounds the memory of revocations. What is
    /// kept depends on the record alone, so that replicas do not undo each other's pruning.
    pub fn prune(&mut self) {
        self.revocations.prune();
        let revocations = &self.revocations;
        self.generations.retain(|one| !revocations.covers(one.id(), one.order));
        let excess = self.generations.len().saturating_sub(MAX_WRITTEN);
        if excess > 0 {
            self.generations.sort_by_cached_key(|one| Reverse(one.place()));
            self.generations.truncate(MAX_WRITTEN);
            self.generations.sort_by(|one, other| one.stored_key.cmp(&other.stored_key));
        }
    }

    /// Ends all generations, because the user is gone. A user of this name that comes later begins
    /// anew.
    pub fn forget(&mut self) {
        let greatest = self.generations.iter().map(|one| one.order).max().unwrap_or(0);
        self.revocations.end(greatest);
        self.generations.clear();
    }

    /// Drops the generations and keeps the revocations, for a store that must hold no verifiers.
    pub fn clear_generations(&mut self) {
        self.generations.clear();
    }

    /// Whether it has no generation, for example because the user is gone.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.generations.is_empty()
    }

    /// Takes the unknown fields of the copy in the store ([`UnknownFields::follow`]).
    pub fn follow(&mut self, stored: &Self) {
        self.unknown.follow(&stored.unknown);
        for theirs in &stored.generations {
            if let Ok(at) = self.find(&theirs.stored_key) {
                self.generations[at].unknown.follow(&theirs.unknown);
            }
        }
    }

    /// Adds a generation in its place.
    pub(super) fn insert(&mut self, generation: StoredGeneration) {
        match self.find(&generation.stored_key) {
            Ok(at) => self.generations[at].merge(generation),
            Err(at) => self.generations.insert(at, generation),
        }
    }

    fn find(&self, stored_key: &SecretBytes<Key>) -> Result<usize, usize> {
        self.generations.binary_search_by(|own| own.stored_key.cmp(stored_key))
    }
}

impl StoredGeneration {
    fn merge(&mut self, other: Self) {
        let retired_at = match (self.retired_at, other.retired_at) {
            (Some(own), Some(theirs)) => Some(own.min(theirs)),
            (own, theirs) => own.or(theirs),
        };
        self.retired_at = match self.returns.cmp(&other.returns) {
            std::cmp::Ordering::Less => other.retired_at,
            std::cmp::Ordering::Equal => retired_at,
            std::cmp::Ordering::Greater => self.retired_at,
        };
        self.returns = self.returns.max(other.returns);
        self.order = self.order.max(other.order);
        self.first_seen = self.first_seen.min(other.first_seen);
        self.rotated_at = self.rotated_at.max(other.rotated_at);
        // Equal unless somebody has changed the document by hand.
        self.salt_id = self.salt_id.max(other.salt_id);
        if self.server_key < other.server_key {
            self.server_key = other.server_key;
        }
        self.unknown.merge(other.unknown);
    }

    /// The generation's name.
    pub(super) fn id(&self) -> GenerationId {
        GenerationId::of(&self.stored_key)
    }

    /// By which generations are ordered; the newest has the greatest.
    pub(super) fn place(&self) -> (u64, Option<Time>, GenerationId) {
        (self.order, self.rotated_at, self.id())
    }
}
