//! One client's task: moves bytes between its socket and its server connection as the core says.
//!
//! The future is small, because there are many; it has no await and holds no buffer between turns.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Instant;

use super::actions::run_actions;
use super::client::{Client, Stage};
use super::shared::Worker;
use super::state::State;
use super::turn::{Step, Turn};
use super::{lifecycle, serving};

/// Limit of reads in one turn of a client in each direction, so that other clients get their turns.
const BUFFERS_PER_TURN: usize = 4;

/// The task of one client: a future that takes turns until the session is over. It is woken by its
/// socket, by its server connection's socket, and by
/// [`Clients::wake`](super::clients::Clients::wake).
#[derive(Debug)]
pub(super) struct ClientTask {
    worker: Rc<Worker>,
    client: Client,
}

impl ClientTask {
    /// Makes the task of `client`, whose session exists; it must be spawned on the worker's
    /// runtime.
    pub(super) const fn new(worker: Rc<Worker>, client: Client) -> Self {
        Self { worker, client }
    }
}

impl Future for ClientTask {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        let over = {
            let mut state = this.worker.state_mut();
            this.client.set_in_turn(true);
            let over = take_turn(&mut this.client, &mut state, cx);
            this.client.set_in_turn(false);
            over
        };
        run_actions(&this.worker);
        if over { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl Drop for ClientTask {
    /// Ends the session if it is not over, because the task has panicked or the worker stops.
    fn drop(&mut self) {
        if matches!(self.client.stage(), Stage::Over) {
            return;
        }
        let session = self.client.session();
        let mut state = self.worker.state_mut();
        if self.client.is_in_turn() {
            state.panics += 1;
            tracing::error!(
                session = session.serial,
                "a client's task has panicked; its connections are closed"
            );
        }
        state.pooler.forget_session(session);
        drop(state);
        self.worker.clock().end_pause();
    }
}

/// Takes one turn, and returns whether the task is over.
fn take_turn(client: &mut Client, state: &mut State, cx: &mut Context<'_>) -> bool {
    state.clients.set_waker(client.session(), cx.waker());
    let mut buffer = state.buffer.lend();
    let now = Instant::now();
    let over = run(Turn { client: &mut *client, state, buffer: &mut buffer, cx, now });
    state.buffer.give_back(buffer);
    client.look_whether_it_reads(&mut state.rounds, &state.directory);
    over
}

fn run(mut turn: Turn<'_, '_>) -> bool {
    let turn = &mut turn;
    for _ in 0..BUFFERS_PER_TURN {
        if matches!(turn.client.stage(), Stage::Greeting(_) | Stage::Serving)
            && lifecycle::take_final_error(turn)
        {
            continue;
        }
        let step = match *turn.client.stage() {
            Stage::Greeting(_) => lifecycle::greet(turn),
            Stage::Serving => serving::serve(turn),
            Stage::Closing => lifecycle::close(turn),
            Stage::Departed(presence) => lifecycle::depart(turn, presence),
            Stage::Over => return true,
        };
        if step == Step::Idle {
            return false;
        }
    }
    // More is there to do, but others come first.
    turn.cx.waker().wake_by_ref();
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_thousand_idle_clients_fit_because_their_futures_are_small() {
        let bytes = size_of::<ClientTask>();
        assert!(bytes <= 256, "a client's future has {bytes} bytes");
    }
}
