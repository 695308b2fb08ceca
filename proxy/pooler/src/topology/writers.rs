//! The nodes that writes may go to.

use super::identity::Identity;
use super::lag::Samples;
use super::node::Node;
use super::nodes::Nodes;
use super::report::{Report, Role};
use super::view::{Epoch, HoldReason, NodeId};

/// Whether writes may go to a node, whatever other nodes are.
pub(super) fn may_write(identity: &Identity, node: &Node) -> bool {
    let Some(report) = node.current() else { return false };
    report.is_primary()
        && node.is_candidate()
        && !node.is_rejected()
        && identity.is_of_cluster(report)
        && identity.is_newest(report)
}

/// The nodes that writes may go to. Two names of one server count as one node: the name in
/// `epoch`, which is in use, or else the first.
pub(super) fn writers(nodes: &Nodes, identity: &Identity, epoch: Option<Epoch>) -> Vec<NodeId> {
    let mut writers: Vec<(NodeId, i64)> = Vec::new();
    for (id, node) in nodes.iter().filter(|(_, node)| may_write(identity, node)) {
        let Some(report) = node.current() else { continue };
        let started = report.started_at_micros;
        match writers.iter_mut().find(|(_, known)| *known == started) {
            Some(known) if epoch.is_some_and(|epoch| epoch.node == id) => known.0 = id,
            Some(_) => {}
            None => writers.push((id, started)),
        }
    }
    writers.into_iter().map(|(id, _)| id).collect()
}

/// Whether writes may go to some node.
pub(super) fn has_writer(nodes: &Nodes, identity: &Identity) -> bool {
    nodes.iter().any(|(_, node)| may_write(identity, node))
}

/// Adds the position of a node to the samples that lag is measured by, if it may be written to.
pub(super) fn take_sample(samples: &mut Samples, nodes: &Nodes, identity: &Identity, id: NodeId) {
    let writer = nodes.get(id).filter(|node| may_write(identity, node));
    if let Some(last) = writer.and_then(Node::last_report)
        && let Role::Primary { flush, .. } = last.report.role
    {
        samples.take(last.report.timeline, last.sent_at, flush);
    }
}

/// A primary that only an operator can let in: it has not the history that was seen before, and no
/// node is known to have it. `None` if there is none.
pub(super) fn needs_adoption(nodes: &Nodes, identity: &Identity) -> Option<HoldReason> {
    identity.system()?;
    let of_cluster =
        |node: &&Node| node.last_report().is_some_and(|last| identity.is_of_cluster(&last.report));
    let (id, primary) = nodes.iter().find(|(_, node)| {
        let is_primary = node.current().is_some_and(Report::is_primary);
        is_primary && node.is_candidate() && !node.is_rejected()
    })?;
    if !nodes.listed().any(|node| of_cluster(&node)) {
        return Some(HoldReason::OtherCluster(id));
    }
    let is_newest =
        |node: &Node| node.last_report().is_some_and(|last| identity.is_newest(&last.report));
    let lost = !nodes.listed().filter(of_cluster).any(is_newest);
    (of_cluster(&primary) && lost).then_some(HoldReason::OlderTimeline(id))
}

/// Whether a node's history, older than was seen or another cluster's, is the only one there is.
pub(super) fn is_only_history(nodes: &Nodes, identity: &Identity, id: NodeId) -> bool {
    let adoptable = needs_adoption(nodes, identity).and_then(HoldReason::adoptable);
    adoptable == Some(id)
}
