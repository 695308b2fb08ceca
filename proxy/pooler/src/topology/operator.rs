//! What an operator may decide.

use std::time::Instant;

use thiserror::Error;

use super::event::Event;
use super::identity::Remembered;
use super::reassess::reassess;
use super::state::State;
use super::view::NodeId;
use super::writers::take_sample;

/// Why a node cannot be adopted (`Topology::adopt`). Nothing has changed then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum AdoptError {
    /// There is no node of this number: the cluster has never listed one.
    #[error("there is no such node")]
    Unknown,
    /// The node has no valid report (it never answered, is down or is not listed), so that its
    /// system identifier and timeline are not known.
    #[error("the node does not answer; it can be adopted once it does")]
    Silent,
}

/// Holds writes until [`resume`].
pub(super) fn hold(state: &mut State, now: Instant) {
    if !state.operator_hold {
        state.operator_hold = true;
        reassess(state, now);
    }
}

/// Ends a hold; returns whether there was one.
pub(super) fn resume(state: &mut State, now: Instant) -> bool {
    let held = std::mem::replace(&mut state.operator_hold, false);
    if held {
        state.events.push(Event::HoldEnded);
        state.nodes.expedite_all(now);
        reassess(state, now);
    }
    held
}

/// Makes a node's system identifier and timeline those of the cluster. Every other node is
/// rejected until it has joined that history.
pub(super) fn adopt(state: &mut State, id: NodeId, now: Instant) -> Result<(), AdoptError> {
    let node = state.nodes.get(id).ok_or(AdoptError::Unknown)?;
    let report = *node.current().ok_or(AdoptError::Silent)?;
    let name = node.name();
    for (other_id, node) in state.nodes.iter_mut() {
        let belongs = node.current().is_some_and(|other| {
            let same_server = other.started_at_micros == report.started_at_micros;
            let follows = !other.is_primary() && other.timeline == report.timeline;
            other.system == report.system && (same_server || follows)
        });
        node.set_rejected(other_id != id && !belongs);
    }
    state.identity.adopt(report.system, report.timeline);
    state.samples.clear();
    let (system, timeline) = (report.system, report.timeline);
    state.events.push(Event::Adopted { node: name, system, timeline });
    take_sample(&mut state.samples, &state.nodes, &state.identity, id);
    state.nodes.expedite_all(now);
    reassess(state, now);
    Ok(())
}

/// Takes over what another process knows of the cluster. After an adoption there (`is_adopted`) it
/// replaces what is known here; otherwise it is added to it.
pub(super) fn follow(state: &mut State, told: Remembered, is_adopted: bool, now: Instant) {
    for (_, node) in state.nodes.iter_mut() {
        let name = node.name();
        node.set_rejected(told.rejected.contains(&name));
    }
    if is_adopted {
        state.samples.clear();
        if let (Some(system), Some(timeline)) = (told.system, told.timeline) {
            state.events.push(Event::AdoptedElsewhere { system, timeline });
        }
    }
    state.identity.follow(told, is_adopted);
    state.nodes.expedite_all(now);
    reassess(state, now);
}
