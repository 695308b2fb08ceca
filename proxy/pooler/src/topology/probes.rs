//! Which node is probed next, and the results of probes.

use std::time::{Duration, Instant};

use super::nodes::Nodes;
use super::reassess::reassess;
use super::report::{ProbeFailure, ProbeHint, Report};
use super::sampling;
use super::schedule::MIN_INTERVAL;
use super::state::State;
use super::view::NodeId;
use super::writers::{has_writer, take_sample};

/// The time between the starts of two probes of a node while clients wait for a primary.
const URGENT_INTERVAL: Duration = Duration::from_millis(100);
/// The time between the starts of two probes, while clients wait for a primary, of a node that
/// accepts no connection: a dial costs both sides more than a query.
const URGENT_DIAL_INTERVAL: Duration = Duration::from_millis(250);

/// An order to probe a node now, from [`Topology::poll_probe`]. The result goes to
/// [`Topology::handle_report`] or [`Topology::handle_failure`]; until then the node is not probed
/// again.
///
/// [`Topology::poll_probe`]: super::Topology::poll_probe
/// [`Topology::handle_report`]: super::Topology::handle_report
/// [`Topology::handle_failure`]: super::Topology::handle_failure
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbeOrder {
    /// The node to probe; its address is in [`View::nodes`](super::View::nodes).
    pub node: NodeId,
    /// The time of the order, to be given back with the report: the answer is not older than this.
    pub sent_at: Instant,
    /// What must be asked.
    pub scope: ProbeScope,
}

/// What a probe must ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeScope {
    /// Everything that a [`Report`] has.
    Everything,
    /// The positions in the write-ahead log, and whether the role or the timeline has changed: the
    /// rest may be what the server has reported before, if it has done so on the same connection
    /// and nothing has changed.
    Position,
}

/// The next node whose probe is due by `now`, which counts as started.
pub(super) fn poll(state: &mut State, now: Instant) -> Option<ProbeOrder> {
    let is_due = |due: Option<Instant>| due.is_some_and(|due| due <= now);
    let id = state.nodes.iter().find(|(_, node)| is_due(node.due())).map(|(id, _)| id)?;
    let is_sampled = state.sampling.interval(&state.nodes, state.epoch, id, now).is_some();
    let node = state.nodes.get_mut(id)?;
    node.schedule_mut().start(now);
    let scope = match is_sampled && node.is_known_since(now, state.options.probe_interval) {
        true => ProbeScope::Position,
        false => {
            node.note_asked(now);
            ProbeScope::Everything
        }
    };
    Some(ProbeOrder { node: id, sent_at: now, scope })
}

/// When the next probe is due; `None` while all listed nodes have one under way.
pub(super) fn next_due(nodes: &Nodes) -> Option<Instant> {
    nodes.iter().filter_map(|(_, node)| node.due()).min()
}

/// A probe that was sent at `sent_at` was answered.
pub(super) fn handle_report(
    state: &mut State,
    id: NodeId,
    sent_at: Instant,
    now: Instant,
    report: Report,
) {
    let Some(node) = state.nodes.get_mut(id).filter(|node| !node.is_removed()) else { return };
    node.handle_report(report, sent_at, now, &mut state.events);
    state.identity.learn(&state.nodes);
    take_sample(&mut state.samples, &state.nodes, &state.identity, id);
    reassess(state, now);
    // Last: what was learned decides when the nodes are probed again.
    finish(state, id, now, None);
    sampling::follow(state, id, now);
}

/// A probe has failed.
pub(super) fn handle_failure(state: &mut State, id: NodeId, now: Instant, failure: &ProbeFailure) {
    let Some(node) = state.nodes.get_mut(id).filter(|node| !node.is_removed()) else { return };
    node.handle_failure(failure, &mut state.events);
    reassess(state, now);
    finish(state, id, now, Some(failure));
}

/// Makes the next probe of the node that the hint names due at once, or that of every node if
/// clients wait for a primary and there is none.
pub(super) fn handle_hint(state: &mut State, hint: ProbeHint, now: Instant) {
    match hint {
        ProbeHint::ConnectionBroke(id)
        | ProbeHint::DialFailed(id)
        | ProbeHint::ReadOnly(id)
        | ProbeHint::HotStandbyChanged(id) => state.nodes.expedite(id, now),
        ProbeHint::ProberDisconnected(id) => {
            if let Some(node) = state.nodes.get_mut(id) {
                node.doubt();
            }
            state.nodes.expedite(id, now);
            reassess(state, now);
        }
        ProbeHint::FreshnessNeeded(moment) => {
            state.sampling.ask(moment, now);
            sampling::expedite(&mut state.nodes, state.epoch, now);
        }
        ProbeHint::WaitersNeedPrimary => {
            let known = is_urgent(state, now);
            state.waiters_until = Some(now + state.options.failover_hold);
            if !known && is_urgent(state, now) {
                state.nodes.expedite_all(now);
            }
        }
    }
}

/// Decides when a node whose probe has ended is probed next.
fn finish(state: &mut State, id: NodeId, now: Instant, failure: Option<&ProbeFailure>) {
    let urgent = is_urgent(state, now);
    let interval = match failure {
        Some(ProbeFailure::ChangedRole) => MIN_INTERVAL,
        Some(failure) if urgent && failure.is_dial() => URGENT_DIAL_INTERVAL,
        _ if urgent => URGENT_INTERVAL,
        Some(_) => state.options.probe_interval,
        None => {
            let sampled = state.sampling.interval(&state.nodes, state.epoch, id, now);
            sampled.unwrap_or(state.options.probe_interval)
        }
    };
    if let Some(node) = state.nodes.get_mut(id) {
        node.schedule_mut().finish(now, interval.min(state.options.probe_interval));
    }
}

/// Whether clients wait for a primary and there is none.
fn is_urgent(state: &State, now: Instant) -> bool {
    let waited_for = state.waiters_until.is_some_and(|until| now < until);
    waited_for && (state.split_brain.is_suspected() || !has_writer(&state.nodes, &state.identity))
}
