//! The outside of a cluster: what the driver calls, and the contract between the two.

use std::sync::Arc;
use std::time::Instant;

use super::event::Event;
use super::history::Failover;
use super::identity::Remembered;
use super::node::{NodeDetail, NodeSpec};
use super::operator::{self, AdoptError};
use super::options::Options;
use super::probes::{self, ProbeOrder};
use super::reassess::reassess;
use super::report::{ProbeFailure, ProbeHint, Report};
use super::state::State;
use super::view::{NodeId, View};

/// One cluster: its nodes, what they have reported, and where writes go. It knows no socket, no SQL
/// and no clock.
///
/// # The driver's part
///
/// `now` never goes back. After each call that takes `&mut self`, and whenever
/// [`Self::next_timeout`] has come:
///
/// 1. [`Self::poll_probe`] until it returns `None`. The driver probes each of these nodes, and
///    gives the result to [`Self::handle_report`] or [`Self::handle_failure`]. It gives exactly
///    one result for each order, for the node is not probed again before; a probe that takes too
///    long is [`ProbeFailure::TimedOut`].
/// 2. [`Self::poll_event`] until it returns `None`, for the log.
/// 3. [`Self::remembered`]: stored before anybody acts on the view, if it has changed.
/// 4. [`Self::view`]: given to the workers, if its version has changed.
///
/// At any time: [`Self::handle_probe_hint`] with what workers have noticed, [`Self::set_nodes`]
/// with the nodes that a DNS name leads to, [`Self::reconfigure`] after a reload, and what an
/// operator says: [`Self::hold`], [`Self::resume`], [`Self::adopt`].
#[derive(Debug)]
pub struct Topology {
    state: State,
}

impl Topology {
    /// Makes a cluster of which nothing is known but what an earlier process remembered. The first
    /// probe of each node is due at once, and writes are held
    /// ([`HoldReason::Unknown`](super::HoldReason::Unknown)) until all of them have ended; with an
    /// empty list, until [`Self::set_nodes`] gives nodes. There are no events of these nodes.
    #[must_use]
    pub fn new(
        options: Options,
        nodes: Vec<NodeSpec>,
        remembered: Remembered,
        now: Instant,
    ) -> Self {
        let mut topology = Self { state: State::new(options, remembered) };
        topology.set_nodes(nodes, now);
        topology.state.events.clear();
        topology
    }

    // What comes in.

    /// Takes a node's answer to a probe; `sent_at` is that of its [`ProbeOrder`]. A report of a
    /// node that has been removed meanwhile is ignored. The view, the events and what is remembered
    /// may change. The node's next probe is due `probe_interval` after the start of this one,
    /// sooner while clients wait for a primary.
    pub fn handle_report(&mut self, id: NodeId, sent_at: Instant, now: Instant, report: Report) {
        probes::handle_report(&mut self.state, id, sent_at, now, report);
    }

    /// Takes the failure of a node's probe. That of a node that has been removed meanwhile is
    /// ignored. The node's last report is not valid any more, except after
    /// [`ProbeFailure::ChangedRole`] and [`ProbeFailure::ProbeRefused`]. The view, the events and
    /// the next probes may change.
    pub fn handle_failure(&mut self, id: NodeId, now: Instant, failure: ProbeFailure) {
        probes::handle_failure(&mut self.state, id, now, &failure);
    }

    /// Takes what a worker has noticed, because something may have changed. The probe of the node
    /// that the hint names becomes due at once, but not more often than every 10 ms for each node;
    /// of a node that is being probed, right after that. [`ProbeHint::WaitersNeedPrimary`] concerns
    /// every node, while none may be written to: they are probed more often for `failover_hold`.
    /// [`ProbeHint::FreshnessNeeded`] concerns the primary and the replicas. A hint for an unknown
    /// node is ignored.
    pub fn handle_probe_hint(&mut self, probe_hint: ProbeHint, now: Instant) {
        probes::handle_hint(&mut self.state, probe_hint, now);
    }

    /// Follows a new configuration after a reload: other options and another list of nodes, as in
    /// [`Self::set_nodes`]. What is known of nodes that stay is kept. Limits on lag hold at once,
    /// another `probe_interval` from the end of each node's current or next probe.
    pub fn reconfigure(&mut self, options: Options, nodes: Vec<NodeSpec>, now: Instant) {
        self.state.options = options;
        self.set_nodes(nodes, now);
    }

