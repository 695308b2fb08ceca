//! From what the nodes have reported to how fresh each replica is.

use std::time::Instant;

use super::freshness::{Compared, Positions, Source};
use super::node::Node;
use super::nodes::Nodes;
use super::position::Lsn;
use super::report::Role;
use super::state::State;
use super::view::Epoch;

/// Takes what the primary has last reported, and says of every replica how fresh it is.
pub(super) fn compare_nodes(state: &mut State) {
    let State { nodes, positions, epoch, .. } = state;
    positions.keep_only(*epoch);
    if let Some((source, sent_at, insert)) = epoch.and_then(|epoch| newest(nodes, epoch)) {
        positions.take(source, sent_at, insert);
    }
    for (_, node) in nodes.iter_mut() {
        let compared = compare(node, positions);
        node.set_compared(compared);
    }
}

/// What the primary of an epoch has last reported, if that is still believed.
fn newest(nodes: &Nodes, epoch: Epoch) -> Option<(Source, Instant, Lsn)> {
    let node = nodes.get(epoch.node).filter(|node| node.current().is_some())?;
    let last = node.last_report()?;
    let Role::Primary { insert, .. } = last.report.role else { return None };
    let is_same = (last.report.system, last.report.timeline) == (epoch.system, epoch.timeline);
    let source = Source { epoch, started_at_micros: last.report.started_at_micros };
    is_same.then_some((source, last.sent_at, insert))
}

/// How fresh a node is; `None` unless it is a standby that follows the primary's timeline.
fn compare(node: &mut Node, positions: &Positions) -> Option<Compared> {
    let before = node.take_compared();
    if node.is_doubted() {
        return None;
    }
    match node.current() {
        Some(report) => positions.compare(before, report),
        // What a node that is silent has replayed, it keeps; the primary may be another one,
        // though.
        None => before.filter(|before| positions.is_of(before)),
    }
}
