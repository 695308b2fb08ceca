//! What one turn of a client's task works on, and the steps of it that bring bytes to the core and
//! write what comes out.

use std::task::{Context, Poll};
use std::time::Instant;

use pgimbal_pooler::ids::ServerId;
use pgimbal_pooler::plan::Stop;
use pgimbal_pooler::pool::checkout::Checkout;
use pgimbal_pooler::recovery::DisconnectOutcome;
use pgimbal_pooler::session::{Link, Presence};

use super::client::{Client, InputState, Stage};
use super::idle_servers;
use super::inbox::{Input, ReadBuffer};
use super::outbox::Source;
use super::state::State;

/// What one turn works on.
pub(super) struct Turn<'a, 'c> {
    pub(super) client: &'a mut Client,
    pub(super) state: &'a mut State,
    pub(super) buffer: &'a mut ReadBuffer,
    pub(super) cx: &'a mut Context<'c>,
    pub(super) now: Instant,
}

/// What a part of a turn has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Idle,
    Moved,
}

/// Writes what the client has not taken yet.
pub(super) fn flush_client(turn: &mut Turn<'_, '_>) {
    let Some(flushed) = turn.client.poll_flush(&mut turn.state.free, turn.cx) else { return };
    let session = turn.client.session();
    match flushed {
        Poll::Ready(Ok(())) => turn.state.pooler.set_stalled(session, None),
        Poll::Ready(Err(_)) => turn.client.set_stage(Stage::Departed(Presence::Vanished)),
        Poll::Pending => turn.state.pooler.set_stalled(session, Some(turn.now)),
    }
}

/// Reads the server and has the core process that.
pub(super) fn move_from_server(turn: &mut Turn<'_, '_>, server: ServerId) -> Step {
    let read = turn.state.servers.poll_read(server, turn.buffer, turn.cx);
    match read.map(|read| read.ok().flatten()) {
        Poll::Pending => return Step::Idle,
        Poll::Ready(Some(input)) => process_server(turn, server, &input),
        // Its end, in order or not.
        Poll::Ready(None) => server_ended(turn, server),
    }
    Step::Moved
}

fn process_server(turn: &mut Turn<'_, '_>, server: ServerId, input: &Input) {
    let mut at = 0;
    loop {
        let bytes = &input.bytes(turn.buffer)[at..];
        let state = &mut *turn.state;
        state.plan.clear();
        let processed = state.pooler.handle_server_bytes(server, turn.now, bytes, &mut state.plan);
        deliver(turn.client, state, turn.cx, bytes);
        send_to_server(state, server, turn.cx, bytes);
        at += processed.taken as usize;
        let rest = &input.bytes(turn.buffer)[at..];
        match processed.stop {
            Stop::Checkin => turn.client.set_checkin_due(true),
            Stop::Fault => return server_ended(turn, server),
            _ => {
                state.servers.keep(server, rest, &mut state.free);
                break;
            }
        }
    }
    if turn.client.is_checkin_due() {
        check_in_if_written(turn, server);
    }
    turn.client.unblock();
}

/// Releases the server connection if everything is written in both directions.
pub(super) fn check_in_if_written(turn: &mut Turn<'_, '_>, server: ServerId) -> bool {
    let written = turn.client.is_flushed() && turn.state.servers.is_flushed(server);
    if written {
        turn.client.set_checkin_due(false);
        turn.state.pooler.checkin(server, turn.now);
        turn.client.unblock();
    }
    written
}

/// The server connection is gone or cannot be used any more.
pub(super) fn server_ended(turn: &mut Turn<'_, '_>, server: ServerId) {
    let state = &mut *turn.state;
    turn.client.set_checkin_due(false);
    state.plan.clear();
    let outcome = state.pooler.handle_server_gone(server, turn.now, &mut state.plan);
    state.servers.drop_io(server);
    deliver(turn.client, state, turn.cx, &[]);
    match outcome {
        DisconnectOutcome::Survives => {}
        DisconnectOutcome::Again(bytes) => {
            turn.client.inbox().prepend(bytes);
            // Nothing more of the client's is needed, as was when they were processed first.
            turn.client.set_input(InputState::Open);
        }
        DisconnectOutcome::Ends if turn.client.is_serving() => {
            turn.client.set_stage(Stage::Closing);
        }
        DisconnectOutcome::Ends => {}
    }
    turn.client.unblock();
}

