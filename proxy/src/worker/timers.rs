//! The task that runs a worker's timers.

use std::rc::Rc;
use std::time::Instant;

use pgimbal_pooler::pool::timers::QUIET_TICK;

use super::actions::run_actions;
use super::shared::Worker;
use super::state::State;
use super::{dead_peers, idle_servers};

/// Runs the worker's timers until its thread ends: the core's timeouts at the interval that the
/// core wants, the check of idle server connections once per [`QUIET_TICK`], and the rounds of
/// [`dead_peers`].
pub(super) async fn run(worker: Rc<Worker>) {
    let mut looked_at_idle = Instant::now();
    loop {
        let pause = worker.state().pooler.timeout_interval();
        if !worker.clock().wait(pause).await {
            // Something has come up that cannot wait so long.
            continue;
        }
        let now = Instant::now();
        {
            let mut state = worker.state_mut();
            if now >= looked_at_idle + QUIET_TICK {
                looked_at_idle = now;
                idle_servers::remove_dead(&mut state, now);
            }
            state.pooler.handle_timeout(now);
            look_whether_peers_read(&mut state, now);
        }
        run_actions(&worker);
    }
}

/// Begins a round of [`dead_peers`] when one is due: checks the server connections, and wakes the
/// tasks of clients that are to check their own sockets.
fn look_whether_peers_read(state: &mut State, now: Instant) {
    if !state.rounds.is_due(now) {
        return;
    }
    let user_timeout = dead_peers::user_timeout(&state.directory);
    let clients = state.rounds.begin(now, user_timeout);
    state.servers.look_whether_they_read(user_timeout);
    for client in clients {
        state.clients.wake(client);
    }
}
