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
    let now = Instant::now();
    if process(state, id, now, cx, &[]).is_none() {
        return lose(state, id, now);
    }
    for _ in 0..BUFFERS_PER_TURN {
        if state.servers.flush(id, &mut state.free, cx).is_err() {
            return lose(state, id, now);
        }
        let mut buffer = state.idle_buffer.lend();
        let read = state.servers.poll_read(id, &mut buffer, cx);
        let taken = match &read {
            Poll::Pending => None,
            Poll::Ready(Ok(Some(input))) => {
                let bytes = input.bytes(&buffer);
                let taken = process(state, id, now, cx, bytes);
                if let Some(taken) = taken {
                    state.servers.keep(id, &bytes[taken..], &mut state.free);
                }
                taken
            }
            Poll::Ready(Ok(None) | Err(_)) => None,
        };
        state.idle_buffer.give_back(buffer);
        match (read, taken) {
            (Poll::Pending, _) => return Poll::Pending,
            (Poll::Ready(_), None) => return lose(state, id, now),
            (Poll::Ready(_), Some(_)) => {}
        }
    }
    cx.waker().wake_by_ref();
    Poll::Pending
}

/// Has the core process `bytes` and writes what it answers. Returns how many were taken; `None` if
/// the connection cannot be used any more.
fn process(
    state: &mut State,
    id: ServerId,
    now: Instant,
    cx: &mut Context<'_>,
    bytes: &[u8],
) -> Option<usize> {
    state.plan.clear();
    match state.pooler.handle_listener_bytes(id, now, bytes, &mut state.plan) {
        ListenerBytes::Dead => None,
        ListenerBytes::Taken(taken) => {
            send_to_server(state, id, cx, bytes);
            Some(taken as usize)
        }
    }
}

fn lose(state: &mut State, id: ServerId, now: Instant) -> Poll<()> {
    idle_servers::lose(state, id, now);
    Poll::Ready(())
}