/// A session whose settings a server is to check goes on: before it is greeted, nothing of the
/// client's is looked at.
pub(super) fn process_no_input(turn: &mut Turn<'_, '_>) {
    let held = std::mem::take(turn.client.inbox());
    process_client(turn, &Input::Large(Vec::new()));
    *turn.client.inbox() = held;
}

/// Has the core process what the client sent and writes what is for the server.
pub(super) fn process_client(turn: &mut Turn<'_, '_>, input: &Input) {
    let session = turn.client.session();
    let mut at = 0;
    let stop = loop {
        let bytes = &input.bytes(turn.buffer)[at..];
        let state = &mut *turn.state;
        state.plan.clear();
        let processed = state.pooler.handle_client_bytes(session, turn.now, bytes, &mut state.plan);
        at += processed.taken as usize;
        if !state.plan.to_server().is_empty()
            && let Some(server) = state.pooler.session(session).and_then(|s| s.link().server())
        {
            send_to_server(state, server, turn.cx, bytes);
        }
        deliver(turn.client, state, turn.cx, bytes);
        match processed.stop {
            Stop::Checkout => match check_out(turn) {
                Checkout::Linked(_) | Checkout::Refused => {}
                Checkout::Waiting => break Stop::Wait,
            },
            Stop::WaitForPlace => {
                turn.state.pooler.await_place(session, turn.now);
                break Stop::Wait;
            }
            stop => break stop,
        }
    };
    let rest = &input.bytes(turn.buffer)[at..];
    turn.client.inbox().keep(rest, &mut turn.state.free);
    client_stopped(turn, stop);
}

fn client_stopped(turn: &mut Turn<'_, '_>, stop: Stop) {
    let input = match stop {
        Stop::Drained | Stop::Need(_) => InputState::Short,
        Stop::Checkin => {
            turn.client.set_checkin_due(true);
            let link = turn.state.pooler.session(turn.client.session()).map(|s| s.link());
            if let Some(server) = link.and_then(Link::server) {
                check_in_if_written(turn, server);
            }
            InputState::Short
        }
        Stop::Checkout | Stop::Wait | Stop::WaitForPlace => InputState::Blocked,
        Stop::Terminate => {
            turn.client.set_stage(Stage::Departed(Presence::Terminated));
            InputState::Blocked
        }
        Stop::Fault => {
            turn.client.set_stage(Stage::Closing);
            InputState::Blocked
        }
    };
    turn.client.set_input(input);
}

/// Gets a server connection that is alive as far as anybody can know.
fn check_out(turn: &mut Turn<'_, '_>) -> Checkout {
    loop {
        let checkout = turn.state.pooler.checkout(turn.client.session(), turn.now);
        let Checkout::Linked(server) = checkout else { return checkout };
        if idle_servers::is_alive(turn.state, server) {
            return checkout;
        }
        server_ended(turn, server);
    }
}

/// Writes what the plan has for clients: to this one at once out of the buffer that was
/// `processed`, to others when their own tasks run.
#[inline]
fn deliver(client: &mut Client, state: &mut State, cx: &mut Context<'_>, processed: &[u8]) {
    let State { plan, free, pooler, .. } = state;
    let source = Source { processed, made: plan.made() };
    for (session, pieces) in plan.to_sessions() {
        if session == client.session() {
            client.send(free, cx, source, pieces);
        } else {
            pooler.queue_output(session, source.all(pieces));
        }
    }
}

/// Writes what the plan has for a server connection, out of the buffer that was `processed`.
/// One that takes nothing any more is noticed by the next read.
#[inline]
pub(super) fn send_to_server(
    state: &mut State,
    server: ServerId,
    cx: &mut Context<'_>,
    processed: &[u8],
) {
    let source = Source { processed, made: state.plan.made() };
    let _ = state.servers.send(server, &mut state.free, cx, source, state.plan.to_server());
}
