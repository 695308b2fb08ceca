//! What the console may ask of the main task.

use std::sync::Arc;

use pgimbal_config::Reload;
use pgimbal_pooler::server::renewal::{Renewal, Renewed};
use tokio::sync::{mpsc, oneshot};

/// A request to the main task.
#[derive(Debug)]
pub enum ControlRequest {
    /// Read the configuration again and apply what a reload may change.
    Reload(oneshot::Sender<Result<Reload, ReloadRefused>>),
    /// Drain as on SIGTERM, then end the process. Answered when draining has begun.
    Shutdown(oneshot::Sender<()>),
    /// Renew the connections of a database, or of all; each worker says how many.
    Renew(Option<Arc<str>>, Renewal, mpsc::UnboundedSender<Renewed>),
}

/// A configuration that was refused whole; the old one stays in force.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ReloadRefused(
    /// Every error found, one a line, with file, key and cause, and without secrets.
    pub String,
);

/// The main task has ended, so nobody does what was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("pgimbal is shutting down")]
pub struct MainTaskGone;

/// The way to the main task.
#[derive(Clone, Debug)]
pub struct Control(mpsc::Sender<ControlRequest>);

impl Control {
    /// A way to the task that receives from the other end of `requests`.
    #[must_use]
    pub const fn new(requests: mpsc::Sender<ControlRequest>) -> Self {
        Self(requests)
    }

    /// Reads the configuration again.
    ///
    /// # Errors
    /// [`MainTaskGone`]; [`ReloadRefused`] is in the answer.
    pub async fn reload(&self) -> Result<Result<Reload, ReloadRefused>, MainTaskGone> {
        let (reply, answer) = oneshot::channel();
        self.ask(ControlRequest::Reload(reply), answer).await
    }

    /// Begins to drain.
    ///
    /// # Errors
    /// [`MainTaskGone`].
    pub async fn shutdown(&self) -> Result<(), MainTaskGone> {
        let (reply, answer) = oneshot::channel();
        self.ask(ControlRequest::Shutdown(reply), answer).await
    }

    /// Renews the connections of a database, or of all. How many, when every worker has begun.
    ///
    /// # Errors
    /// [`MainTaskGone`].
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

    async fn ask<T>(
        &self,
        request: ControlRequest,
        answer: oneshot::Receiver<T>,
    ) -> Result<T, MainTaskGone> {
        self.0.send(request).await.map_err(|_| MainTaskGone)?;
        answer.await.map_err(|_| MainTaskGone)
    }
}
