//! What of a cluster is shared with the other replicas and outlives all of them: its system
//! identifier and highest timeline, HOLD and RESUME, ADOPT and the nodes in quarantine.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pgimbal_pooler::topology::{NodeState, Remembered, SystemId, TimelineId, Topology};
use pgimbal_replicas::document::{ClusterFacts, Document, Stamp};
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;
use tracing::{info, warn};

use crate::facts::{Change, Facts};

/// Time for which the watcher waits for the store; a slower one must not keep clients from the new
/// primary.
const STORE_TIME: Duration = Duration::from_millis(200);

/// Time for which an operator waits for the store.
const OPERATOR_TIME: Duration = Duration::from_secs(5);

/// The facts of one cluster, and how far the topology and the document agree on them.
pub(super) struct Decisions {
    cluster: Arc<str>,
    facts: Facts,
    published: watch::Receiver<Arc<Document>>,
    /// The facts as they were followed last.
    seen: Option<ClusterFacts>,
    /// What the document says, as the topology was told.
    told: Remembered,
    adopted: Stamp,
    is_held: bool,
    /// Whether [`Self::follow`] was called: what it finds first is from before the start.
    has_begun: bool,
}

impl Decisions {
    /// Nothing is followed yet.
    pub(super) fn new(cluster: Arc<str>, facts: Facts) -> Self {
        let published = facts.document();
        Self {
            cluster,
            facts,
            published,
            seen: None,
            told: Remembered::default(),
            adopted: Stamp::default(),
            is_held: false,
            has_begun: false,
        }
    }

    /// Waits until the document is another one. Can be cancelled without loss.
    pub(super) async fn changed(&mut self) {
        if self.published.changed().await.is_err() {
            std::future::pending().await
        }
    }

    /// Tells the topology what the document says now.
    pub(super) fn follow(&mut self, topology: &mut Topology, now: Instant) {
        let document = Arc::clone(&self.published.borrow_and_update());
        let has_begun = std::mem::replace(&mut self.has_begun, true);
        let Some(cluster) = document.cluster(&self.cluster) else { return };
        if self.seen.as_ref() == Some(cluster) {
            return;
        }
        self.seen = Some(cluster.clone());
        let (told, adopted) = (told(cluster), adopted(cluster));
        if told != self.told || adopted != self.adopted {
            let is_adopted = adopted != self.adopted;
            (self.told, self.adopted) = (told.clone(), adopted);
            topology.follow(told, is_adopted, now);
        }
        if cluster.is_held() == self.is_held {
            return;
        }
        self.is_held = cluster.is_held();
        if self.is_held {
            topology.hold(now);
            let whence = if has_begun { "at another replica" } else { "before the start" };
            warn!(cluster = %self.cluster, "writes are held: an operator said HOLD {whence}; \
                RESUME ends it");
        } else {
            topology.resume(now);
            info!(cluster = %self.cluster, "an operator said RESUME at another replica");
        }
    }

    /// Shares what the topology has learned, when it has changed: before anybody acts on it, if the
    /// store is quick.
    pub(super) async fn share(&mut self, topology: &Topology) {
        let known = topology.remembered();
        if known == self.told {
            return;
        }
        let view = topology.view();
        let is_listed = |name: &str| {
            view.nodes.iter().any(|node| *node.name == *name && node.state != NodeState::Removed)
        };
        let joined = self.told.rejected.iter().filter(|name| !known.rejected.contains(name));
        let joined: Vec<Box<str>> = joined.filter(|name| is_listed(name)).cloned().collect();
        let change = self.facts.add(|document, by| {
            let cluster = document.cluster_mut(&self.cluster);
            if let Some(system) = known.system {
                cluster.see(system.0, known.timeline.map_or(0, |timeline| timeline.0));
            }
            for name in &joined {
                cluster.set_quarantined(name, false, by);
            }
        });
        self.told = known;
        // What could not be stored is tried again by the facts' own task, which logs it.
        let _ = timeout(STORE_TIME, self.facts.stored(change)).await;
    }

    /// Records HOLD or RESUME; the operator gets `answer` when the store has it, or could not be
    /// written.
    pub(super) fn set_hold<T: Send + 'static>(
        &mut self,
        is_held: bool,
        reply: oneshot::Sender<T>,
        answer: T,
    ) {
        let change = self.facts.add(|document, by| {
            document.cluster_mut(&self.cluster).set_hold(is_held, by);
        });
        self.is_held = is_held;
        self.answer(change, if is_held { "HOLD" } else { "RESUME" }, reply, answer);
    }

    /// Records ADOPT NODE, which the topology has carried out.
    pub(super) fn adopt<T: Send + 'static>(
        &mut self,
        topology: &Topology,
        reply: oneshot::Sender<T>,
        answer: T,
    ) {
        let (known, view) = (topology.remembered(), topology.view());
        let change = self.facts.add(|document, by| {
            let nodes = view.nodes.iter().filter(|node| node.state != NodeState::Removed);
            let nodes = nodes.map(|node| (&*node.name, known.rejected.contains(&node.name)));
            let (system, timeline) = (known.system, known.timeline);
            document.cluster_mut(&self.cluster).adopt(
                system.map_or(0, |system| system.0),
                timeline.map_or(0, |timeline| timeline.0),
                nodes,
                by,
            );
        });
        let document = self.facts.document();
        self.adopted = document.borrow().cluster(&self.cluster).map(adopted).unwrap_or_default();
        self.told = known;
        self.answer(change, "ADOPT NODE", reply, answer);
    }

    fn answer<T: Send + 'static>(
        &self,
        change: Change,
        command: &'static str,
        reply: oneshot::Sender<T>,
        answer: T,
    ) {
        let (facts, cluster) = (self.facts.clone(), Arc::clone(&self.cluster));
        tokio::spawn(async move {
            let stored = timeout(OPERATOR_TIME, facts.stored(change)).await;
            let cause = match stored {
                Ok(Ok(())) => None,
                Ok(Err(cause)) => Some(cause.to_string()),
                Err(_) => Some("the store is slow".to_owned()),
            };
            if let Some(cause) = cause {
                warn!(cluster = %cluster, "{command} is in force, but a restart of all replicas \
                    would forget it: {cause}");
            }
            // The operator may have gone.
            let _ = reply.send(answer);
        });
    }
}

/// What the document says of the cluster's data.
fn told(cluster: &ClusterFacts) -> Remembered {
    let history = cluster.history();
    Remembered {
        system: history.map(|history| history.system).filter(|system| *system != 0).map(SystemId),
        timeline: history
            .map(|history| history.timeline)
            .filter(|timeline| *timeline != 0)
            .map(TimelineId),
        rejected: cluster.quarantined().map(Into::into).collect(),
    }
}

/// The last ADOPT NODE that the document knows.
fn adopted(cluster: &ClusterFacts) -> Stamp {
    cluster.history().map(|history| history.adopted).unwrap_or_default()
}
