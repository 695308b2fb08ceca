//! The task that serves HTTP.

use std::io;
use std::net::TcpListener;

use crate::admin::collect::Collector;
use crate::admin::http;

/// The task that serves HTTP: probes and metrics are answered to the end.
pub(super) struct Http {
    listener: Option<TcpListener>,
    collector: Collector,
    task: Option<tokio::task::JoinHandle<()>>,
}

impl Http {
    pub(super) const fn new(listener: Option<TcpListener>, collector: Collector) -> Self {
        Self { listener, collector, task: None }
    }

    /// Begins to serve, unless it does so already or HTTP is off.
    pub(super) fn serve(&mut self) -> io::Result<()> {
        if let Some(listener) = self.listener.take() {
            listener.set_nonblocking(true)?;
            let listener = tokio::net::TcpListener::from_std(listener)?;
            self.task = Some(tokio::spawn(http::serve(listener, self.collector.clone())));
        }
        Ok(())
    }

    /// Closes the listener; connections that were accepted go on.
    pub(super) async fn end(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
            // It ends by being aborted, and its listener with it.
            let _ = task.await;
        }
    }
}
