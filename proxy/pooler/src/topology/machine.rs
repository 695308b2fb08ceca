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
    /// probe of each node is due at once, and writes are held until all of them have ended. There
    /// are no events of these nodes.
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
    /// node that has been removed meanwhile is ignored. The view, the events and the next probes
    /// may change.
    pub fn handle_report(&mut self, id: NodeId, sent_at: Instant, now: Instant, report: Report) {
        probes::handle_report(&mut self.state, id, sent_at, now, report);
    }

    /// Takes the failure of a node's probe. That of a node that has been removed meanwhile is
    /// ignored. The view, the events and the next probes may change.
    pub fn handle_failure(&mut self, id: NodeId, now: Instant, failure: ProbeFailure) {
        probes::handle_failure(&mut self.state, id, now, &failure);
    }

    /// Takes what a worker has noticed, because something may have changed: probes become due at
    /// once, but not more often than every 10 ms for each node.
    pub fn handle_probe_hint(&mut self, probe_hint: ProbeHint, now: Instant) {
        probes::handle_hint(&mut self.state, probe_hint, now);
    }

    /// Follows a new configuration after a reload: other options and another list of nodes, as in
    /// [`Self::set_nodes`]. What is known of nodes that stay is kept.
    pub fn reconfigure(&mut self, options: Options, nodes: Vec<NodeSpec>, now: Instant) {
        self.state.options = options;
        self.set_nodes(nodes, now);
    }

    /// Follows a new list of nodes. An empty list is ignored. A node with a new name, host or port
    /// gets a new id; a node that is listed again gets the id that it had. From the 4097th id on,
    /// new nodes are ignored.
    pub fn set_nodes(&mut self, specs: Vec<NodeSpec>, now: Instant) {
        if specs.is_empty() {
            return;
        }
        let State { nodes, identity, events, .. } = &mut self.state;
        nodes.set_listed(specs, |name| identity.is_rejected(name), events, now);
        reassess(&mut self.state, now);
    }

    /// Holds writes until [`Self::resume`], because an operator said HOLD, as before a planned
    /// switchover. Nothing changes if they are held so already.
    pub fn hold(&mut self, now: Instant) {
        operator::hold(&mut self.state, now);
    }

    /// Ends the operator's hold; returns whether there was one. Every node is probed at once.
    pub fn resume(&mut self, now: Instant) -> bool {
        operator::resume(&mut self.state, now)
    }

    /// Makes a node's system identifier and timeline those of the cluster, because an operator said
    /// ADOPT NODE, as after a restore or pg_upgrade. Every other node, answering or not, must join
    /// that history before it counts again: it may have a higher timeline, or be a primary too.
    ///
    /// # Errors
    /// [`AdoptError`] when there is no such node, or no valid report of it. Nothing has changed.
    pub fn adopt(&mut self, id: NodeId, now: Instant) -> Result<(), AdoptError> {
        operator::adopt(&mut self.state, id, now)
    }

    // What goes out.

    /// Returns the next node whose probe is due by `now`; `None` if none is. The probe counts as
    /// started, and its result must be given ([`Self::handle_report`], [`Self::handle_failure`]).
    pub fn poll_probe(&mut self, now: Instant) -> Option<ProbeOrder> {
        probes::poll(&mut self.state.nodes, now)
    }

    /// Returns when [`Self::poll_probe`] next returns a node, unless something happens before;
    /// `None` while every node has a probe under way.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Instant> {
        probes::next_due(&self.state.nodes)
    }

    /// Takes the oldest event that was not taken yet; `None` if there is none.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.state.events.pop()
    }

    /// Returns the newest view, for the workers. Its version tells whether it has changed.
    #[must_use]
    pub fn view(&self) -> Arc<View> {
        Arc::clone(&self.state.view)
    }

    /// Returns what is to be kept over a restart; the driver stores it before anybody acts on the
    /// view.
    #[must_use]
    pub fn remembered(&self) -> Remembered {
        self.state.identity.remembered(&self.state.nodes)
    }

    /// Returns every node as the console shows it, in the order of [`View::nodes`]; ages are
    /// counted until `now`.
    #[must_use]
    pub fn details(&self, now: Instant) -> Vec<NodeDetail> {
        let State { nodes, samples, .. } = &self.state;
        nodes.iter().map(|(_, node)| node.detail(samples, now)).collect()
    }

    /// Returns the last 64 changes of primary that this process has seen, oldest first.
    pub fn failovers(&self) -> impl Iterator<Item = &Failover> {
        self.state.history.iter()
    }
}
