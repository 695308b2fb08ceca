//! The start of a client's session, on the worker where it stays.

use std::rc::Rc;
use std::time::Instant;

use pgimbal_pooler::cancel::{CancelKey, LONG_SECRET, PeerId};
use pgimbal_wire::startup::ProtocolVersion;

use super::client::{Arriving, Client};
use super::client_task::ClientTask;
use super::migrant::{LoggedInClient, Migrant};
use super::pools;
use super::shared::Worker;
use crate::credentials::Counted;
use crate::transport::Transport;

/// Starts the session of a client that has logged in on another worker. A socket that cannot be
/// registered with this runtime is closed.
pub(super) fn migrate_in(worker: &Rc<Worker>, migrant: Migrant) {
    if let Ok(transport) = Transport::attach(migrant.parts) {
        start_session(worker, transport, migrant.client);
    }
}

/// Starts the session of a client that has logged in: opens its pool if needed, gives it a cancel
/// key (process id and secret are random), and spawns its task. The client is dropped when the
/// configuration has no such pool any more. The caller has to run the core's actions afterwards.
pub(super) fn start_session(worker: &Rc<Worker>, transport: Transport, client: LoggedInClient) {
    let mut state = worker.state_mut();
    let Some(pool) = pools::open(&mut state, &client.key) else { return };
    let secret: [u8; LONG_SECRET] = rand::random();
    let long = client.version >= ProtocolVersion::V3_2;
    let peers = &worker.common().peers;
    let session = state.pooler.handle_login(pool, client.came_at, Instant::now(), || {
        let process_id = rand::random();
        let key = if long {
            CancelKey::long(process_id, secret)
        } else {
            CancelKey::short(process_id, secret)
        };
        match peers.is_on() {
            true => key.with_peer(peers.peer_id().and_then(PeerId::new)),
            // All of it random, where nobody else has to know whose it is.
            false => key,
        }
    });
    let generation = client.generation.as_ref().map(Counted::generation);
    state.clients.add(session, client.address, generation);
    drop(state);
    let arriving =
        Arriving { parameters: client.parameters, pending_output: client.pending_output };
    let counted = (client.connected, client.generation);
    let client = Client::new(session, transport, client.residual, arriving, counted);
    tokio::task::spawn_local(ClientTask::new(Rc::clone(worker), client));
}
