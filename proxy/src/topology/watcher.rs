//! The watcher of a cluster: the task between the topology's state machine, the probers, the
//! workers and the operator.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use pgimbal_pooler::pool::shared::SharedCluster;
use pgimbal_pooler::topology::{
    Event, NodeId, NodeSpec, ProbeHint, ProbeOrder, Remembered, Topology, View,
};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::AbortHandle;
use tracing::{info, warn};

use super::OperatorError;
use super::decisions::Decisions;
use super::names;
use super::prober::{self, ProberMessage, Question};
use super::shares::ReadShares;
use super::spec::{ClusterSpec, NodeSource};
use super::status::{ClusterStatus, Counts, FailoverStatus, NodeStatus};
use crate::credentials::CredentialManager;
use crate::facts::Facts;

/// Limit of the changes of primary that are shown; the topology keeps as many.
const FAILOVERS: usize = 64;
/// Time after a change of primary within which effects on clients are counted for it.
const SETTLE_TIME: Duration = Duration::from_secs(5);
/// Longest sleep of the watcher when no time limit is due.
const IDLE: Duration = Duration::from_secs(1);

/// A request of the console or of a reload.
#[derive(Debug)]
pub(super) enum Request {
    /// Makes writes wait.
    Hold(oneshot::Sender<()>),
    /// Lets writes go on; answers whether they were held.
    Resume(oneshot::Sender<bool>),
    /// Makes a node's history the cluster's.
    Adopt(Box<str>, oneshot::Sender<Result<(), OperatorError>>),
    /// Asks for the cluster's status.
    Status(oneshot::Sender<ClusterStatus>),
    /// Applies a new configuration.
    Follow(Box<ClusterSpec>),
}

/// A change of primary, with the counts before it and, once they are settled, its effects.
#[derive(Debug)]
struct Change {
    failover: FailoverStatus,
    base: Counts,
    settles: Instant,
    settled: bool,
}

type ViewFn = dyn Fn(&Arc<str>, &Arc<View>) + Send + Sync;

/// Called with a cluster's name and each new view of it; must not block.
#[derive(Clone)]
pub(super) struct ViewListener(Arc<ViewFn>);

impl ViewListener {
    /// Wraps the function that is called.
    pub(super) fn new(listener: impl Fn(&Arc<str>, &Arc<View>) + Send + Sync + 'static) -> Self {
        Self(Arc::new(listener))
    }
}

impl Default for ViewListener {
    /// Nobody listens.
    fn default() -> Self {
        Self::new(|_, _| {})
    }
}

impl fmt::Debug for ViewListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ViewListener")
    }
}

/// A cluster's watcher.
pub(super) struct Watcher {
    spec: ClusterSpec,
    listener: ViewListener,
    shared: Arc<SharedCluster>,
    credentials: CredentialManager,
    topology: Topology,
    decisions: Decisions,
    publish: watch::Sender<Arc<View>>,
    probers: Vec<Option<mpsc::Sender<Question>>>,
    monitor: Vec<Option<bool>>,
    said: (mpsc::Sender<ProberMessage>, mpsc::Receiver<ProberMessage>),
    found: (mpsc::Sender<Vec<NodeSpec>>, mpsc::Receiver<Vec<NodeSpec>>),
    resolver: Option<AbortHandle>,
    hurry: Arc<Notify>,
    changes: VecDeque<Change>,
    changes_total: u64,
    shares: ReadShares,
    /// The counts when the primary was last known to be well.
    well: Counts,
}

impl Drop for Watcher {
    fn drop(&mut self) {
        if let Some(resolver) = &self.resolver {
            resolver.abort();
        }
    }
}

impl Watcher {
    /// Makes the watcher of the cluster `spec`, with what the facts say of it. It begins to watch
    /// in [`Self::run`]; the look-ups of its DNS name begin at once.
    pub(super) fn new(
        spec: ClusterSpec,
        listener: ViewListener,
        shared: Arc<SharedCluster>,
        credentials: CredentialManager,
        facts: Facts,
    ) -> Self {
        let now = Instant::now();
        let mut decisions = Decisions::new(Arc::clone(&spec.name), facts);
        let mut topology =
            Topology::new(spec.options.clone(), spec.listed(), Remembered::default(), now);
        decisions.follow(&mut topology, now);
        let (publish, _) = watch::channel(topology.view());
        let mut watcher = Self {
            spec,
            listener,
            shared,
            credentials,
            topology,
            decisions,
            publish,
            probers: Vec::new(),
            monitor: Vec::new(),
            said: mpsc::channel(64),
            found: mpsc::channel(1),
            resolver: None,
            hurry: Arc::default(),
            changes: VecDeque::new(),
            changes_total: 0,
            shares: ReadShares::default(),
            well: Counts::default(),
        };
        watcher.resolve();
        watcher
    }

