//! Snapshots of a worker's state, for the console and the metrics.

use std::time::Instant;

use pgimbal_pooler::pool::stats::WorkerSnapshot;

use super::state::State;
use crate::admin::collect::{Detail, SnapshotRequest};

/// Answers a request for a snapshot: pools and counters, and with [`Detail::Everything`] also each
/// client, server connection and channel. A reply that nobody waits for any more is dropped.
pub(super) fn answer(state: &mut State, request: SnapshotRequest) {
    let now = Instant::now();
    let mut snapshot = WorkerSnapshot {
        pools: state.pooler.pool_snapshots(now),
        retired: state.pooler.retired_stats(),
        panics: state.panics,
        ..Default::default()
    };
    if request.detail == Detail::Everything {
        snapshot.clients = state.pooler.client_snapshots(now);
        for client in &mut snapshot.clients {
            let slot = client.slot as usize;
            client.address = state.clients.address(slot).unwrap_or_default().to_owned();
            client.generation = state.clients.generation(slot);
        }
        let servers = state.pooler.server_snapshots(now).into_iter();
        let servers = servers.map(|(id, mut server)| {
            if let Some(io) = state.servers.get(id) {
                server.address = io.address().to_string();
                server.generation = io.generation();
            }
            server
        });
        snapshot.servers = servers.collect();
        snapshot.listeners = state.pooler.listener_snapshots();
    }
    // Whoever asked may have gone.
    let _ = request.reply.send(snapshot);
}
