//! The context of one turn of a client's task, and its steps that bring bytes to the core and write
//! what the core decides.

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

/// Everything that one turn of a client's task works on.
pub(super) struct Turn<'a, 'c> {
    /// The client whose turn it is.
    pub(super) client: &'a mut Client,
    /// The state of the worker.
    pub(super) state: &'a mut State,
    /// The read buffer, lent for this turn.
    pub(super) buffer: &'a mut ReadBuffer,
    /// The task's context, whose waker every read and write registers.
    pub(super) cx: &'a mut Context<'c>,
    /// The time at which the turn began; it stands for all its steps. On a cluster it is that of
    /// the last step: a write counts as acknowledged once its answer was read.
    pub(super) now: Instant,
}

/// The outcome of one step of a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing could be moved: the turn ends, and the task waits to be woken.
    Idle,
    /// Something has changed, so another step may be possible.
    Moved,
}

/// Writes bytes that the client has not taken yet. The core is told since when the client does not
/// take them (`client_stall_timeout`); an error sets [`Stage::Departed`].
pub(super) fn flush_client(turn: &mut Turn<'_, '_>) {
    let Some(flushed) = turn.client.poll_flush(&mut turn.state.free, turn.cx) else { return };
    let session = turn.client.session();
    match flushed {
        Poll::Ready(Ok(())) => turn.state.pooler.set_stalled(session, None),
        Poll::Ready(Err(_)) => turn.client.set_stage(Stage::Departed(Presence::Vanished)),
        Poll::Pending => turn.state.pooler.set_stalled(session, Some(turn.now)),
    }
}

/// Reads from the client's server connection once, has the core process the bytes, and writes them
/// to the client. [`Step::Idle`] when nothing has come.
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
    look_at_clock(turn);
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
            Stop::Again => {
                take_refused(turn);
                turn.client.set_checkin_due(true);
            }
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

/// Puts what a replica has refused in front of what the client has sent since.
fn take_refused(turn: &mut Turn<'_, '_>) {
    let bytes = turn.state.pooler.take_refused(turn.client.session());
    turn.client.inbox().prepend(bytes);
    turn.client.set_input(InputState::Open);
}

/// Gives the server connection back to the pool if everything is written in both directions.
/// Returns whether it did.
pub(super) fn check_in_if_written(turn: &mut Turn<'_, '_>, server: ServerId) -> bool {
    let written = turn.client.is_flushed() && turn.state.servers.is_flushed(server);
    if written {
        turn.client.set_checkin_due(false);
        turn.state.pooler.checkin(server, turn.now);
        turn.client.unblock();
    }
    written
}

/// Handles the loss of a server connection, or one that broke the protocol: closes its socket, and
/// the core decides whether the session survives, runs its statement again on another one, or ends.
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

/// Has the core process no bytes of the client, for a session whose settings a server is still to
/// check: nothing that the client sent may be looked at before it is greeted.
pub(super) fn process_no_input(turn: &mut Turn<'_, '_>) {
    let held = std::mem::take(turn.client.inbox());
    process_client(turn, &Input::Large(Vec::new()));
    *turn.client.inbox() = held;
}

/// Has the core process bytes that the client sent, takes server connections from the pool as
/// needed, and writes what is for the server. Bytes that were not processed stay in the inbox.
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
            Stop::Leave => {
                turn.client.set_checkin_due(true);
                let link = turn.state.pooler.session(session).map_or(Link::Unlinked, |s| s.link());
                if !link.server().is_some_and(|server| check_in_if_written(turn, server)) {
                    break Stop::Wait;
                }
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
        Stop::Checkout | Stop::Wait | Stop::WaitForPlace | Stop::Leave | Stop::Again => {
            InputState::Blocked
        }
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

/// Brings the turn's time up to date if the client's pool is on a cluster, where it decides what a
/// read must show: what has just been read has come before it.
fn look_at_clock(turn: &mut Turn<'_, '_>) {
    let pooler = &turn.state.pooler;
    let session = pooler.session(turn.client.session());
    if session.is_some_and(|session| pooler.pool_of(session.pool()).is_clustered()) {
        turn.now = Instant::now();
    }
}

/// Takes a server connection from the pool for the client; dead ones are closed and the next is
/// taken.
fn check_out(turn: &mut Turn<'_, '_>) -> Checkout {
    look_at_clock(turn);
    loop {
        let checkout = turn.state.pooler.checkout(turn.client.session(), turn.now);
        let Checkout::Linked(server) = checkout else { return checkout };
        if idle_servers::is_alive(turn.state, server) {
            return checkout;
        }
        server_ended(turn, server);
    }
}

/// Writes what the plan has for clients: to this one at once, out of `processed`, the bytes that
/// the core has processed; to others when their own tasks run.
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

/// Writes what the plan has for a server connection, out of `processed`, the bytes that the core
/// has processed. An error is ignored: the next read reports that the server is gone.
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
