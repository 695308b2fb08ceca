//! Clusters: the tasks that probe the nodes, and the handle through which others learn of a
//! failover.
//!
//! This module owns the sockets, time and files; what the nodes' answers mean is decided in
//! [`pgimbal_pooler::topology`].

mod decisions;
mod look;
mod names;
pub(crate) mod probe;
mod prober;
mod shares;
mod spec;
mod status;
mod watcher;

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use pgimbal_config::Config;
use pgimbal_pooler::topology::{ProbeHint, View};
use thiserror::Error;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

use crate::credentials::CredentialManager;
use crate::directory::ClusterCounts;
use crate::facts::Facts;
use crate::tls::TlsError;
pub(crate) use look::NodeLook;
pub(crate) use spec::{ClusterSpec, PROBER, cluster_target, specs};
pub use status::{ClusterStatus, Counts, FailoverStatus, NodeStatus};
use watcher::{Request, ViewListener, Watcher};

/// Limit of hints that wait for a watcher. A hint says that something has changed, and one is
/// enough.
const MAX_HINTS: usize = 64;
/// Time limit of a watcher's answer. A watcher answers within one turn of its loop, and a stuck one
/// must not delay a scrape.
const ANSWER_TIME: Duration = Duration::from_secs(1);
/// Limit of console requests that wait for a watcher.
const REQUESTS: usize = 16;

/// The handle of all clusters of the configuration. Clones are cheap and share their state.
#[derive(Clone, Debug, Default)]
pub struct Clusters {
    inner: Arc<RwLock<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    listener: ViewListener,
    counts: ClusterCounts,
    credentials: CredentialManager,
    facts: Facts,
    clusters: BTreeMap<Arc<str>, Handle>,
}

/// The channels to a cluster's watcher, which ends when the last handle is dropped.
#[derive(Clone, Debug)]
struct Handle {
    requests: mpsc::Sender<Request>,
    probe_hints: mpsc::Sender<ProbeHint>,
    view: watch::Receiver<Arc<View>>,
}

/// The reason for which a console command for a cluster failed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum OperatorError {
    /// The configuration has no cluster of this name.
    #[error("there is no cluster \"{0}\"")]
    UnknownCluster(String),
    /// No cluster has a node of this name.
    #[error("there is no node \"{0}\"")]
    UnknownNode(String),
    /// Several clusters have a node of this name, so that it must be written `cluster.node`.
    #[error("several clusters have a node \"{0}\": say cluster.node")]
    AmbiguousNode(String),
    /// The cluster's watcher refused the command, for this reason; only ADOPT NODE of a node that
    /// has gone or has no valid report. Nothing has changed.
    #[error("{0}")]
    Refused(String),
    /// The watcher has ended, because pgimbal is shutting down or the cluster was removed.
    #[error("pgimbal is shutting down")]
    ShuttingDown,
}

/// The clusters of a configuration, with TLS towards their nodes set up. Preparing them may fail,
/// applying them ([`Clusters::reload`]) cannot, so that a reload that is refused changes nothing.
#[derive(Debug)]
pub struct PreparedClusters(Vec<ClusterSpec>);

impl PreparedClusters {
    /// Prepares every cluster of `config`.
    ///
    /// # Errors
    /// [`TlsError`] when TLS towards a cluster cannot be set up.
    pub fn new(config: &Config) -> Result<Self, TlsError> {
        Ok(Self(specs(config)?))
    }
}

impl Clusters {
    /// Begins to watch every cluster of `config`, with the passwords of `credentials` where they
    /// rotate; each cluster has a task of its own. `listener` is called from that task with the
    /// cluster's name and each new view, and must not block. `counts` are the effects of failovers
    /// that the workers count. Timelines and
    /// what operators decide are shared as `facts`. Must be called on the runtime that will run the tasks.
    ///
    /// # Errors
    /// [`TlsError`] when TLS towards a cluster cannot be set up.
    pub fn start(
        config: &Config,
        counts: &ClusterCounts,
        credentials: &CredentialManager,
        facts: &Facts,
        listener: impl Fn(&Arc<str>, &Arc<View>) + Send + Sync + 'static,
    ) -> Result<Self, TlsError> {
        let (listener, counts) = (ViewListener::new(listener), counts.clone());
        let (credentials, facts) = (credentials.clone(), facts.clone());
        let inner = Inner { listener, counts, credentials, facts, clusters: BTreeMap::new() };
        let clusters = Self { inner: Arc::new(RwLock::new(inner)) };
        clusters.reload(PreparedClusters::new(config)?);
        Ok(clusters)
    }

    /// Applies the clusters of a new configuration: starts, reconfigures and ends watchers. The
    /// state of clusters that stay is kept, an operator's hold too; their probers open new
    /// connections. Returns before the watchers have begun to follow it. Spawns tasks, so it is
    /// called on the runtime.
    pub fn reload(&self, clusters: PreparedClusters) {
        let PreparedClusters(specs) = clusters;
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        inner.clusters.retain(|name, _| specs.iter().any(|spec| spec.name == *name));
        for spec in specs {
            if let Some(handle) = inner.clusters.get(&spec.name) {
                let requests = handle.requests.clone();
                tokio::spawn(async move { requests.send(Request::Follow(Box::new(spec))).await });
                continue;
            }
            let name = Arc::clone(&spec.name);
            let (requests, from_console) = mpsc::channel(REQUESTS);
            let (probe_hints, from_workers) = mpsc::channel(MAX_HINTS);
            let shared = inner.counts.of(&name);
            let (credentials, facts) = (inner.credentials.clone(), inner.facts.clone());
            let watcher = Watcher::new(spec, inner.listener.clone(), shared, credentials, facts);
            let view = watcher.view();
            tokio::spawn(watcher.run(from_console, from_workers));
            inner.clusters.insert(name, Handle { requests, probe_hints, view });
        }
    }

