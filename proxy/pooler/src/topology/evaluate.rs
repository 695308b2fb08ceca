//! The state of each node: what it is to clients that read, and to people.

use std::fmt::Write as _;
use std::time::Instant;

use super::event::{Event, Events};
use super::identity::Identity;
use super::lag::Samples;
use super::node::{Health, Node};
use super::nodes::Nodes;
use super::options::Options;
use super::position::Lsn;
use super::report::{Report, Role};
use super::state::State;
use super::view::{NodeId, NodeState};
use super::writers::{is_only_history, writers};

/// What to do with an old primary where a node has the newer history.
const REWIND: &str = "; rejoin it with pg_rewind";

/// What to do where no node has: the cluster manager may lead with this one.
const ADOPT: &str =
    ", which no node is known to have any more; if this one has the right data, say ADOPT NODE";

/// Evaluates every node; events say what changed for the worse or the better.
pub(super) fn evaluate_nodes(state: &mut State, now: Instant) {
    rejoin_nodes(&mut state.nodes, &state.identity, &mut state.events);
    forget_samples(&mut state.samples, &state.nodes);
    let writers = writers(&state.nodes, &state.identity, state.epoch);
    // Each state follows from the reports alone, not from the states of other nodes.
    let evaluated: Vec<_> =
        state.nodes.iter().map(|(id, node)| evaluate(state, id, node, &writers, now)).collect();
    for ((_, node), (node_state, why)) in state.nodes.iter_mut().zip(evaluated) {
        let before = node.set_state(node_state, why);
        if let Some(event) = change(before, node) {
            state.events.push(event);
        }
    }
}

/// The state of a node, and the reason for it in words.
fn evaluate(
    state: &State,
    id: NodeId,
    node: &Node,
    writers: &[NodeId],
    now: Instant,
) -> (NodeState, String) {
    let State { options, nodes, identity, samples, .. } = state;
    if node.is_removed() {
        return (NodeState::Removed, "not listed any more".to_owned());
    }
    let report = match (node.health(), node.last_report()) {
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
    let Some(system) = identity.system() else {
        return (NodeState::Unknown, "whose cluster it is cannot be told".to_owned());
    };
    if report.system != system {
        let mut why = format!("system_identifier {}, the cluster's is {system}", report.system);
        if is_only_history(nodes, identity, id) {
            why.push_str(ADOPT);
        }
        return (NodeState::Foreign, why);
    }
    if node.is_rejected() {
        let why = "the operator has adopted another node's history; rejoin this one to it";
        return (NodeState::Quarantined, why.to_owned());
    }
    match report.role {
        Role::Primary { .. } => evaluate_primary(nodes, identity, id, report, writers),
        Role::Standby { .. } if Some(report.timeline) != identity.timeline() => {
            let newest = identity.timeline_number();
            let why = format!("on timeline {}, the cluster is on {newest}", report.timeline);
            let outdated = node.is_outdated();
            (if outdated { NodeState::Quarantined } else { NodeState::Lagging }, why)
        }
        Role::Standby { replay, paused } => {
            match too_far_behind(options, samples, report, replay, now) {
                Some(why) => (NodeState::Lagging, why),
                None if paused => (NodeState::Replica, "replay is paused".to_owned()),
                None => (NodeState::Replica, String::new()),
            }
        }
    }
}

fn evaluate_primary(
    nodes: &Nodes,
    identity: &Identity,
    id: NodeId,
    report: &Report,
    writers: &[NodeId],
) -> (NodeState, String) {
    let mut why = String::new();
    if !identity.is_newest(report) {
        let newest = identity.timeline_number();
        let way_out = if is_only_history(nodes, identity, id) { ADOPT } else { REWIND };
        let why =
            format!("primary on timeline {}, the cluster is on {newest}{way_out}", report.timeline);
        return (NodeState::Quarantined, why);
    }
    if !nodes[id].is_candidate() {
        why.push_str("never written to: candidate = false");
    } else if !writers.contains(&id) {
        let same = writers.iter().find(|other| {
            let other = nodes[**other].current();
            other.is_some_and(|other| other.started_at_micros == report.started_at_micros)
        });
        if let Some(same) = same {
            let _ = write!(why, "the same server as {}", nodes.name(*same));
        }
    } else if writers.len() > 1 {
        why.push_str("not the only primary on its timeline");
    }
    (NodeState::Primary, why)
}

/// Why a standby on the cluster's timeline may not be read from; `None` if it may.
fn too_far_behind(
    options: &Options,
    samples: &Samples,
    report: &Report,
    replay: Lsn,
    now: Instant,
) -> Option<String> {
    let comparable = samples.are_of(report.timeline);
    let bytes = samples.bytes_behind(replay).filter(|_| comparable);
    let time = samples.time_behind(replay, now).filter(|_| comparable);
    let unknown = || Some("the primary's position is not known".to_owned());
    if let Some(limit) = options.max_lag_bytes {
        match bytes {
            None => return unknown(),
            Some(bytes) if bytes > limit => {
                return Some(format!("{bytes} bytes behind, replica_max_lag_bytes is {limit}"));
            }
            Some(_) => {}
        }
    }
    if let Some(limit) = options.max_lag {
        match time {
            None => return unknown(),
            Some(time) if time > limit => {
                return Some(format!("{time:.0?} behind, replica_max_lag is {limit:?}"));
            }
            Some(_) => {}
        }
    }
    None
}

/// A standby on the cluster's timeline has joined its history, whatever it was before.
fn rejoin_nodes(nodes: &mut Nodes, identity: &Identity, events: &mut Events) {
    for (_, node) in nodes.iter_mut() {
        let joined = node.current().is_some_and(|report| {
            identity.is_of_cluster(report)
                && !report.is_primary()
                && Some(report.timeline) == identity.timeline()
        });
        if joined && node.rejoin() {
            events.push(Event::Rejoined { node: node.name() });
        }
    }
}

/// Drops the samples that every standby has replayed.
fn forget_samples(samples: &mut Samples, nodes: &Nodes) {
    let standbys = nodes.iter().filter_map(|(_, node)| match node.current()?.role {
        Role::Standby { replay, .. } => Some(replay),
        Role::Primary { .. } => None,
    });
    if let Some(slowest) = standbys.min() {
        samples.forget_until(slowest);
    }
}

/// What the log says of a node whose state was `before`; `None` if that is nothing.
fn change(before: NodeState, node: &Node) -> Option<Event> {
    if node.state() == before {
        return None;
    }
    let name = node.name();
    let why = || node.why().into();
    Some(match (before, node.state()) {
        (_, NodeState::Quarantined) => Event::Quarantined { node: name, why: why() },
        (_, NodeState::Foreign) => Event::Foreign { node: name, why: why() },
        (NodeState::Foreign, NodeState::Replica) => Event::Rejoined { node: name },
        (NodeState::Replica, NodeState::Lagging) => Event::LeftOut { node: name, why: why() },
        (NodeState::Lagging, NodeState::Replica) => Event::CaughtUp { node: name },
        _ => return None,
    })
}
