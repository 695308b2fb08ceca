//! The state of one worker, in separate fields so that a step can borrow several at once.

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

/// The state of one worker, which its tasks borrow in turn.
#[derive(Debug)]
pub(super) struct State {
    /// The core: sessions, pools and server connections without their sockets.
    pub(super) pooler: Pooler,
    /// The plan that the core fills in each call: bytes to write, and to whom.
    pub(super) plan: Plan,
    /// The read buffer of the turn that runs.
    pub(super) buffer: SpareBuffer,
    /// A second read buffer, for idle server connections while the first is in use.
    pub(super) idle_buffer: SpareBuffer,
    /// Spare buffers for inboxes and outboxes.
    pub(super) free: FreeList,
    /// The sockets of server connections.
    pub(super) servers: Servers,
    /// Wakers, addresses and generations of clients.
    pub(super) clients: Clients,
    /// The target of each pool's server connections, by index of the pool.
    pub(super) targets: Vec<Arc<Target>>,
    /// The configuration in force, with the counts that all workers share.
    pub(super) directory: Arc<PoolDirectory>,
    /// Number of clients' tasks that have panicked since the start.
    pub(super) panics: u64,
    /// Cancel requests that are being sent to servers.
    pub(super) cancels: Cancels,
    /// The clients whose sockets are to be checked for reading.
    pub(super) rounds: Rounds,
}

impl State {
    /// Makes the empty state of `worker`, one of `workers`, with the secret `key` for names of
    /// statements.
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

/// The options of the configuration that hold for all sessions: `client_idle_timeout` and
/// `client_stall_timeout`.
pub(super) fn session_options(directory: &PoolDirectory) -> SessionOptions {
    let clients = &directory.config().clients;
    SessionOptions {
        client_idle_timeout: clients.idle_timeout,
        client_stall_timeout: clients.stall_timeout,
    }
}
