//! The console's requests to the main task.

use std::sync::Arc;

use pgimbal_config::ReloadChanges;
use pgimbal_pooler::cluster::explain::ExplainedRoute;
use pgimbal_pooler::server::renewal::{Renewal, Renewed};
use tokio::sync::{mpsc, oneshot};

/// A request of the console to the main task, with the channel for its answer.
#[derive(Debug)]
pub enum ControlRequest {
    /// Reads the configuration again and applies the options that a reload may change.
    Reload(oneshot::Sender<Result<ReloadChanges, ReloadRefused>>),
    /// Drains at this pace, then ends the process. Answered when draining has begun.
    Shutdown(Pace, oneshot::Sender<()>),
    /// Renews the connections of a database, or of all databases for `None`. Each worker answers
    /// with its numbers; the channel closes after the last.
    Renew(Option<Arc<str>>, Renewal, mpsc::UnboundedSender<Renewed>),
    /// Explains where a text would go. Each worker answers for its pools; the channel closes after
    /// the last.
    ExplainRoute(Arc<[u8]>, mpsc::UnboundedSender<Vec<ExplainedRoute>>),
}

/// How fast a process lets its clients go before it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// SHUTDOWN: no clients are accepted any more, those between transactions are closed at once,
    /// the others have `shutdown_grace`.
    Quick,
    /// SHUTDOWN WAIT and SIGTERM: clients are accepted for `drain_delay`, and then closed one by
    /// one within `shutdown_grace`, at moments that their pools hide.
    Unnoticed,
}

/// A reload that was refused as a whole; the old configuration stays in force.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ReloadRefused(
    /// Every error of the configuration, one on each line, with its origin, key and cause and
    /// without secrets.
    pub String,
);

/// The main task has ended, because the process is shutting down; the console answers 57P01.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("pgimbal is shutting down")]
pub struct MainTaskGone;

/// The handle through which the main task receives requests.
#[derive(Clone, Debug)]
pub struct Control(mpsc::Sender<ControlRequest>);

impl Control {
    /// Makes a handle to the task that receives from the other end of `requests`.
    #[must_use]
    pub const fn new(requests: mpsc::Sender<ControlRequest>) -> Self {
        Self(requests)
    }

    /// Reads the configuration again (RELOAD), as SIGHUP does, and waits until it is in force. The
    /// inner result says which keys changed, or why the configuration was refused as a whole; the
    /// old one stays in force then.
    ///
    /// # Errors
    /// [`MainTaskGone`] when the process is shutting down.
    pub async fn reload(&self) -> Result<Result<ReloadChanges, ReloadRefused>, MainTaskGone> {
        let (reply, answer) = oneshot::channel();
        self.ask(ControlRequest::Reload(reply), answer).await
    }

    /// Begins to drain (SHUTDOWN) at this pace; then the process ends. Returns when the main task
    /// has taken the request. A process that drains already goes on at the faster pace.
    ///
    /// # Errors
    /// [`MainTaskGone`] when the main task has ended.
    pub async fn shutdown(&self, pace: Pace) -> Result<(), MainTaskGone> {
        let (reply, answer) = oneshot::channel();
        self.ask(ControlRequest::Shutdown(pace, reply), answer).await
    }

    /// Renews the connections of a database, or of all databases for `None` (RECONNECT and KILL, by
    /// `how`). Returns the numbers of clients and server connections concerned, of all workers,
    /// when every worker has begun; zero for an unknown database.
    ///
    /// # Errors
    /// [`MainTaskGone`] when the process is shutting down.
    pub async fn renew(
        &self,
        database: Option<Box<str>>,
        how: Renewal,
    ) -> Result<Renewed, MainTaskGone> {
        let (tell, mut told) = mpsc::unbounded_channel();
        let request = ControlRequest::Renew(database.map(Arc::from), how, tell);
        self.0.send(request).await.map_err(|_| MainTaskGone)?;
        let mut all = Renewed::default();
        while let Some(Renewed { clients, servers }) = told.recv().await {
            all.clients += clients;
            all.servers += servers;
        }
        Ok(all)
    }

    /// Explains where a text would go now that a new session sends (EXPLAIN ROUTE), for each
    /// database and user whose pool has replicas, in the order of their names.
    ///
    /// # Errors
    /// [`MainTaskGone`] when the process is shutting down.
    pub async fn explain_route(&self, text: &str) -> Result<Vec<ExplainedRoute>, MainTaskGone> {
        let (tell, mut told) = mpsc::unbounded_channel();
        let request = ControlRequest::ExplainRoute(text.as_bytes().into(), tell);
        self.0.send(request).await.map_err(|_| MainTaskGone)?;
        let mut all = Vec::new();
        while let Some(routes) = told.recv().await {
            all.extend(routes);
        }
        all.sort();
        all.dedup_by(|next, one| (&next.database, &next.user) == (&one.database, &one.user));
        Ok(all)
    }

    async fn ask<T>(
        &self,
        request: ControlRequest,
        answer: oneshot::Receiver<T>,
    ) -> Result<T, MainTaskGone> {
        self.0.send(request).await.map_err(|_| MainTaskGone)?;
        answer.await.map_err(|_| MainTaskGone)
    }
}
