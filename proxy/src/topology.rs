//! Clusters: who asks the nodes what they are, and who is told.
//!
//! Owns sockets, time and files of this; what the answers mean is decided in
//! [`pgimbal_pooler::topology`].

mod cluster_file;
mod look;
mod names;
pub(crate) mod probe;
mod prober;
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
use crate::tls::TlsError;
pub(crate) use look::Looked;
pub(crate) use spec::{ClusterSpec, specs};
pub use status::{ClusterStatus, Counts, FailoverStatus, NodeStatus};
use watcher::{Request, ViewListener, Watcher};

/// Hints that may wait for a watcher. They say that something has changed, and one says it all.
const NUDGES: usize = 64;
/// A watcher answers within a turn of its loop; one that does not must not keep a scrape waiting.
const ANSWER_TIME: Duration = Duration::from_secs(1);
/// Requests of the console that may wait.
const REQUESTS: usize = 16;

/// Every cluster of the configuration; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Clusters {
    inner: Arc<RwLock<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    listener: ViewListener,
    counts: ClusterCounts,
    credentials: CredentialManager,
    clusters: BTreeMap<Arc<str>, Handle>,
}

/// The way to a cluster's watcher. The watcher ends when it is dropped.
#[derive(Clone, Debug)]
struct Handle {
    requests: mpsc::Sender<Request>,
    probe_hints: mpsc::Sender<ProbeHint>,
    view: watch::Receiver<Arc<View>>,
}

/// Why the console's wish is not fulfilled.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum OperatorError {
    /// No cluster has this name.
    #[error("there is no cluster \"{0}\"")]
    UnknownCluster(String),
    /// No node has this name.
    #[error("there is no node \"{0}\"")]
    UnknownNode(String),
    /// Several clusters have a node of this name.
    #[error("several clusters have a node \"{0}\": say cluster.node")]
    AmbiguousNode(String),
    /// The cluster's watcher says no.
    #[error("{0}")]
    Refused(String),
    /// pgimbal is shutting down.
    #[error("pgimbal is shutting down")]
    Gone,
}

impl Clusters {
    /// Begins to watch every cluster of `config`, with the passwords of `credentials` where they rotate.
    /// `listener` is called from its task with a cluster's name and each new view, and must not
    /// block. Must be called on the runtime that will do it.
    ///
    /// # Errors
    /// [`TlsError`] when TLS towards a cluster cannot be set up.
    pub fn start(
        config: &Config,
        counts: &ClusterCounts,
        credentials: &CredentialManager,
        listener: impl Fn(&Arc<str>, &Arc<View>) + Send + Sync + 'static,
    ) -> Result<Self, TlsError> {
        let (listener, counts) = (ViewListener(Arc::new(listener)), counts.clone());
        let credentials = credentials.clone();
        let inner = Inner { listener, counts, credentials, clusters: BTreeMap::new() };
        let clusters = Self { inner: Arc::new(RwLock::new(inner)) };
        clusters.follow(specs(config)?);
        Ok(clusters)
    }

    /// Follows a new configuration. What was seen of clusters that stay is kept.
    ///
    /// # Errors
    /// [`TlsError`] when TLS towards a cluster cannot be set up; nothing is changed then.
    pub fn reload(&self, config: &Config) -> Result<(), TlsError> {
        self.follow(specs(config)?);
        Ok(())
    }

    fn follow(&self, specs: Vec<ClusterSpec>) {
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
            let (probe_hints, from_workers) = mpsc::channel(NUDGES);
            let shared = inner.counts.of(&name);
            let watcher =
                Watcher::new(spec, inner.listener.clone(), shared, inner.credentials.clone());
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

    /// A cluster as it is now.
    #[must_use]
    pub fn view(&self, name: &str) -> Option<Arc<View>> {
        let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        inner.clusters.get(name).map(|handle| Arc::clone(&handle.view.borrow()))
    }

    /// Says that something has changed. When so many say so that this does not fit, it is known.
    pub fn probe_hint(&self, name: &str, probe_hint: ProbeHint) {
        let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(handle) = inner.clusters.get(name) {
            let _ = handle.probe_hints.try_send(probe_hint);
        }
    }

    /// Every cluster as people see it.
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

    /// Writes of a cluster wait until [`Self::resume`].
    ///
    /// # Errors
    /// [`OperatorError`].
    pub async fn hold(&self, name: &str) -> Result<(), OperatorError> {
        let (reply, answer) = oneshot::channel();
        self.ask(name, Request::Hold(reply)).await?;
        answer.await.map_err(|_| OperatorError::Gone)
    }

    /// Ends the hold of a cluster, or of all; the names of those that were held.
    ///
    /// # Errors
    /// [`OperatorError`].
    pub async fn resume(&self, name: Option<&str>) -> Result<Vec<Arc<str>>, OperatorError> {
        let names = match name {
            Some(name) => vec![Arc::from(name)],
            None => self.names(),
        };
        let mut resumed = Vec::new();
        for name in names {
            let (reply, answer) = oneshot::channel();
            self.ask(&name, Request::Resume(reply)).await?;
            if answer.await.map_err(|_| OperatorError::Gone)? {
                resumed.push(name);
            }
        }
        Ok(resumed)
    }

    /// The identifier and timeline of a node become its cluster's. `node` is `cluster.node`, or
    /// the node alone when only one cluster has it.
    ///
    /// # Errors
    /// [`OperatorError`].
    pub async fn adopt(&self, node: &str) -> Result<(), OperatorError> {
        let (cluster, node) = self.find_node(node)?;
        let (reply, answer) = oneshot::channel();
        self.ask(&cluster, Request::Adopt(node, reply)).await?;
        answer.await.map_err(|_| OperatorError::Gone)?
    }

    /// A cluster and a node's name in it. Names may have dots: an address has.
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
        handle.requests.send(request).await.map_err(|_| OperatorError::Gone)
    }
}

#[cfg(test)]
mod tests;
