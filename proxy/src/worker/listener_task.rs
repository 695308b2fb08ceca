//! The task of a server connection that listens for all clients of its pool.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Instant;

use pgimbal_pooler::ids::ServerId;
use pgimbal_pooler::listener::steps::ListenerBytes;

use super::actions::run_actions;
use super::idle_servers;
use super::shared::Worker;
use super::state::State;
use super::turn::send_to_server;

/// Limit of buffers (64 KiB each) that are read in one turn; then others come first.
const BUFFERS_PER_TURN: usize = 8;

/// Has the task of server connection `id` run, and begins it if there is none yet.
pub(super) fn drive(worker: &Rc<Worker>, id: ServerId) {
    let has_task = worker.state_mut().servers.get(id).is_none_or(|io| io.wake_task());
    if !has_task {
        tokio::task::spawn_local(ListenerTask { worker: Rc::clone(worker), id });
    }
}

/// Reads what the server sends, until the connection is closed or cut.
#[derive(Debug)]
struct ListenerTask {
    worker: Rc<Worker>,
    id: ServerId,
}

impl Future for ListenerTask {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let (worker, id) = (Rc::clone(&self.worker), self.id);
        let turn = take_turn(&mut worker.state_mut(), id, cx);
        run_actions(&worker);
        turn
    }
}

/// Writes what is due and reads what has come. `Ready` when the connection is gone.
fn take_turn(state: &mut State, id: ServerId, cx: &mut Context<'_>) -> Poll<()> {
    let Some(io) = state.servers.get(id) else { return Poll::Ready(()) };
    io.set_task(cx.waker());
    let mut buffer = state.idle_buffer.lend();
    // What waits from before goes first.
    let mut read = Poll::Ready(Ok(Some(io.held(&mut buffer))));
    let mut over = Outcome::Reads;
    for _ in 0..BUFFERS_PER_TURN {
        over = match &read {
            Poll::Pending => Outcome::Idle,
            Poll::Ready(Ok(Some(input))) => process(state, id, cx, input.bytes(&buffer)),
            Poll::Ready(Ok(None) | Err(_)) => Outcome::Lost,
        };
        if over != Outcome::Reads {
            break;
        }
        if state.servers.flush(id, &mut state.free, cx).is_err() {
            over = Outcome::Lost;
            break;
        }
        read = state.servers.poll_read(id, &mut buffer, cx);
    }
    if over == Outcome::Reads
        && let Poll::Ready(Ok(Some(input))) = &read
    {
        state.servers.keep(id, input.bytes(&buffer), &mut state.free);
    }
    state.idle_buffer.give_back(buffer);
    match over {
        Outcome::Lost => {
            idle_servers::lose(state, id, Instant::now());
            return Poll::Ready(());
        }
        // More may be there to read, but others come first.
        Outcome::Reads => cx.waker().wake_by_ref(),
        Outcome::Idle => {}
    }
    Poll::Pending
}

/// What follows from a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// The connection is read once more.
    Reads,
    /// The task waits until it is woken.
    Idle,
    /// The connection cannot be used any more.
    Lost,
}

/// Has the core process `bytes`, writes what it answers, and keeps the rest.
fn process(state: &mut State, id: ServerId, cx: &mut Context<'_>, bytes: &[u8]) -> Outcome {
    state.plan.clear();
    // What has been read was notified before.
    let now = Instant::now();
    let word = state.pooler.handle_listener_bytes(id, now, bytes, &mut state.plan);
    let (taken, outcome) = match word {
        ListenerBytes::Dead => return Outcome::Lost,
        ListenerBytes::Taken(taken) => (taken, Outcome::Reads),
        ListenerBytes::Waits(taken) => (taken, Outcome::Idle),
    };
    send_to_server(state, id, cx, bytes);
    state.servers.keep(id, &bytes[taken as usize..], &mut state.free);
    outcome
}
