//! The generations of a user's password that were revoked: each by its name, so that no clock
//! decides what is revoked.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};

use crate::verifier::Key;

/// Limit of revoked generations that are kept by name for a user. With more, the one of the least
/// order is covered by the greatest order that has ended instead: a generation that so many revoked ones
/// follow is no longer shown by anybody.
pub const MAX_REVOKED: usize = 32;

/// The name of a generation: 16 bytes of a digest of its StoredKey. The StoredKey cannot be
/// computed from it. It is the same on all replicas, because they make verifiers with one salt. It
/// is in no log, since with the salt it allows guesses of a weak password.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct GenerationId([u8; 16]);

impl GenerationId {
    /// The name of the generation with this StoredKey of RFC 5802.
    pub(super) fn of(stored_key: &Key) -> Self {
        let digest: Key =
            Sha256::new().chain_update(b"generation\0").chain_update(stored_key).finalize().into();
        Self(*digest.first_chunk().unwrap_or(&[0; 16]))
    }
}

impl fmt::Debug for GenerationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Serialize for GenerationId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64.encode(self.0))
    }
}

impl<'de> Deserialize<'de> for GenerationId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = BASE64.decode(text).map_err(|_| D::Error::custom("not base64"))?;
        bytes.try_into().map(Self).map_err(|_| D::Error::custom("of the wrong length"))
    }
}

/// The revoked generations of one user.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Revocations {
    /// The names, each with the generation's order when it was revoked.
    #[serde(default, rename = "revoked", skip_serializing_if = "BTreeMap::is_empty")]
    named: BTreeMap<GenerationId, u64>,
    /// Every generation of this order or a lesser one has ended; 0 for none.
    #[serde(default, skip_serializing_if = "is_zero")]
    ended: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Revocations {
    /// Revokes a generation for good; `order` is its place among the user's generations.
    pub(super) fn revoke(&mut self, id: GenerationId, order: u64) {
        let known = self.named.entry(id).or_default();
        *known = order.max(*known);
        self.prune();
    }

    /// Ends every generation up to this order; named ones of them are forgotten.
    pub(super) fn end(&mut self, order: u64) {
        self.ended = self.ended.max(order);
    }

    /// Whether the generation was revoked by name: it never returns, whatever its order.
    pub(super) fn names(&self, id: GenerationId) -> bool {
        self.named.contains_key(&id)
    }

    /// Whether a generation of this name and order has ended.
    pub(super) fn covers(&self, id: GenerationId, order: u64) -> bool {
        order <= self.ended || self.names(id)
    }

    /// The greatest order of which every generation has ended; 0 for none.
    pub(super) const fn ended(&self) -> u64 {
        self.ended
    }

    /// The greatest order of any revoked generation; 0 for none. A new one has a greater order.
    pub(super) fn greatest(&self) -> u64 {
        self.named.values().copied().max().unwrap_or(0).max(self.ended)
    }

    /// Merges what another replica knows: everything that either has revoked is revoked.
    pub(super) fn merge(&mut self, other: &Self) {
        self.ended = self.ended.max(other.ended);
        for (id, order) in &other.named {
            let known = self.named.entry(*id).or_default();
            *known = (*order).max(*known);
        }
    }

    /// Keeps at most [`MAX_REVOKED`] names, those of the greatest order.
    pub(super) fn prune(&mut self) {
        let excess = self.named.len().saturating_sub(MAX_REVOKED);
        if excess > 0 {
            let mut all: Vec<_> = self.named.iter().map(|(id, order)| (*order, *id)).collect();
            all.sort_unstable();
            for (order, id) in all.into_iter().take(excess) {
                self.named.remove(&id);
                self.ended = self.ended.max(order);
            }
        }
    }
}