    /// Follows a new list of nodes. An empty list is ignored. A node with a new name, host or port
    /// gets a new id; a node that is listed again gets the id that it had. From the 4097th id on,
    /// new nodes are ignored. A node that is missing in the list becomes
    /// [`NodeState::Removed`](super::NodeState::Removed) and is probed no more. The view and the
    /// events may change.
    pub fn set_nodes(&mut self, specs: Vec<NodeSpec>, now: Instant) {
        if specs.is_empty() {
            return;
        }
        let State { nodes, identity, events, .. } = &mut self.state;
        nodes.set_listed(specs, |name| identity.is_rejected(name), events, now);
        reassess(&mut self.state, now);
    }

    /// Holds writes until [`Self::resume`], because an operator said HOLD, as before a planned
    /// switchover: clients that want to write wait, for `failover_hold` at most. Nodes are probed
    /// as before. Nothing changes if writes are held so already.
    pub fn hold(&mut self, now: Instant) {
        operator::hold(&mut self.state, now);
    }

    /// Ends the operator's hold, after RESUME on the console; returns whether there was one. If so,
    /// every node is probed at once, and writes go to the primary again, if there is one; otherwise
    /// nothing changes.
    pub fn resume(&mut self, now: Instant) -> bool {
        operator::resume(&mut self.state, now)
    }

    /// Makes a node's system identifier and timeline those of the cluster, because an operator said
    /// ADOPT NODE, as after a restore or pg_upgrade. Every other node, unless it follows on that
    /// timeline, must join that history before it counts again.
    ///
    /// # Errors
    /// [`AdoptError`] when there is no such node, or no valid report of it. Nothing has changed.
    pub fn adopt(&mut self, id: NodeId, now: Instant) -> Result<(), AdoptError> {
        operator::adopt(&mut self.state, id, now)
    }

    /// Takes over what another process knows of this cluster for good. After an adoption there
    /// (`is_adopted`) it replaces what is known here, and the listed nodes that it names as
    /// rejected must join that history. Otherwise a higher timeline counts here too, if it is of
    /// the same data, and nodes that have joined there are no longer rejected here. Every node is
    /// probed at once.
    pub fn follow(&mut self, told: Remembered, is_adopted: bool, now: Instant) {
        operator::follow(&mut self.state, told, is_adopted, now);
    }

    // What goes out.

    /// Returns the next node whose probe is due by `now`, the lowest id first; `None` if none is.
    /// The probe counts as started, and its result must be given ([`Self::handle_report`],
    /// [`Self::handle_failure`]): the node is not probed again before.
    pub fn poll_probe(&mut self, now: Instant) -> Option<ProbeOrder> {
        probes::poll(&mut self.state, now)
    }

    /// Returns when [`Self::poll_probe`] next returns a node, unless something happens before: a
    /// time that has passed means at once. `None` while every listed node has a probe under way,
    /// and if none is listed. The driver calls again after each call that takes `&mut self`.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Instant> {
        probes::next_due(&self.state.nodes)
    }

    /// Takes the oldest event that was not taken yet; `None` if there is none. Events are kept
    /// until they are taken, in any number: the driver takes all of them after each call, for the
    /// log.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.state.events.pop()
    }

    /// Returns the newest view, for the workers. Its version tells whether it has changed.
    #[must_use]
    pub fn view(&self) -> Arc<View> {
        Arc::clone(&self.state.view)
    }

    /// Returns what is to be kept over a restart. It may change with each step that changes
    /// anything; the driver compares it with what was stored last, and stores it before anybody
    /// acts on the view.
    #[must_use]
    pub fn remembered(&self) -> Remembered {
        self.state.identity.remembered(&self.state.nodes)
    }

    /// Returns every node as the console (SHOW NODES) shows it, in the order of [`View::nodes`],
    /// removed ones included; ages are counted until `now`.
    #[must_use]
    pub fn details(&self, now: Instant) -> Vec<NodeDetail> {
        let State { nodes, samples, .. } = &self.state;
        nodes.iter().map(|(_, node)| node.detail(samples, now)).collect()
    }

    /// Returns the last 64 changes of primary that this process has seen, oldest first; empty if
    /// there was none. The first primary after the start is not a change, nor is one that comes
    /// back on its timeline.
    pub fn failovers(&self) -> impl Iterator<Item = &Failover> {
        self.state.history.iter()
    }
}
