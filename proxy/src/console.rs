//! The console: databases `pgimbal` and `pgbouncer`, spoken to with any PostgreSQL client.
//!
//! Owns what an administrator may ask and how the answer looks; column names follow PgBouncer's
//! where the meaning is the same. Knows no pool: it asks the workers and the main task.

mod control;

use std::io;
use std::sync::Arc;

use pgimbal_config::Config;
use tokio::sync::watch;

use crate::collect::Collector;
use crate::login::Authenticated;

pub use control::{Control, ControlRequest, MainTaskGone, ReloadRefused, Reloaded};

/// What all sessions on the console share.
#[derive(Debug)]
pub struct Console {
    collector: Collector,
    config: watch::Receiver<Arc<Config>>,
    control: Control,
}

impl Console {
    /// A console that asks the workers through `collector` and the main task through `control`.
    #[must_use]
    pub fn new(
        collector: Collector,
        config: watch::Receiver<Arc<Config>>,
        control: Control,
    ) -> Self {
        Self { collector, config, control }
    }

    /// Serves one client, whose login was for the console, until it leaves.
    ///
    /// # Errors
    /// The connection's, and [`io::ErrorKind::InvalidData`] for what is no protocol.
    pub async fn serve(&self, client: Authenticated) -> io::Result<()> {
        let _ = client;
        Ok(())
    }

    /// Takes the counters once a minute, for the averages of SHOW STATS. Runs until it is dropped.
    pub async fn keep_averages(&self) {
        std::future::pending().await
    }
}