    fn handle(&self, name: &str) -> Option<Handle> {
        let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        inner.clusters.get(name).cloned()
    }

    fn names(&self) -> Vec<Arc<str>> {
        let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        inner.clusters.keys().cloned().collect()
    }

    /// The current view of the cluster `name`, by which workers route transactions; `None` when
    /// there is no such cluster. It is of the moment, and does not wait for the watcher.
    #[must_use]
    pub fn view(&self, name: &str) -> Option<Arc<View>> {
        let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        inner.clusters.get(name).map(|handle| Arc::clone(&handle.view.borrow()))
    }

    /// Hands a hint to the cluster's watcher, so that it probes earlier. The hint is dropped when
    /// 64 hints wait, because the watcher then knows already, and when there is no such cluster.
    /// Workers call it when a server connection breaks or refuses; it never blocks.
    pub fn probe_hint(&self, name: &str, probe_hint: ProbeHint) {
        let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(handle) = inner.clusters.get(name) {
            let _ = handle.probe_hints.try_send(probe_hint);
        }
    }

    /// The status of every cluster, sorted by name, for the console and metrics. The watchers are
    /// asked one after the other; one that does not answer within a second is left out.
    pub async fn status(&self) -> Vec<ClusterStatus> {
        let mut all = Vec::new();
        for name in self.names() {
            let (reply, answer) = oneshot::channel();
            if self.ask(&name, Request::Status(reply)).await.is_ok()
                && let Ok(Ok(status)) = timeout(ANSWER_TIME, answer).await
            {
                all.push(status);
            }
        }
        all
    }

    /// Makes writes of a cluster wait until [`Self::resume`] (HOLD on the console), as before a
    /// planned switchover. They are held at all
    /// replicas, and after a restart too. Returns when the store has it, or could not be written,
    /// which is logged.
    ///
    /// # Errors
    /// [`OperatorError::UnknownCluster`] or [`OperatorError::ShuttingDown`].
    pub async fn hold(&self, name: &str) -> Result<(), OperatorError> {
        let (reply, answer) = oneshot::channel();
        self.ask(name, Request::Hold(reply)).await?;
        answer.await.map_err(|_| OperatorError::ShuttingDown)
    }

    /// Ends the operator's hold of a cluster, or of all clusters for `None` (RESUME). Returns the
    /// names of those that were held, sorted; empty when none was. Every node is probed at once.
    ///
    /// # Errors
    /// [`OperatorError::UnknownCluster`] or [`OperatorError::ShuttingDown`].
    pub async fn resume(&self, name: Option<&str>) -> Result<Vec<Arc<str>>, OperatorError> {
        let names = match name {
            Some(name) => vec![Arc::from(name)],
            None => self.names(),
        };
        let mut resumed = Vec::new();
        for name in names {
            let (reply, answer) = oneshot::channel();
            self.ask(&name, Request::Resume(reply)).await?;
            if answer.await.map_err(|_| OperatorError::ShuttingDown)? {
                resumed.push(name);
            }
        }
        Ok(resumed)
    }

    /// Makes the system identifier and timeline of a node those of its cluster (ADOPT NODE), as
    /// after a restore or pg_upgrade; every other node must join that history before it counts
    /// again. `node` is `cluster.node`, or the node's name alone when only one cluster has it.
    ///
    /// # Errors
    /// [`OperatorError::UnknownNode`] or [`OperatorError::AmbiguousNode`] for the name,
    /// [`OperatorError::Refused`] when the node's state does not allow it, and
    /// [`OperatorError::ShuttingDown`].
    pub async fn adopt(&self, node: &str) -> Result<(), OperatorError> {
        let (cluster, node) = self.find_node(node)?;
        let (reply, answer) = oneshot::channel();
        self.ask(&cluster, Request::Adopt(node, reply)).await?;
        answer.await.map_err(|_| OperatorError::ShuttingDown)?
    }

    /// Finds a cluster and the name of a node in it. Names may have dots, because an IP address
    /// has.
    fn find_node(&self, text: &str) -> Result<(Arc<str>, Box<str>), OperatorError> {
        let mut found = Vec::new();
        for name in self.names() {
            let Some(view) = self.view(&name) else { continue };
            let inside = text.strip_prefix(&*name).and_then(|rest| rest.strip_prefix('.'));
            let is_meant = |node: &str| node == text || Some(node) == inside;
            if let Some(node) = view.nodes.iter().find(|node| is_meant(&node.name)) {
                found.push((name, node.name.clone()));
            }
        }
        match found.len() {
            0 => Err(OperatorError::UnknownNode(text.to_owned())),
            1 => Ok(found.remove(0)),
            _ => Err(OperatorError::AmbiguousNode(text.to_owned())),
        }
    }

    async fn ask(&self, name: &str, request: Request) -> Result<(), OperatorError> {
        let unknown = || OperatorError::UnknownCluster(name.to_owned());
        let handle = self.handle(name).ok_or_else(unknown)?;
        handle.requests.send(request).await.map_err(|_| OperatorError::ShuttingDown)
    }
}

#[cfg(test)]
mod tests;
