//! Which data is the cluster's: its system identifier, and how far its history goes.

use super::node::{Health, Node};
use super::nodes::Nodes;
use super::position::{SystemId, TimelineId};
use super::report::Report;

/// What is kept over a restart of the process (in `state_dir`), so that an old primary is not taken
/// for the current one afterwards.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Remembered {
    /// The cluster's system identifier; `None` while it is not known: then that of most nodes
    /// becomes the cluster's.
    pub system: Option<SystemId>,
    /// The highest timeline seen on a node that may be written to, counted anew from that of a node
    /// that an operator adopts; `None` before the first.
    pub timeline: Option<TimelineId>,
    /// The names of the listed nodes that have not joined the history that an operator has adopted:
    /// they are [`NodeState::Quarantined`](super::NodeState::Quarantined). Empty if all have, or
    /// none was adopted.
    pub rejected: Vec<Box<str>>,
}

/// The cluster's system identifier and its highest timeline, as far as they are known.
#[derive(Debug)]
pub(super) struct Identity {
    system: Option<SystemId>,
    timeline: Option<TimelineId>,
    /// What an earlier process remembered as rejected, for nodes that are listed later.
    rejected: Vec<Box<str>>,
}

impl Identity {
    /// What an earlier process remembered.
    pub(super) fn new(remembered: Remembered) -> Self {
        let Remembered { system, timeline, rejected } = remembered;
        Self { system, timeline, rejected }
    }

    /// The cluster's system identifier; `None` while it is not known.
    pub(super) const fn system(&self) -> Option<SystemId> {
        self.system
    }

    /// The highest timeline that was seen; `None` before the first.
    pub(super) const fn timeline(&self) -> Option<TimelineId> {
        self.timeline
    }

    /// The highest timeline as a number for texts, 0 if there is none.
    pub(super) fn timeline_number(&self) -> u32 {
        self.timeline.map_or(0, |timeline| timeline.0)
    }

    /// Whether a report is of the cluster's data.
    pub(super) fn is_of_cluster(&self, report: &Report) -> bool {
        Some(report.system) == self.system
    }

    /// Whether a report is of the highest timeline that was seen, or of a higher one.
    pub(super) fn is_newest(&self, report: &Report) -> bool {
        Some(report.timeline) >= self.timeline
    }

    /// Whether an earlier process has remembered the node of this name as rejected.
    pub(super) fn is_rejected(&self, name: &str) -> bool {
        self.rejected.iter().any(|rejected| **rejected == *name)
    }

    /// Learns from what the nodes have reported.
    pub(super) fn learn(&mut self, nodes: &Nodes) {
        if self.system.is_none() {
            self.system = system_of(nodes);
        }
        self.timeline = self.timeline.max(self.highest_timeline(nodes));
    }

    /// An operator has made this history the cluster's.
    pub(super) fn adopt(&mut self, system: SystemId, timeline: TimelineId) {
        self.rejected.clear();
        self.system = Some(system);
        self.timeline = Some(timeline);
    }

    /// Takes over what another process knows: all of it after an adoption there, otherwise the
    /// identifier if none is known here, and a higher timeline of the same data.
    pub(super) fn follow(&mut self, told: Remembered, is_adopted: bool) {
        let Remembered { system, timeline, rejected } = told;
        self.rejected = rejected;
        if is_adopted {
            (self.system, self.timeline) = (system, timeline);
        } else if self.system.is_none() || self.system == system {
            (self.system, self.timeline) = (system.or(self.system), self.timeline.max(timeline));
        }
    }

    /// Whether the nodes have different system identifiers, and nothing says which is the
    /// cluster's.
    pub(super) fn is_ambiguous(&self, nodes: &Nodes) -> bool {
        nodes.all_probed()
            && self.system.is_none()
            && nodes.iter().any(|(_, node)| node.current().is_some())
    }

    /// What is to be kept over a restart.
    pub(super) fn remembered(&self, nodes: &Nodes) -> Remembered {
        let rejected = nodes.listed().filter(|node| node.is_rejected()).map(Node::name);
        let rejected = rejected.collect();
        Remembered { system: self.system, timeline: self.timeline, rejected }
    }

    /// The highest timeline of the nodes that may be written to. What is tried out on a node that
    /// is no candidate must not lock the real primary out.
    fn highest_timeline(&self, nodes: &Nodes) -> Option<TimelineId> {
        let counted = nodes.iter().filter(|(_, node)| node.is_candidate() && !node.is_rejected());
        let reports = counted.filter_map(|(_, node)| node.current());
        reports.filter(|report| self.is_of_cluster(report)).map(|report| report.timeline).max()
    }
}

/// The system identifier that most nodes have. When as many have another, it is that of the
/// primary that may be written to; `None` when both have one, and as long as nodes that have not
/// been probed could decide it.
fn system_of(nodes: &Nodes) -> Option<SystemId> {
    let mut counts: Vec<(SystemId, usize, bool)> = Vec::new();
    for node in nodes.listed() {
        let Some(report) = node.current() else { continue };
        let primary = node.is_candidate() && report.is_primary();
        match counts.iter_mut().find(|(system, ..)| *system == report.system) {
            Some((_, count, writable)) => {
                *count += 1;
                *writable |= primary;
            }
            None => counts.push((report.system, 1, primary)),
        }
    }
    let most = counts.iter().map(|(_, count, _)| *count).max().unwrap_or(0);
    counts.retain(|(_, count, _)| *count == most);
    if counts.len() > 1 {
        counts.retain(|(.., writable)| *writable);
    }
    let all_probed = nodes.listed().all(|node| *node.health() != Health::Unknown);
    let decided = all_probed || most * 2 > nodes.listed().count();
    match counts[..] {
        [(system, ..)] if decided => Some(system),
        _ => None,
    }
}
