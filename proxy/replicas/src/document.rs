//! The document of durable facts: what every replica must know, also after all have restarted.
//!
//! Replicas exchange whole documents, in any order and any number of times, and each merges what it
//! gets. No replica leads: [`Document::merge`] gives the same result in any order.

mod cluster;
mod decision;
mod encoding;
mod salts;

use std::collections::BTreeMap;

use pgimbal_auth::rotation::{HistoryRecord, UnknownFields};
use serde::{Deserialize, Serialize};

pub use self::cluster::{ClusterFacts, MAX_NODES, NodeHistory};
pub use self::decision::{Decision, Stamp};
pub use self::encoding::{DocumentError, MAX_INFLATED, Unreadable};
pub use self::salts::SaltsKey;
use crate::budget::slots::Slots;

/// The form of the document. Fields may be added to it; a change of what a field means is another
/// version, which this one must not touch.
const VERSION: u32 = 1;

/// The durable facts that the replicas of a deployment share.
///
/// [`Self::merge`] is commutative, associative and idempotent. Whoever changes something changes
/// the own document and sends it; nothing is ever taken back, only replaced by what is greater.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Document {
    version: u32,
    /// The key from which users' salts are made; `None` until the first writer has made one, and
    /// where the option `deployment_key` gives it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    salts: Option<SaltsKey>,
    /// The accepted generations and the revocations of each user, by the user's name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    users: BTreeMap<String, HistoryRecord>,
    /// The history of each cluster's nodes and what operators have decided, by the cluster's name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    clusters: BTreeMap<String, ClusterFacts>,
    /// The slots of the budget.
    #[serde(default, skip_serializing_if = "Slots::is_empty")]
    slots: Slots,
    #[serde(flatten)]
    unknown: UnknownFields,
}

impl Default for Document {
    /// The document in which nothing is known, as in an empty store.
    fn default() -> Self {
        Self {
            version: VERSION,
            salts: None,
            users: BTreeMap::new(),
            clusters: BTreeMap::new(),
            slots: Slots::default(),
            unknown: UnknownFields::default(),
        }
    }
}

impl Document {
    /// Merges another replica's document, or that of the store, into this one.
    ///
    /// - users: as [`HistoryRecord::merge`] says;
    /// - clusters: the greatest history and the greatest decisions ([`ClusterFacts::merge`]);
    /// - the salts' key: the least in bytes, should two have been made. The first writer's is the
    ///   only one as long as a key is used only once it stands in the store. Generations that were
    ///   made with the other one are not used any more; each replica makes those anew whose
    ///   passwords it knows.
    pub fn merge(&mut self, other: Self) {
        self.salts = match (self.salts.take(), other.salts) {
            (Some(own), Some(theirs)) => Some(own.min(theirs)),
            (own, theirs) => own.or(theirs),
        };
        for (user, record) in other.users {
            self.users.entry(user).or_default().merge(record);
        }
        for (cluster, facts) in other.clusters {
            self.clusters.entry(cluster).or_default().merge(facts);
        }
        self.slots.merge(&other.slots);
        self.unknown.merge(other.unknown);
    }

    /// Drops what no longer matters, so that the document stays small: all but the newest three
    /// generations of a user, and the oldest decisions about nodes. What is dropped depends on the
    /// document alone; what comes back with another replica's document changes nothing.
    pub fn prune(&mut self) {
        self.users.values_mut().for_each(HistoryRecord::prune);
        self.clusters.values_mut().for_each(ClusterFacts::prune);
    }

    /// Takes the unknown fields of the document in the store as they are, at every level: a later
    /// version writes them there, and what this replica remembers of them may be older. Called
    /// after the store's document was merged into this one.
    pub fn follow(&mut self, stored: &Self) {
        self.unknown.follow(&stored.unknown);
        for (user, record) in &mut self.users {
            if let Some(stored) = stored.users.get(user) {
                record.follow(stored);
            }
        }
        for (cluster, facts) in &mut self.clusters {
            if let Some(stored) = stored.clusters.get(cluster) {
                facts.follow(stored);
            }
        }
    }

    /// This document without verifiers, for a store that must not hold them
    /// (`credential_history = "memory"`). Revocations stay.
    #[must_use]
    pub fn without_generations(mut self) -> Self {
        self.users.values_mut().for_each(HistoryRecord::clear_generations);
        self.users.retain(|_, record| *record != HistoryRecord::default());
        self
    }

    /// The key from which users' salts are made; `None` while there is none.
    #[must_use]
    pub const fn salts(&self) -> Option<&SaltsKey> {
        self.salts.as_ref()
    }

    /// Sets the key from which users' salts are made. Only for a document that has none: it is the
    /// first writer's.
    pub fn set_salts(&mut self, key: SaltsKey) {
        self.salts.get_or_insert(key);
    }

    /// The record of a user; `None` when there is none.
    #[must_use]
    pub fn user(&self, name: &str) -> Option<&HistoryRecord> {
        self.users.get(name)
    }

    /// The record of each user by name, sorted; also of those that are gone or have only
    /// revocations.
    pub fn users(&self) -> impl Iterator<Item = (&str, &HistoryRecord)> {
        self.users.iter().map(|(name, record)| (name.as_str(), record))
    }

    /// Merges what is known of a user.
    pub fn merge_user(&mut self, name: &str, record: HistoryRecord) {
        self.users.entry(name.to_owned()).or_default().merge(record);
    }

    /// Ends all generations of a user that is gone; no effect when there is none.
    pub fn forget_user(&mut self, name: &str) {
        if let Some(record) = self.users.get_mut(name) {
            record.forget();
        }
    }

    /// The facts of a cluster; `None` when there are none.
    #[must_use]
    pub fn cluster(&self, name: &str) -> Option<&ClusterFacts> {
        self.clusters.get(name)
    }

    /// The facts of a cluster, to be changed; they are made when there are none.
    pub fn cluster_mut(&mut self, name: &str) -> &mut ClusterFacts {
        self.clusters.entry(name.to_owned()).or_default()
    }

    /// The slots of the budget; empty until one was taken.
    #[must_use]
    pub const fn slots(&self) -> &Slots {
        &self.slots
    }

    /// Merges slots into those of the document. Slots that are not in the store yet may only be put
    /// into a document that is written there by compare-and-set, and that nobody else is given
    /// before that has succeeded ([`Slots`]).
    pub fn merge_slots(&mut self, slots: &Slots) {
        self.slots.merge(slots);
    }
}