    /// A channel with the cluster's current view, which changes with each new one.
    pub(super) fn view(&self) -> watch::Receiver<Arc<View>> {
        self.publish.subscribe()
    }

    /// Watches the cluster until the last handle is dropped.
    pub(super) async fn run(
        mut self,
        mut requests: mpsc::Receiver<Request>,
        mut probe_hints: mpsc::Receiver<ProbeHint>,
    ) {
        self.tell_workers();
        loop {
            self.step().await;
            let until = self.topology.next_timeout();
            let until = until.unwrap_or_else(|| Instant::now() + IDLE);
            tokio::select! {
                request = requests.recv() => match request {
                    Some(request) => self.serve(request),
                    None => return,
                },
                Some(probe_hint) = probe_hints.recv() => self.topology.handle_probe_hint(probe_hint, Instant::now()),
                Some(said) = self.said.1.recv() => self.hear(said),
                Some(nodes) = self.found.1.recv() => {
                    self.topology.set_nodes(nodes, Instant::now());
                }
                () = self.decisions.changed() => {
                    self.decisions.follow(&mut self.topology, Instant::now());
                }
                () = tokio::time::sleep_until(until.into()) => {}
            }
        }
    }

    /// Acts on what was learned: probes, log, facts, and the view last, so that it is stored before
    /// a worker acts on it.
    async fn step(&mut self) {
        self.ask();
        self.shares.sample(Instant::now(), || self.shared.reads());
        while let Some(event) = self.topology.poll_event() {
            self.tell(&event);
        }
        self.decisions.share(&self.topology).await;
        let view = self.topology.view();
        if self.publish.borrow().version != view.version {
            if view.primary().is_none() {
                self.hurry.notify_one();
            }
            self.publish.send_replace(view);
            self.tell_workers();
        }
    }

    fn tell_workers(&self) {
        (self.listener.0)(&self.spec.name, &self.topology.view());
    }

    /// Asks every node that is due, each through its own prober.
    fn ask(&mut self) {
        while let Some(order) = self.topology.poll_probe(Instant::now()) {
            let ProbeOrder { node, sent_at, scope } = order;
            let view = self.topology.view();
            let Some(place) = view.node(node) else { continue };
            let question = Question {
                target: self.spec.target(&place.host, place.port),
                limit: self.spec.probe_timeout,
                sent_at,
                scope,
            };
            let index = node.index();
            if self.probers.len() <= index {
                self.probers.resize(index + 1, None);
                self.monitor.resize(index + 1, None);
            }
            let (said, credentials) = (self.said.0.clone(), self.credentials.clone());
            let prober = self.probers[index].get_or_insert_with(|| {
                // A prober has one question at a time.
                let (questions, to_answer) = mpsc::channel(1);
                tokio::spawn(prober::run(node, credentials, to_answer, said));
                questions
            });
            if prober.try_send(question).is_err() {
                // It has panicked, which its task has told; the next question starts another.
                self.probers[index] = None;
                let failure = pgimbal_pooler::topology::ProbeFailure::TimedOut;
                self.topology.handle_failure(node, Instant::now(), failure);
            }
        }
    }

    fn hear(&mut self, said: ProberMessage) {
        let now = Instant::now();
        match said {
            ProberMessage::ProbeReply(node, sent_at, answer) => {
                self.hear_rights(node, answer.monitor);
                let before = self.topology.view().primary();
                self.topology.handle_report(node, sent_at, now, answer.report);
                let written_to = before.filter(|_| self.topology.view().primary() == before);
                if written_to.is_some_and(|epoch| epoch.node == node) {
                    self.well = Counts::of(&self.shared);
                }
            }
            ProberMessage::Failure(node, failure) => {
                self.topology.handle_failure(node, now, failure)
            }
            ProberMessage::Broke(node) => {
                self.topology.handle_probe_hint(ProbeHint::ProberDisconnected(node), now)
            }
        }
        self.settle(now);
    }

    fn hear_rights(&mut self, node: NodeId, monitor: bool) {
        let Some(known) = self.monitor.get_mut(node.index()) else { return };
        if known.replace(monitor) != Some(monitor) && !monitor {
            let view = self.topology.view();
            let name = view.node(node).map(|node| node.name.clone()).unwrap_or_default();
            let user = &self.spec.user;
            warn!(cluster = %self.spec.name, "the prober's role {user} has no pg_monitor on node \
                {name}: a standby's new timeline is seen late; GRANT pg_monitor TO {user}");
        }
    }

