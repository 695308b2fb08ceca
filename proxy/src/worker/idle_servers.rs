//! Server connections that no client's turn drives: whether they live, and their end.

use std::time::Instant;

use pgimbal_pooler::ids::ServerId;
use pgimbal_pooler::server::server_turn::IdleMessages;

use super::state::State;

/// Whether an idle server connection may be used: the server has not closed it and has sent nothing
/// that makes it unusable. Reads what has come, and hands it to the core. Makes no system call
/// unless something has come.
pub(super) fn is_alive(state: &mut State, server: ServerId) -> bool {
    loop {
        let mut buffer = state.idle_buffer.lend();
        let read = state.servers.try_read_cached(server, &mut buffer);
        let alive = match &read {
            None => None,
            Some(Ok(Some(input))) => {
                let bytes = input.bytes(&buffer);
                match state.pooler.handle_idle_bytes(server, bytes) {
                    IdleMessages::Harmless(taken) => {
                        state.servers.keep(server, &bytes[taken as usize..], &mut state.free);
                        // Its end may stand behind it.
                        Some(true)
                    }
                    IdleMessages::Dead => Some(false),
                }
            }
            Some(Ok(None) | Err(_)) => Some(false),
        };
        state.idle_buffer.give_back(buffer);
        match alive {
            None => return true,
            Some(false) => return false,
            Some(true) => {}
        }
    }
}

/// Checks every idle server connection and closes the dead ones, so that the number of idle ones is
/// right. Called by the timers.
pub(super) fn remove_dead(state: &mut State, now: Instant) {
    let idle: Vec<ServerId> = state.pooler.idle_servers().collect();
    for server in idle {
        if !is_alive(state, server) {
            lose(state, server, now);
        }
    }
}

/// Closes a server connection that no client is linked to, and that cannot be used any more.
pub(super) fn lose(state: &mut State, server: ServerId, now: Instant) {
    remove(state, server, now);
    state.servers.drop_io(server);
}

/// Closes a server connection's socket at once, without Terminate. Its client, if it has one, is
/// woken and learns it in its own turn; otherwise the core is told here.
pub(super) fn cut(state: &mut State, server: ServerId) {
    state.servers.drop_io(server);
    match state.pooler.server(server).and_then(|server| server.session()) {
        Some(session) => state.clients.wake(session),
        None => remove(state, server, Instant::now()),
    }
}

fn remove(state: &mut State, server: ServerId, now: Instant) {
    state.plan.clear();
    // Nobody is linked to it, so nobody is told.
    let _ = state.pooler.handle_server_gone(server, now, &mut state.plan);
}
