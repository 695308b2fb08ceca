//! When the primary and the replicas are asked more often, because somebody must read what was just
//! written.

use std::time::{Duration, Instant};

use super::nodes::Nodes;
use super::state::State;
use super::view::{Epoch, NodeId, NodeState};

/// The time between the starts of two probes of a node while somebody needs fresh replicas.
pub(super) const SAMPLE_INTERVAL: Duration = Duration::from_millis(20);
/// How long after the primary's answer the replicas are asked that had not replayed what it says:
/// a replica that is close by has what was written by then, and the next look is not waited for.
const FOLLOW_AFTER: Duration = Duration::from_millis(2);
/// How long it goes on at least after somebody has asked: who writes mostly writes again.
const LINGER: Duration = Duration::from_millis(60);
/// How long it goes on at most after somebody has asked, for a replica that stays behind.
const PATIENCE: Duration = Duration::from_millis(500);

/// Who needs fresh replicas.
#[derive(Debug, Default)]
pub(super) struct Sampling {
    /// The latest moment that a replica must have reached, and when somebody last said so.
    need: Option<(Instant, Instant)>,
}

impl Sampling {
    /// Somebody must see the writes that were acknowledged up to `moment`.
    pub(super) fn ask(&mut self, moment: Instant, now: Instant) {
        let latest = self.need.map_or(moment, |(known, _)| known.max(moment));
        self.need = Some((latest, now));
    }

    /// Whether nodes are to be asked more often now.
    fn is_needed(&self, nodes: &Nodes, now: Instant) -> bool {
        let Some((moment, asked_at)) = self.need else { return false };
        let age = now.saturating_duration_since(asked_at);
        age < LINGER || (age < PATIENCE && nodes.iter().any(|(_, node)| node.is_behind(moment)))
    }

    /// How soon after the start of a node's last probe the next is due; `None` for as usual.
    pub(super) fn interval(
        &self,
        nodes: &Nodes,
        epoch: Option<Epoch>,
        id: NodeId,
        now: Instant,
    ) -> Option<Duration> {
        let counts = is_sampled(nodes, epoch, id) && self.is_needed(nodes, now);
        counts.then_some(SAMPLE_INTERVAL)
    }
}

/// The primary has told its position: the replicas that are behind are asked next.
pub(super) fn follow(state: &mut State, answered: NodeId, now: Instant) {
    let State { sampling, nodes, epoch, .. } = state;
    let is_primary = epoch.is_some_and(|epoch| epoch.node == answered);
    let Some((moment, _)) = sampling.need else { return };
    if !is_primary || !sampling.is_needed(nodes, now) {
        return;
    }
    let behind: Vec<NodeId> =
        nodes.iter().filter(|(_, node)| node.is_behind(moment)).map(|(id, _)| id).collect();
    for id in behind {
        if let Some(node) = nodes.get_mut(id) {
            node.schedule_mut().follow(now + FOLLOW_AFTER);
        }
    }
}

/// Makes the next probes of the primary and the replicas due as soon as they may be.
pub(super) fn expedite(nodes: &mut Nodes, epoch: Option<Epoch>, now: Instant) {
    let sampled = |id: &NodeId| is_sampled(nodes, epoch, *id);
    let ids: Vec<NodeId> = nodes.iter().map(|(id, _)| id).filter(sampled).collect();
    for id in ids {
        if let Some(node) = nodes.get_mut(id) {
            node.schedule_mut().hasten(SAMPLE_INTERVAL, now);
        }
    }
}

/// Whether a node's position says how fresh replicas are.
fn is_sampled(nodes: &Nodes, epoch: Option<Epoch>, id: NodeId) -> bool {
    let is_primary = epoch.is_some_and(|epoch| epoch.node == id);
    is_primary || nodes.get(id).is_some_and(|node| node.state() == NodeState::Replica)
}
