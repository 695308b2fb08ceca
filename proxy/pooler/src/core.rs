//! The state of one worker: its owners, side by side.
//!
//! Each owner keeps its own invariants behind private fields. A step that touches several of them
//! is a function that takes the owners it names, or the whole [`Core`]; it stands in the folder of
//! what it is about. [`Pooler`](crate::pooler::Pooler) is the outside.

use std::time::Instant;

use crate::action::Actions;
use crate::cluster::Clusters;
use crate::ids::WorkerId;
use crate::pool::lockouts::Lockouts;
use crate::pool::pools::Pools;
use crate::server::prepared::StatementKey;
use crate::server::servers::Servers;
use crate::session::sessions::{SessionOptions, Sessions};
use crate::tables::Tables;

/// The owners of a worker's state.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) sessions: Sessions,
    pub(crate) servers: Servers,
    pub(crate) pools: Pools,
    pub(crate) clusters: Clusters,
    pub(crate) lockouts: Lockouts,
    pub(crate) tables: Tables,
    pub(crate) serials: Serials,
    pub(crate) actions: Actions,
    /// When the server connections were last looked over; `None` before the first time.
    pub(crate) looked_over: Option<Instant>,
}

impl Core {
    pub(crate) fn new(
        worker: WorkerId,
        workers: u16,
        key: StatementKey,
        options: SessionOptions,
    ) -> Self {
        Self {
            sessions: Sessions::new(options),
            servers: Servers::default(),
            pools: Pools::new(worker, workers),
            clusters: Clusters::default(),
            lockouts: Lockouts::default(),
            tables: Tables::new(worker, key),
            serials: Serials::default(),
            actions: Actions::default(),
            looked_over: None,
        }
    }
}

/// The serial numbers of sessions and server connections, which share them.
#[derive(Debug, Default)]
pub(crate) struct Serials {
    last: u32,
}

impl Serials {
    /// The next one: from 1 on, for 0 stands for "nobody" in what the console shows.
    pub(crate) fn next(&mut self) -> u32 {
        self.last = self.last.checked_add(1).unwrap_or(1);
        self.last
    }
}
