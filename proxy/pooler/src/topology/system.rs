//! Whose data is the cluster's, and how far its history goes.

use super::machine::Topology;
use super::node::Health;
use super::position::SystemId;

impl Topology {
    /// Without a memory, the cluster is what most of its nodes are. When as many are of another,
    /// the one that has a primary is it; when both have, only an operator can tell.
    pub(super) fn learn_system(&mut self) {
        if self.remembered.system.is_some() {
            return;
        }
        let mut counts: Vec<(SystemId, usize, bool)> = Vec::new();
        let listed = self.nodes.iter().filter(|node| !node.removed);
        let total = listed.clone().count();
        for (report, candidate) in
            listed.clone().filter_map(|node| Some((node.current()?, node.spec.candidate)))
        {
            let primary = candidate && report.is_primary();
            match counts.iter_mut().find(|(system, ..)| *system == report.system) {
                Some((_, count, writable)) => {
                    *count += 1;
                    *writable |= primary;
                }
                None => counts.push((report.system, 1, primary)),
            }
        }
        let all_asked = listed.clone().all(|node| node.health != Health::Unknown);
        let most = counts.iter().map(|(_, count, _)| *count).max().unwrap_or(0);
        let mut first: Vec<_> = counts.into_iter().filter(|(_, count, _)| *count == most).collect();
        if first.len() > 1 {
            first.retain(|(.., writable)| *writable);
        }
        if let [(system, ..)] = first[..]
            && (all_asked || most * 2 > total)
        {
            self.remembered.system = Some(system);
        }
    }

    /// The highest timeline that a node which may become primary was ever seen on. A drill on a
    /// node that is no candidate must not lock the real primary out.
    pub(super) fn learn_timeline(&mut self) {
        let seen = self.nodes.iter().filter(|node| node.spec.candidate && !node.rejected);
        let ours = seen
            .filter_map(|node| node.current())
            .filter(|report| Some(report.system) == self.remembered.system);
        let highest = ours.map(|report| report.timeline).max();
        self.remembered.timeline = self.remembered.timeline.max(highest);
    }

    /// Whether the nodes are of several clusters and it cannot be told which one is meant.
    pub(super) fn is_ambiguous(&self) -> bool {
        self.settled
            && self.remembered.system.is_none()
            && self.nodes.iter().any(|node| node.current().is_some())
    }
}
