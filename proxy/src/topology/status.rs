//! A cluster as people see it.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, SystemTime};

use pgimbal_pooler::shared::SharedCluster;
use pgimbal_pooler::topology::{Epoch, NodeDetail, View};

/// A cluster.
#[derive(Clone, Debug)]
pub struct ClusterStatus {
    /// Its name.
    pub name: Arc<str>,
    /// What the workers act on.
    pub view: Arc<View>,
    /// Its nodes, in the view's order.
    pub nodes: Vec<NodeStatus>,
    /// The last changes of primary, oldest first.
    pub failovers: Vec<FailoverStatus>,
    /// All changes of primary since the start.
    pub failovers_total: u64,
    /// What they meant to clients.
    pub counts: Counts,
}

/// A node.
#[derive(Clone, Debug)]
pub struct NodeStatus {
    /// What is known of it.
    pub detail: NodeDetail,
    /// The epoch it was last seen in.
    pub epoch: Option<Epoch>,
    /// Whether the prober has pg_monitor there, once it has looked.
    pub monitor: Option<bool>,
}

/// A change of primary.
#[derive(Clone, Debug)]
pub struct FailoverStatus {
    /// When the old primary was lost.
    pub began: SystemTime,
    /// The old primary.
    pub from: Box<str>,
    /// The new one.
    pub to: Box<str>,
    /// The new one's timeline.
    pub timeline: u32,
    /// How long writes went nowhere.
    pub lasted: Duration,
    /// What was wrong with the old one.
    pub why: Box<str>,
    /// What it meant to clients.
    pub counts: Counts,
}

/// What failovers meant to clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Waited.
    pub held: u64,
    /// Run again.
    pub rerun: u64,
    /// Told an error.
    pub failed: u64,
    /// Told that the outcome is unknown; among those told an error.
    pub outcome_unknown: u64,
}

impl Counts {
    pub(super) fn of(shared: &SharedCluster) -> Self {
        Self {
            held: shared.held.load(Relaxed),
            rerun: shared.rerun.load(Relaxed),
            failed: shared.failed.load(Relaxed),
            outcome_unknown: shared.outcome_unknown.load(Relaxed),
        }
    }

    /// What has been counted since `base`.
    pub(super) const fn since(self, base: Self) -> Self {
        Self {
            held: self.held.saturating_sub(base.held),
            rerun: self.rerun.saturating_sub(base.rerun),
            failed: self.failed.saturating_sub(base.failed),
            outcome_unknown: self.outcome_unknown.saturating_sub(base.outcome_unknown),
        }
    }
}
