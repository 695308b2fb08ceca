//! The task that serves HTTP.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;

use pgimbal_config::Config;
use tokio::sync::watch;

use crate::admin::collect::Collector;
use crate::admin::console::Console;
use crate::admin::http;
use crate::admin::page::Page;

/// The task that serves HTTP: probes, metrics and the page are answered to the end.
pub(super) struct Http {
    listener: Option<TcpListener>,
    shown: Shown,
    task: Option<tokio::task::JoinHandle<()>>,
}

/// What is shown over HTTP, and the configuration with the tokens of the page.
pub(super) struct Shown {
    pub(super) collector: Collector,
    pub(super) console: Arc<Console>,
    pub(super) config: watch::Receiver<Arc<Config>>,
}

impl Http {
    pub(super) const fn new(listener: Option<TcpListener>, shown: Shown) -> Self {
        Self { listener, shown, task: None }
    }

    /// Begins to serve, unless it does so already or HTTP is off.
    pub(super) fn serve(&mut self) -> io::Result<()> {
        if let Some(listener) = self.listener.take() {
            listener.set_nonblocking(true)?;
            let listener = tokio::net::TcpListener::from_std(listener)?;
            let Shown { collector, console, config } = &self.shown;
            let is_loopback = listener.local_addr()?.ip().is_loopback();
            let page =
                Page::new(collector.clone(), Arc::clone(console), config.clone(), is_loopback);
            self.task = Some(tokio::spawn(http::serve(listener, collector.clone(), page)));
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
