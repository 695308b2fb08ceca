//! What is known of a cluster of nodes for good: its history and what operators have decided.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use pgimbal_auth::rotation::UnknownFields;
use serde::{Deserialize, Serialize};

use super::decision::{Decision, Stamp};
use crate::InstanceId;

/// Limit of nodes with a decision that are kept for a cluster. With DNS a node may have another
/// address after each restart; the oldest decisions are dropped.
pub const MAX_NODES: usize = 256;

/// The durable facts of one cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterFacts {
    /// Which data is the cluster's; `None` until a primary was seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    history: Option<NodeHistory>,
    /// Whether an operator holds writes: HOLD and RESUME.
    #[serde(default)]
    hold: Decision<bool>,
    /// Whether a node is kept in quarantine, by its name: all but the adopted one after ADOPT NODE,
    /// until they join its history.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    quarantine: BTreeMap<String, Decision<bool>>,
    #[serde(flatten)]
    unknown: UnknownFields,
}

/// The history of a cluster's data. Ordered by the adoption, then by the timeline: what an operator
/// adopted counts more than any timeline of what was there before.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeHistory {
    /// The operator's last ADOPT NODE; counter 0 when there was none.
    pub adopted: Stamp,
    /// The highest timeline that was seen since then; 0 when none was.
    pub timeline: u32,
    /// PostgreSQL's system identifier; 0 when it is not known.
    #[serde(with = "text")]
    pub system: u64,
    /// What a later version says of this history.
    #[serde(flatten)]
    unknown: UnknownFields,
}

impl NodeHistory {
    fn place(&self) -> (Stamp, u32, u64) {
        (self.adopted, self.timeline, self.system)
    }

    fn merge(&mut self, other: Self) {
        match self.place().cmp(&other.place()) {
            Ordering::Less => *self = other,
            Ordering::Equal => self.unknown.merge(other.unknown),
            Ordering::Greater => {}
        }
    }
}

impl ClusterFacts {
    /// Merges what another replica knows: the greatest history and, of each decision, the one of
    /// the greatest place.
    pub fn merge(&mut self, other: Self) {
        match (&mut self.history, other.history) {
            (Some(own), Some(theirs)) => own.merge(theirs),
            (own, theirs) => *own = own.take().or(theirs),
        }
        self.hold.merge(other.hold);
        for (node, theirs) in other.quarantine {
            self.quarantine.entry(node).or_default().merge(theirs);
        }
        self.unknown.merge(other.unknown);
    }

    /// Keeps the [`MAX_NODES`] latest decisions about nodes.
    pub(super) fn prune(&mut self) {
        let excess = self.quarantine.len().saturating_sub(MAX_NODES);
        if excess > 0 {
            let all = self.quarantine.iter().map(|(name, one)| (one.stamp, name.clone()));
            let mut all: Vec<_> = all.collect();
            all.sort_unstable();
            for (_, name) in all.into_iter().take(excess) {
                self.quarantine.remove(&name);
            }
        }
    }

    /// Takes the unknown fields of the copy in the store.
    pub(super) fn follow(&mut self, stored: &Self) {
        self.unknown.follow(&stored.unknown);
        self.hold.follow(&stored.hold);
        if let (Some(own), Some(theirs)) = (&mut self.history, &stored.history)
            && own.place() == theirs.place()
        {
            own.unknown.follow(&theirs.unknown);
        }
        for (node, decision) in &mut self.quarantine {
            if let Some(stored) = stored.quarantine.get(node) {
                decision.follow(stored);
            }
        }
    }

    /// Which data is the cluster's; `None` until a primary was seen.
    #[must_use]
    pub const fn history(&self) -> Option<&NodeHistory> {
        self.history.as_ref()
    }

    /// Whether an operator holds writes.
    #[must_use]
    pub const fn is_held(&self) -> bool {
        self.hold.value
    }

    /// The place of the last HOLD or RESUME; its counter is 0 when there was none.
    #[must_use]
    pub const fn hold_stamp(&self) -> Stamp {
        self.hold.stamp
    }

    /// The names of the nodes in quarantine, sorted.
    pub fn quarantined(&self) -> impl Iterator<Item = &str> {
        self.quarantine.iter().filter(|(_, one)| one.value).map(|(name, _)| name.as_str())
    }

    /// Takes what this replica has seen of the cluster: its system identifier (0 when it is not
    /// known) and highest timeline, since the adoption that is known here. A lower timeline changes
    /// nothing. Returns whether anything has changed.
    pub fn see(&mut self, system: u64, timeline: u32) -> bool {
        let history = self.history.get_or_insert_default();
        let before = (history.system, history.timeline);
        // Another identifier than the one known is that of a foreign node.
        if history.system == 0 || history.system == system {
            history.system = system;
            history.timeline = history.timeline.max(timeline);
        }
        before != (history.system, history.timeline)
    }

    /// Records HOLD (`true`) or RESUME by the process `by`, also when writes are held, or not held,
    /// already: another replica's decision that is still on its way is older. Returns whether they
    /// were held before.
    pub fn set_hold(&mut self, is_held: bool, by: InstanceId) -> bool {
        let was_held = self.hold.value;
        self.hold = Decision::new(self.next(by), is_held);
        was_held
    }

    /// Records ADOPT NODE by the process `by`: the adopted node's system identifier and timeline
    /// are the cluster's, and of `nodes` (all that are listed, by name) those with `true` are in
    /// quarantine.
    pub fn adopt<'a>(
        &mut self,
        system: u64,
        timeline: u32,
        nodes: impl IntoIterator<Item = (&'a str, bool)>,
        by: InstanceId,
    ) {
        let stamp = self.next(by);
        let unknown = UnknownFields::default();
        self.history = Some(NodeHistory { adopted: stamp, timeline, system, unknown });
        let decided = nodes.into_iter().map(|(node, value)| (node.to_owned(), value));
        self.quarantine.extend(decided.map(|(node, value)| (node, Decision::new(stamp, value))));
    }

    /// Records that the process `by` has seen that a node joined the cluster's history, or that it
    /// must (`true`). Returns whether anything has changed.
    pub fn set_quarantined(&mut self, node: &str, is_quarantined: bool, by: InstanceId) -> bool {
        let known = self.quarantine.get(node).is_some_and(|known| known.value);
        if known == is_quarantined {
            return false;
        }
        let decision = Decision::new(self.next(by), is_quarantined);
        self.quarantine.insert(node.to_owned(), decision);
        true
    }

    /// The place of a decision that is made now.
    fn next(&self, instance: InstanceId) -> Stamp {
        let history = self.history.as_ref().map_or(0, |history| history.adopted.counter);
        let nodes = self.quarantine.values().map(|one| one.stamp.counter);
        let greatest = nodes.chain([history, self.hold.stamp.counter]).max().unwrap_or(0);
        Stamp { counter: greatest.saturating_add(1), instance }
    }
}

/// An identifier of 64 bits as text: numbers of JSON lose its last digits.
mod text {
    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serializer};

    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
    pub(super) fn serialize<S: Serializer>(number: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(number)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(|_| D::Error::custom("not a number of 64 bits"))
    }
}
