//! The state of one worker: its owners, side by side, so that a step can borrow several of them.

use std::sync::Arc;

use pgimbal_pooler::ids::WorkerId;
use pgimbal_pooler::plan::Plan;
use pgimbal_pooler::pooler::Pooler;
use pgimbal_pooler::server::prepared::StatementKey;
use pgimbal_pooler::session::sessions::SessionOptions;

use super::cancels::Cancels;
use super::clients::Clients;
use super::dead_peers::Rounds;
use super::inbox::SpareBuffer;
use super::outbox::FreeList;
use super::servers::Servers;
use crate::dial::Target;
use crate::directory::PoolDirectory;

/// The owners of a worker's state.
#[derive(Debug)]
pub(super) struct State {
    pub(super) pooler: Pooler,
    pub(super) plan: Plan,
    /// Given to the turn that runs.
    pub(super) buffer: SpareBuffer,
    /// For looking at idle server connections while the other buffer is in use.
    pub(super) idle_buffer: SpareBuffer,
    pub(super) free: FreeList,
    pub(super) servers: Servers,
    pub(super) clients: Clients,
    /// Where each pool's server connections lead, by pool.
    pub(super) targets: Vec<Arc<Target>>,
    pub(super) directory: Arc<PoolDirectory>,
    pub(super) panics: u64,
    pub(super) cancels: Cancels,
    /// Whose sockets are to be looked at.
    pub(super) rounds: Rounds,
}

impl State {
    pub(super) fn new(
        worker: WorkerId,
        workers: u16,
        key: StatementKey,
        directory: Arc<PoolDirectory>,
    ) -> Self {
        Self {
            pooler: Pooler::new(worker, workers, key, session_options(&directory)),
            plan: Plan::default(),
            buffer: SpareBuffer::default(),
            idle_buffer: SpareBuffer::default(),
            free: FreeList::default(),
            servers: Servers::default(),
            clients: Clients::default(),
            targets: Vec::new(),
            directory,
            panics: 0,
            cancels: Cancels::default(),
            rounds: Rounds::default(),
        }
    }
}

/// What holds for all sessions.
pub(super) fn session_options(directory: &PoolDirectory) -> SessionOptions {
    let clients = &directory.config().clients;
    SessionOptions {
        client_idle_timeout: clients.idle_timeout,
        client_stall_timeout: clients.stall_timeout,
    }
}
