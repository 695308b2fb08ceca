//! Where writes go.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::event::Event;
use super::history::Interruption;
use super::identity::Identity;
use super::node::Health;
use super::nodes::Nodes;
use super::state::State;
use super::view::{Epoch, HoldReason, NodeId, Writes};
use super::writers::{needs_adoption, take_sample, writers};

/// Decides where writes go, and records what that changes: events, the failover history, the epoch
/// that is written to.
pub(super) fn decide(state: &mut State, now: Instant) -> Writes {
    let writers = writers(&state.nodes, &state.identity, state.epoch);
    state.split_brain.detect(&writers, &mut state.nodes, &mut state.events, now);
    let writes = choose(state, &writers);
    record_change(state, &writes, now);
    writes
}

/// Where writes go when they may go to `writers`.
fn choose(state: &State, writers: &[NodeId]) -> Writes {
    let State { nodes, identity, .. } = state;
    if state.operator_hold {
        return Writes::Held(HoldReason::Operator);
    }
    if !nodes.all_probed() {
        return Writes::Held(HoldReason::Unknown);
    }
    if identity.is_ambiguous(nodes) {
        return Writes::Refused(ambiguous_text(nodes));
    }
    match writers {
        [] => Writes::Held(hold_reason(nodes, identity, state.epoch)),
        [one] => match nodes[*one].epoch(*one) {
            Some(epoch) => Writes::To(epoch),
            None => Writes::Held(HoldReason::NoPrimary),
        },
        several if state.split_brain.is_certain() => {
            Writes::Refused(split_brain_text(nodes, identity, several))
        }
        _ => Writes::Held(HoldReason::Doubtful),
    }
}

/// Why no node may be written to; `epoch` is the last that was.
fn hold_reason(nodes: &Nodes, identity: &Identity, epoch: Option<Epoch>) -> HoldReason {
    if let Some(reason) = needs_adoption(nodes, identity) {
        return reason;
    }
    match epoch.and_then(|epoch| nodes.get(epoch.node)) {
        Some(node) if node.is_removed() => HoldReason::NoPrimary,
        Some(node) if matches!(node.health(), Health::Down(_)) => HoldReason::Unreachable,
        Some(node) if node.current().is_some_and(|report| !report.is_primary()) => {
            HoldReason::Demoted
        }
        _ => HoldReason::NoPrimary,
    }
}

/// Records a decision that differs from the last published one: the interruption of writes begins
/// or ends, and events say so. While there is no primary, every node is probed at once.
fn record_change(state: &mut State, writes: &Writes, now: Instant) {
    if *writes == state.view.writes {
        return;
    }
    match writes {
        Writes::To(epoch) => start_epoch(state, *epoch, now),
        Writes::Held(reason) => {
            if let Some(epoch) = state.view.primary() {
                lose_primary(state, epoch, *reason, now);
            }
            state.events.push(Event::Holding { reason: *reason });
            if *reason != HoldReason::Operator {
                state.nodes.expedite_all(now);
            }
        }
        Writes::Refused(text) => {
            if let Some(epoch) = state.view.primary() {
                let from = state.nodes.name(epoch.node);
                state.history.begin_interruption(from, now, text.as_ref().into());
            }
        }
    }
}

/// Writes do not go to the primary of `epoch` any more.
fn lose_primary(state: &mut State, epoch: Epoch, reason: HoldReason, now: Instant) {
    let from = state.nodes.name(epoch.node);
    let why: Box<str> = match state.nodes.get(epoch.node).map(|node| node.health()) {
        Some(Health::Down(failure)) => failure.to_string().into(),
        _ => reason.text().into(),
    };
    if reason != HoldReason::Operator {
        state.events.push(Event::Lost { node: from.clone(), why: why.clone() });
    }
    state.history.begin_interruption(from, now, why);
}

/// Writes go to the node of `epoch`: for the first time, again, or instead of to another.
fn start_epoch(state: &mut State, epoch: Epoch, now: Instant) {
    let State { nodes, events, .. } = state;
    let to = nodes.name(epoch.node);
    let interruption = state.history.end_interruption();
    let lasted = interruption.as_ref().map_or(Duration::ZERO, |one| one.lasted(now));
    let Some(old) = state.epoch.replace(epoch) else {
        events.push(Event::Found { node: to, timeline: epoch.timeline });
        return;
    };
    if old == epoch {
        events.push(Event::Resumed { node: to, lasted });
        return;
    }
    if old.node != epoch.node
        && old.system == epoch.system
        && old.timeline < epoch.timeline
        && let Some(node) = nodes.get_mut(old.node)
    {
        node.mark_outdated();
    }
    if old.timeline != epoch.timeline || old.system != epoch.system {
        state.samples.clear();
        take_sample(&mut state.samples, nodes, &state.identity, epoch.node);
    }
    let from = nodes.name(old.node);
    let interruption = interruption
        .unwrap_or_else(|| Interruption::new(from.clone(), now, "a newer primary".into()));
    state.history.record(interruption, to.clone(), epoch.timeline, now);
    events.push(Event::Switched { from, to, timeline: epoch.timeline, lasted });
    nodes.expedite_all(now);
}

/// What clients are told when several nodes are primary on one timeline.
fn split_brain_text(nodes: &Nodes, identity: &Identity, writers: &[NodeId]) -> Arc<str> {
    let names: Vec<String> = writers.iter().map(|id| nodes.name(*id).into()).collect();
    format!(
        "nodes {} are both primary on timeline {}: writes stop until one of them goes away",
        names.join(" and "),
        identity.timeline_number()
    )
    .into()
}

/// What clients are told when it cannot be known which nodes are the cluster's.
fn ambiguous_text(nodes: &Nodes) -> Arc<str> {
    let known = nodes
        .iter()
        .filter_map(|(_, node)| Some(format!("{} ({})", node.name(), node.current()?.system)));
    let known: Vec<String> = known.collect();
    format!(
        "nodes {} are of different clusters (system_identifier): an operator must say which \
         with ADOPT NODE",
        known.join(" and ")
    )
    .into()
}
