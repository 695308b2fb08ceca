//! The machine: a cluster's nodes, what is known of them, and the view that follows.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pgimbal_config::Host;

use super::decide::SuspectedSplitBrain;
use super::event::Event;
use super::history::{Failover, Interruption};
use super::lag::Samples;
use super::node::{Health, LastReport, Node, NodeDetail};
use super::position::{SystemId, TimelineId};
use super::report::{ProbeFailure, ProbeHint, Report, Role};
use super::view::{Epoch, HoldReason, NodeId, View, Writes};

/// Where a node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeSpec {
    /// Its name; the address when it comes from a DNS name.
    pub name: Box<str>,
    /// Its host.
    pub host: Host,
    /// Its port.
    pub port: u16,
    /// Whether it may ever be written to.
    pub candidate: bool,
}

impl NodeSpec {
    /// Whether both mean the same place, so that what is known of one holds for the other.
    fn is_place_of(&self, other: &Self) -> bool {
        self.name == other.name && self.host == other.host && self.port == other.port
    }
}

/// How a cluster is watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// From one probe of a node to the next while all is well.
    pub probe_interval: Duration,
    /// How long clients wait for a primary.
    pub failover_hold: Duration,
    /// How many bytes a standby that is read from may be behind.
    pub max_lag_bytes: Option<u64>,
    /// How long a standby that is read from may be behind.
    pub max_lag: Option<Duration>,
}

/// What outlives the process, so that an old primary is not believed after a restart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Remembered {
    /// Whose data the cluster has.
    pub system: Option<SystemId>,
    /// The highest timeline ever seen.
    pub timeline: Option<TimelineId>,
    /// The nodes that have not joined the history that an operator has adopted.
    pub rejected: Vec<Box<str>>,
}

/// Node ids have 16 bits; a cluster whose DNS name has led to so many addresses needs a restart.
const MAX_NODES: usize = 4096;

/// A cluster.
#[derive(Debug)]
pub struct Topology {
    pub(super) options: Options,
    pub(super) nodes: Vec<Node>,
    pub(super) remembered: Remembered,
    /// Every node has answered or failed once, so that no higher timeline is merely late.
    pub(super) settled: bool,
    pub(super) operator_hold: bool,
    pub(super) suspected: Option<SuspectedSplitBrain>,
    /// The last epoch that was written to.
    pub(super) epoch: Option<Epoch>,
    pub(super) interruption: Option<Interruption>,
    pub(super) samples: Samples,
    /// Clients are known to wait until then at the longest.
    pub(super) waiters_until: Option<Instant>,
    pub(super) history: VecDeque<Failover>,
    pub(super) events: VecDeque<Event>,
    pub(super) view: Arc<View>,
}

impl Topology {
    /// A cluster of which nothing is known but what an earlier process remembered.
    #[must_use]
    pub fn new(
        options: Options,
        nodes: Vec<NodeSpec>,
        remembered: Remembered,
        now: Instant,
    ) -> Self {
        let writes = Writes::Held(HoldReason::Unknown);
        let mut topology = Self {
            options,
            nodes: Vec::new(),
            remembered,
            settled: false,
            operator_hold: false,
            suspected: None,
            epoch: None,
            interruption: None,
            samples: Samples::default(),
            waiters_until: None,
            history: VecDeque::new(),
            events: VecDeque::new(),
            view: Arc::new(View { version: 0, nodes: Vec::new(), writes }),
        };
        topology.set_nodes(nodes, now);
        topology.events.clear();
        topology
    }

    /// Follows a new configuration; what is known of nodes that stay is kept.
    pub fn reconfigure(&mut self, options: Options, nodes: Vec<NodeSpec>, now: Instant) {
        self.options = options;
        self.set_nodes(nodes, now);
    }

    /// Follows a new set of nodes. An empty one says nothing: the last stays. Ids are never used
    /// again for another place; a node that comes back to its place has its old one.
    pub fn set_nodes(&mut self, specs: Vec<NodeSpec>, now: Instant) {
        if specs.is_empty() {
            return;
        }
        for node in &mut self.nodes {
            let listed = specs.iter().find(|spec| spec.is_place_of(&node.spec));
            if listed.is_none() && !node.removed {
                self.events.push_back(Event::Removed { node: node.spec.name.clone() });
            }
            if let Some(spec) = listed {
                node.spec.candidate = spec.candidate;
                if node.removed {
                    self.events.push_back(Event::Added { node: node.spec.name.clone() });
                    node.come_back(now);
                }
            }
            node.removed = listed.is_none();
        }
        for spec in specs {
            let known = self.nodes.iter().any(|node| node.spec.is_place_of(&spec));
            if !known && self.nodes.len() < MAX_NODES {
                self.events.push_back(Event::Added { node: spec.name.clone() });
                let rejected = self.remembered.rejected.contains(&spec.name);
                self.nodes.push(Node { rejected, ..Node::new(spec, now) });
            }
        }
        self.reassess(now);
    }