    fn serve(&mut self, request: Request) {
        let now = Instant::now();
        // Whoever asked may have left meanwhile.
        match request {
            Request::Hold(reply) => {
                self.topology.hold(now);
                self.decisions.set_hold(true, reply, ());
            }
            Request::Resume(reply) => {
                let was_held = self.topology.resume(now);
                self.decisions.set_hold(false, reply, was_held);
            }
            Request::Adopt(name, reply) => {
                let adopted = self.adopt(&name, now);
                match adopted {
                    Ok(()) => self.decisions.adopt(&self.topology, reply, Ok(())),
                    Err(error) => _ = reply.send(Err(error)),
                }
            }
            Request::Status(reply) => {
                let _ = reply.send(self.status(now));
            }
            Request::Follow(spec) => self.follow(*spec, now),
        }
    }

    fn adopt(&mut self, name: &str, now: Instant) -> Result<(), OperatorError> {
        let view = self.topology.view();
        let named = view.nodes.iter().rfind(|node| *node.name == *name);
        let node = named.ok_or_else(|| OperatorError::UnknownNode(name.to_owned()))?;
        let adopted = self.topology.adopt(node.id, now);
        adopted.map_err(|error| OperatorError::Refused(error.to_string()))
    }

    fn follow(&mut self, spec: ClusterSpec, now: Instant) {
        let same_source = spec.source == self.spec.source;
        let nodes = spec.listed();
        self.spec = spec;
        self.topology.reconfigure(self.spec.options.clone(), nodes, now);
        if !same_source {
            self.resolve();
        }
        // Open connections may be of another role or to another place. Without them it would go
        // unseen that a node starts anew.
        for (index, _) in std::mem::take(&mut self.probers).iter().enumerate() {
            let hint = ProbeHint::ProberDisconnected(NodeId(index as u16));
            self.topology.handle_probe_hint(hint, now);
        }
    }

    /// Starts to follow the cluster's DNS name, if it has one.
    fn resolve(&mut self) {
        if let Some(resolver) = self.resolver.take() {
            resolver.abort();
        }
        if let NodeSource::Name { dns, port } = &self.spec.source {
            let (hurry, found) = (Arc::clone(&self.hurry), self.found.0.clone());
            let task = tokio::spawn(names::follow(dns.clone(), *port, hurry, found));
            self.resolver = Some(task.abort_handle());
        }
    }

    fn tell(&mut self, event: &Event) {
        let cluster = &self.spec.name;
        if event.is_alarming() {
            warn!(cluster = %cluster, "{event}");
        } else {
            info!(cluster = %cluster, "{event}");
        }
        if matches!(event, Event::Switched { .. }) {
            self.record();
        }
    }

    fn record(&mut self) {
        let Some(failover) = self.topology.failovers().last() else { return };
        let now = Instant::now();
        let started_at =
            SystemTime::now().checked_sub(now.saturating_duration_since(failover.began));
        let failover = FailoverStatus {
            started_at: started_at.unwrap_or(SystemTime::UNIX_EPOCH),
            from: failover.from.clone(),
            to: failover.to.clone(),
            timeline: failover.timeline.0,
            duration: failover.lasted,
            why: failover.why.clone(),
            counts: Counts::default(),
        };
        self.settle(now);
        if self.changes.len() == FAILOVERS {
            self.changes.pop_front();
        }
        let base = self.well;
        let change = Change { failover, base, settles: now + SETTLE_TIME, settled: false };
        self.changes.push_back(change);
        self.changes_total += 1;
    }

    /// Takes the counts of the last change of primary while they still belong to it.
    fn settle(&mut self, now: Instant) {
        let Some(change) = self.changes.back_mut().filter(|change| !change.settled) else {
            return;
        };
        change.failover.counts = Counts::of(&self.shared).since(change.base);
        change.settled = now >= change.settles;
    }

    fn status(&mut self, now: Instant) -> ClusterStatus {
        self.settle(now);
        let view = self.topology.view();
        let reads = self.shared.reads();
        let nodes = self.topology.details(now).into_iter().zip(&view.nodes);
        let nodes = nodes.map(|(detail, node)| NodeStatus {
            detail,
            epoch: node.epoch,
            monitor: self.monitor.get(node.id.index()).copied().flatten(),
            reads: reads.get(node.id.index()).copied().unwrap_or_default(),
            reads_percent: self.shares.percent(node.id.index(), &reads),
        });
        ClusterStatus {
            name: Arc::clone(&self.spec.name),
            nodes: nodes.collect(),
            view: Arc::clone(&view),
            failovers: self.changes.iter().map(|change| change.failover.clone()).collect(),
            failovers_total: self.changes_total,
            counts: Counts::of(&self.shared),
        }
    }
}
