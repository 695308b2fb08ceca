//! The nodes of a cluster, each under its number.

use std::ops::Index;
use std::time::Instant;

use super::event::{Event, Events};
use super::node::{Health, Node, NodeSpec};
use super::view::NodeId;

/// Numbers of nodes have 16 bits. A cluster whose DNS name has led to more addresses than this
/// needs a restart.
const MAX_NODES: usize = 4096;

/// Every node that was ever listed, at most [`MAX_NODES`]: a number never stands for another node
/// later.
#[derive(Debug, Default)]
pub(super) struct Nodes {
    nodes: Vec<Node>,
    /// Every listed node has answered or failed once.
    all_probed: bool,
}

impl Nodes {
    /// Follows a new list. A node that is listed again has the number that it had; `is_rejected`
    /// says of a new one, by its name, whether it must join the adopted history first.
    pub(super) fn set_listed(
        &mut self,
        specs: Vec<NodeSpec>,
        is_rejected: impl Fn(&str) -> bool,
        events: &mut Events,
        now: Instant,
    ) {
        for node in &mut self.nodes {
            let listed = specs.iter().find(|spec| node.is_listed_by(spec));
            if let Some(event) = node.set_listed(listed, now) {
                events.push(event);
            }
        }
        for spec in specs {
            let known = self.nodes.iter().any(|node| node.is_listed_by(&spec));
            if !known && self.nodes.len() < MAX_NODES {
                events.push(Event::Added { node: spec.name.clone() });
                let rejected = is_rejected(&spec.name);
                self.nodes.push(Node::new(spec, rejected, now));
            }
        }
    }

    /// A node, if there is one of this number; it may be removed.
    pub(super) fn get(&self, id: NodeId) -> Option<&Node> {
        self.nodes.get(id.index())
    }

    /// See [`Self::get`].
    pub(super) fn get_mut(&mut self, id: NodeId) -> Option<&mut Node> {
        self.nodes.get_mut(id.index())
    }

    /// The name of a node; empty if there is none of this number.
    pub(super) fn name(&self, id: NodeId) -> Box<str> {
        self.get(id).map(Node::name).unwrap_or_default()
    }

    /// Every node with its number, those that are removed too.
    pub(super) fn iter(&self) -> impl Iterator<Item = (NodeId, &Node)> {
        (0..).map(NodeId).zip(&self.nodes)
    }

    /// See [`Self::iter`].
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (NodeId, &mut Node)> {
        (0..).map(NodeId).zip(&mut self.nodes)
    }

    /// The nodes that are listed.
    pub(super) fn listed(&self) -> impl Iterator<Item = &Node> + Clone {
        self.nodes.iter().filter(|node| !node.is_removed())
    }

    /// Makes the next probe of a node due at once.
    pub(super) fn expedite(&mut self, id: NodeId, now: Instant) {
        if let Some(node) = self.get_mut(id) {
            node.schedule_mut().expedite(now);
        }
    }

    /// Makes the next probe of every node due at once.
    pub(super) fn expedite_all(&mut self, now: Instant) {
        for node in &mut self.nodes {
            node.schedule_mut().expedite(now);
        }
    }

    /// Whether every listed node had answered or failed once when [`Self::note_probed`] was last
    /// called: before that, a node with a higher timeline may merely be late.
    pub(super) const fn all_probed(&self) -> bool {
        self.all_probed
    }

    /// Notes whether every listed node has answered or failed by now. Once that is so, it stays
    /// so: nodes that are listed later do not count.
    pub(super) fn note_probed(&mut self) {
        let probed = self.listed().all(|node| *node.health() != Health::Unknown);
        self.all_probed |= !self.nodes.is_empty() && probed;
    }
}

impl Index<NodeId> for Nodes {
    type Output = Node;

    fn index(&self, id: NodeId) -> &Node {
        &self.nodes[id.index()]
    }
}