    /// A node has answered a probe that was sent at `sent_at`.
    pub fn handle_report(&mut self, id: NodeId, sent_at: Instant, now: Instant, report: Report) {
        let Some(node) = self.nodes.get_mut(id.index()) else { return };
        if node.removed {
            return;
        }
        let report = node.with_highest_timeline(report);
        let before = node.last_report.replace(LastReport { report, sent_at, at: now });
        let name = node.spec.name.clone();
        if matches!(std::mem::replace(&mut node.health, Health::Up), Health::Down(_)) {
            self.events.push_back(Event::Answers { node: name.clone() });
        }
        if report.is_primary() && before.is_some_and(|before| !before.report.is_primary()) {
            self.events.push_back(Event::Promoted { node: name, timeline: report.timeline });
        }
        self.learn();
        self.take_sample_of(id);
        self.reassess(now);
        // What was learned decides how soon it is asked again.
        self.finish_probe(id, now, None);
    }

    /// A probe of a node has failed.
    pub fn handle_failure(&mut self, id: NodeId, now: Instant, failure: ProbeFailure) {
        let Some(node) = self.nodes.get_mut(id.index()) else { return };
        if node.removed {
            return;
        }
        let name = || node.spec.name.clone();
        let before = node.health.clone();
        node.health = match &failure {
            ProbeFailure::ChangedRole => node.health.clone(),
            ProbeFailure::ProbeRefused(code) => {
                if !matches!(before, Health::ProbeRefused { code: known, .. } if known == *code) {
                    self.events.push_back(Event::ProbeRefused { node: name(), code: *code });
                }
                Health::ProbeRefused { code: *code, believed: node.health.is_believed() }
            }
            failure => {
                if !matches!(before, Health::Down(_)) {
                    let why = failure.to_string().into();
                    self.events.push_back(Event::Silent { node: name(), why });
                }
                Health::Down(failure.clone())
            }
        };
        self.reassess(now);
        self.finish_probe(id, now, Some(&failure));
    }

    /// Somebody says that something has changed.
    pub fn handle_probe_hint(&mut self, probe_hint: ProbeHint, now: Instant) {
        match probe_hint {
            ProbeHint::ConnectionBroke(id)
            | ProbeHint::DialFailed(id)
            | ProbeHint::ReadOnly(id)
            | ProbeHint::HotStandbyChanged(id) => self.expedite(id, now),
            ProbeHint::WaitersNeedPrimary => {
                let known = self.is_hurried(now);
                self.waiters_until = Some(now + self.options.failover_hold);
                if !known && self.is_hurried(now) {
                    self.expedite_all(now);
                }
            }
        }
    }

    /// What the workers act on.
    #[must_use]
    pub fn view(&self) -> Arc<View> {
        Arc::clone(&self.view)
    }

    /// What is to be kept over a restart.
    #[must_use]
    pub fn remembered(&self) -> Remembered {
        let rejected = self.nodes.iter().filter(|node| node.rejected && !node.removed);
        let rejected = rejected.map(|node| node.spec.name.clone()).collect();
        Remembered { rejected, ..self.remembered.clone() }
    }

    /// What has happened since the last call, in order.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Every node as the console shows it.
    #[must_use]
    pub fn details(&self, now: Instant) -> Vec<NodeDetail> {
        self.nodes.iter().map(|node| node.detail(&self.samples, now)).collect()
    }

    /// The changes of primary, oldest first.
    pub fn failovers(&self) -> impl Iterator<Item = &Failover> {
        self.history.iter()
    }

    /// Evaluates everything anew after something was learned.
    pub(super) fn reassess(&mut self, now: Instant) {
        let asked = |node: &Node| node.removed || node.health != Health::Unknown;
        self.settled |= !self.nodes.is_empty() && self.nodes.iter().all(asked);
        self.learn();
        let writes = self.decide(now);
        self.evaluate_nodes(now);
        self.publish(writes);
    }

    fn learn(&mut self) {
        self.learn_system();
        self.learn_timeline();
    }

    /// Takes the position of a node that may be written to: lag is measured by it.
    pub(super) fn take_sample_of(&mut self, id: NodeId) {
        if !self.may_write(id) {
            return;
        }
        let last_report = self.nodes.get(id.index()).and_then(|node| node.last_report);
        if let Some(LastReport { report, sent_at, .. }) = last_report
            && let Role::Primary { flush, .. } = report.role
        {
            self.samples.take(report.timeline, sent_at, flush);
        }
    }

    fn publish(&mut self, writes: Writes) {
        let nodes: Vec<_> =
            (0..).zip(&self.nodes).map(|(id, node)| node.view(NodeId(id))).collect();
        if nodes != self.view.nodes || writes != self.view.writes {
            let version = self.view.version + 1;
            self.view = Arc::new(View { version, nodes, writes });
        }
    }
}
