//! What each node is to readers and to people.

use std::fmt::Write as _;
use std::time::Instant;

use super::event::Event;
use super::machine::Topology;
use super::node::{Health, Node};
use super::position::Lsn;
use super::report::{Report, Role};
use super::view::{NodeId, NodeState};

/// What to do with an old primary where a node has the newer history.
const REWIND: &str = "; rejoin it with pg_rewind";

/// What to do where no node has: the cluster manager may lead with this one.
const ADOPT: &str =
    ", which no node is known to have any more; if this one has the right data, say ADOPT NODE";

impl Topology {
    /// Evaluates every node; events tell what changed for the worse or the better.
    pub(super) fn evaluate_nodes(&mut self, now: Instant) {
        self.take_back_rejections();
        self.forget_samples();
        let writers = self.writers();
        for index in 0..self.nodes.len() {
            let id = NodeId(index as u16);
            let (state, why) = self.evaluate(id, &writers, now);
            let node = &mut self.nodes[index];
            let before = std::mem::replace(&mut node.state, state);
            node.outdated |= state == NodeState::Quarantined;
            node.why = why;
            self.tell(id, before);
        }
    }

    fn evaluate(&self, id: NodeId, writers: &[NodeId], now: Instant) -> (NodeState, String) {
        let node = &self.nodes[id.index()];
        if node.removed {
            return (NodeState::Removed, "not listed any more".to_owned());
        }
        let report = match (&node.health, &node.last_report) {
            (Health::Up, Some(last_report)) => &last_report.report,
            (Health::Unknown | Health::Up, _) => {
                return (NodeState::Unknown, "not asked yet".to_owned());
            }
            (Health::ProbeRefused { code, .. }, _) => {
                let why = format!("it lives, but refuses the prober ({code})");
                return (NodeState::ProbeRefused, why);
            }
            (Health::Down(failure), _) => return (NodeState::Down, failure.to_string()),
        };
        let Some(system) = self.remembered.system else {
            return (NodeState::Unknown, "whose cluster it is cannot be told".to_owned());
        };
        if report.system != system {
            let mut why = format!("system_identifier {}, the cluster's is {system}", report.system);
            if self.is_only_history(id) {
                why.push_str(ADOPT);
            }
            return (NodeState::Foreign, why);
        }
        if node.rejected {
            let why = "the operator has adopted another node's history; rejoin this one to it";
            return (NodeState::Quarantined, why.to_owned());
        }
        match report.role {
            Role::Primary { .. } => self.evaluate_primary(id, node, report, writers),
            Role::Standby { replay, paused } => {
                self.evaluate_standby(node, report, replay, paused, now)
            }
        }
    }

    fn evaluate_primary(
        &self,
        id: NodeId,
        node: &Node,
        report: &Report,
        writers: &[NodeId],
    ) -> (NodeState, String) {
        let mut why = String::new();
        if Some(report.timeline) < self.remembered.timeline {
            let newest = self.remembered.timeline.map_or(0, |timeline| timeline.0);
            let way_out = if self.is_only_history(id) { ADOPT } else { REWIND };
            let why = format!(
                "primary on timeline {}, the cluster is on {newest}{way_out}",
                report.timeline
            );
            return (NodeState::Quarantined, why);
        }
        if !node.spec.candidate {
            why.push_str("never written to: candidate = false");
        } else if !writers.contains(&id) {
            let same = writers.iter().find(|other| {
                let other = self.nodes[other.index()].current();
                other.is_some_and(|other| other.started_at_micros == report.started_at_micros)
            });
            if let Some(same) = same {
                let _ = write!(why, "the same server as {}", self.name(*same));
            }
        } else if writers.len() > 1 {
            why.push_str("not the only primary on its timeline");
        }
        (NodeState::Primary, why)
    }

    fn evaluate_standby(
        &self,
        node: &Node,
        report: &Report,
        replay: Lsn,
        paused: bool,
        now: Instant,
    ) -> (NodeState, String) {
        if Some(report.timeline) != self.remembered.timeline {
            let newest = self.remembered.timeline.map_or(0, |timeline| timeline.0);
            let why = format!("on timeline {}, the cluster is on {newest}", report.timeline);
            let state = if node.outdated { NodeState::Quarantined } else { NodeState::Lagging };
            return (state, why);
        }
        let comparable = self.samples.are_of(report.timeline);
        let bytes = self.samples.bytes_behind(replay).filter(|_| comparable);
        let time = self.samples.time_behind(replay, now).filter(|_| comparable);
        let unknown = || "the primary's position is not known".to_owned();
        if let Some(limit) = self.options.max_lag_bytes {
            match bytes {
                None => return (NodeState::Lagging, unknown()),
                Some(bytes) if bytes > limit => {
                    let why = format!("{bytes} bytes behind, replica_max_lag_bytes is {limit}");
                    return (NodeState::Lagging, why);
                }
                Some(_) => {}
            }
        }
        if let Some(limit) = self.options.max_lag {
            match time {
                None => return (NodeState::Lagging, unknown()),
                Some(time) if time > limit => {
                    let why = format!("{time:.0?} behind, replica_max_lag is {limit:?}");
                    return (NodeState::Lagging, why);
                }
                Some(_) => {}
            }
        }
        let why = if paused { "replay is paused" } else { "" };
        (NodeState::Replica, why.to_owned())
    }

    /// A node that has joined the cluster's history is no outsider any more.
    fn take_back_rejections(&mut self) {
        let remembered = &self.remembered;
        for node in &mut self.nodes {
            let joined = node.current().is_some_and(|report| {
                Some(report.system) == remembered.system
                    && match report.role {
                        Role::Standby { .. } => Some(report.timeline) == remembered.timeline,
                        Role::Primary { .. } => false,
                    }
            });
            if joined && (node.outdated || node.rejected) {
                node.outdated = false;
                node.rejected = false;
                self.events.push_back(Event::Rejoined { node: node.spec.name.clone() });
            }
        }
    }

    fn forget_samples(&mut self) {
        let standbys = self.nodes.iter().filter_map(|node| match node.current()?.role {
            Role::Standby { replay, .. } => Some(replay),
            Role::Primary { .. } => None,
        });
        if let Some(slowest) = standbys.min() {
            self.samples.forget_until(slowest);
        }
    }

    fn tell(&mut self, id: NodeId, before: NodeState) {
        let node = &self.nodes[id.index()];
        if node.state == before {
            return;
        }
        let name = node.spec.name.clone();
        let why = || node.why.as_str().into();
        let event = match (before, node.state) {
            (_, NodeState::Quarantined) => Event::Quarantined { node: name, why: why() },
            (_, NodeState::Foreign) => Event::Foreign { node: name, why: why() },
            (NodeState::Foreign, NodeState::Replica) => Event::Rejoined { node: name },
            (NodeState::Replica, NodeState::Lagging) => Event::LeftOut { node: name, why: why() },
            (NodeState::Lagging, NodeState::Replica) => Event::CaughtUp { node: name },
            _ => return,
        };
        self.events.push_back(event);
    }
}
