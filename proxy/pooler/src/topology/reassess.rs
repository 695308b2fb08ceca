//! From what is known to a new view.

use std::sync::Arc;
use std::time::Instant;

use super::compare::compare_nodes;
use super::decide::decide;
use super::evaluate::evaluate_nodes;
use super::state::State;
use super::view::{View, Writes};

/// Decides and evaluates everything anew after something was learned, and publishes a view if that
/// has changed anything.
pub(super) fn reassess(state: &mut State, now: Instant) {
    state.nodes.note_probed();
    state.identity.learn(&state.nodes);
    let writes = decide(state, now);
    evaluate_nodes(state, now);
    compare_nodes(state);
    publish(state, writes);
}

fn publish(state: &mut State, writes: Writes) {
    let nodes: Vec<_> = state.nodes.iter().map(|(id, node)| node.view(id)).collect();
    let view = &mut state.view;
    if nodes != view.nodes || writes != view.writes {
        let version = view.version + 1;
        *view = Arc::new(View { version, nodes, writes });
    }
}
