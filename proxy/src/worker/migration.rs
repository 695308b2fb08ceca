//! Idle server connections that move from one worker to another.

use std::time::Instant;

use pgimbal_pooler::ids::{PoolId, ServerId, WorkerId};
use pgimbal_pooler::pool::PoolKey;

use super::message::{Message, Moved};
use super::pools;
use super::servers::{ServerIo, ServerSocket};
use super::shared::Worker;
use super::state::State;
use crate::transport::Transport;

/// Asks another worker for an idle server connection.
pub(super) fn ask(worker: &Worker, pool: PoolId, of: WorkerId) {
    let pool = worker.state().pooler.pool_of(pool).key().clone();
    worker.send(of, Message::Ask { pool, by: worker.id() });
}

/// Another worker asks for an idle server connection.
pub(super) fn asked(state: &mut State, pool: &PoolKey, by: WorkerId) {
    if let Some(pool) = pools::open(state, pool) {
        state.pooler.handle_migration_request(pool, by);
    }
}

/// Sends an idle server connection to another worker.
pub(super) fn give(worker: &Worker, server: ServerId, to: WorkerId) {
    let mut state = worker.state_mut();
    let Some(pool) = state.pooler.server(server).map(|server| server.pool()) else { return };
    let pool = state.pooler.pool_of(pool).key().clone();
    let Some(migration) = state.pooler.migrate_out(server, to) else { return };
    let Some(io) = state.servers.take(server) else { return };
    let ServerSocket { transport, address, target, cancel, generation } = io.into_socket();
    // A socket that cannot leave is closed; its place is given back with `migration`.
    if let Ok(parts) = transport.detach() {
        let moved = Moved { pool, migration, parts, address, target, cancel, generation };
        worker.send(to, Message::MigrateIn(Box::new(moved)));
    }
}

/// A server connection comes from another worker.
pub(super) fn migrate_in(state: &mut State, moved: Moved) {
    let Some(pool) = pools::open(state, &moved.pool) else { return };
    let Ok(transport) = Transport::attach(moved.parts) else { return };
    let now = Instant::now();
    let id = state.pooler.migrate_in(pool, moved.migration, now);
    let Moved { address, target, cancel, generation, .. } = moved;
    let socket = ServerSocket { transport, address, target, cancel, generation };
    state.servers.insert(id, ServerIo::new(socket, Vec::new()));
    state.pooler.finish_migration(id, now);
}
