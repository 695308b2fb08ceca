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

/// Asks worker `of` for an idle server connection of `pool`, by [`Message::Ask`].
pub(super) fn ask(worker: &Worker, pool: PoolId, of: WorkerId) {
    let pool = worker.state().pooler.pool_of(pool).key().clone();
    worker.send(of, Message::Ask { pool, by: worker.id() });
}

/// Asks worker `of`, or all others, by [`Message::AskForIdle`] to close idle server connections.
pub(super) fn ask_for_idle(worker: &Worker, of: Option<WorkerId>) {
    let all = 0..worker.common().workers.len() as u16;
    for to in all.map(WorkerId).filter(|to| *to != worker.id() && of.is_none_or(|of| of == *to)) {
        worker.send(to, Message::AskForIdle);
    }
}

/// Handles the request of worker `by` for an idle server connection of `pool`: the core orders it
/// to be given, now or when one is free. No effect when the configuration has no such pool any
/// more.
pub(super) fn asked(state: &mut State, pool: &PoolKey, by: WorkerId) {
    if let Some(pool) = pools::open(state, pool) {
        state.pooler.handle_migration_request(pool, by);
    }
}

/// Sends an idle server connection to worker `to`, as the core has ordered. A socket that cannot
/// leave this worker's runtime is closed, and its place in the pool is given back.
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

/// Takes over a server connection from another worker. When its pool is gone or the socket cannot
/// be registered, it is closed and its place in the pool given back.
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
