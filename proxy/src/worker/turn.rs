//! One turn of a client's task: what is read, processed and written, in which order.

use std::task::{Context, Poll};
use std::time::Instant;

use pgimbal_pooler::ids::ServerId;
use pgimbal_pooler::plan::{HOLD_LIMIT, Stop};
use pgimbal_pooler::pool::checkout::Checkout;
use pgimbal_pooler::recovery::DisconnectOutcome;
use pgimbal_pooler::session::{Link, Presence};

use super::client::{Client, InputState, Stage};
use super::inbox::{Input, ReadBuffer};
use super::state::State;

/// Buffers that one turn moves in each direction at most, so that nobody starves.
const BUFFERS_PER_TURN: usize = 4;

/// Terminate, as the last bytes of a client that closes its socket behind it.
const TERMINATE: &[u8] = b"X\0\0\0\x04";

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

impl Turn<'_, '_> {
    /// Runs the turn; whether the task is over.
    pub(super) fn run(mut self) -> bool {
        for _ in 0..BUFFERS_PER_TURN {
            if matches!(self.client.stage, Stage::Greeting(_) | Stage::Serving) && self.dismissed()
            {
                continue;
            }
            let step = match self.client.stage {
                Stage::Greeting(_) => self.greet(),
                Stage::Serving => self.serve(),
                Stage::Closing => self.close(),
                Stage::Departed(presence) => self.depart(presence),
                Stage::Over => return true,
            };
            if step == Step::Idle {
                return false;
            }
        }
        // More is there to do, but others come first.
        self.cx.waker().wake_by_ref();
        false
    }

    fn serve(&mut self) -> Step {
        self.flush_client();
        self.take_output();
        let mut step = Step::Idle;
        if matches!(self.client.stage, Stage::Serving) {
            step = self.move_from_server();
        }
        if matches!(self.client.stage, Stage::Serving) && self.move_from_client() == Step::Moved {
            step = Step::Moved;
        }
        if matches!(self.client.stage, Stage::Serving) { step } else { Step::Moved }
    }

    /// Writes what the client has not taken yet.
    pub(super) fn flush_client(&mut self) {
        let Client { transport, outbox, session, reader, .. } = &mut *self.client;
        let Some(transport) = transport else { return };
        if outbox.is_empty() && !transport.wants_flush() {
            return;
        }
        reader.wrote = true;
        match outbox.poll_flush(transport, &mut self.state.free, self.cx) {
            Poll::Ready(Ok(())) => self.state.pooler.set_stalled(*session, None),
            Poll::Ready(Err(_)) => self.client.stage = Stage::Departed(Presence::Vanished),
            Poll::Pending => self.state.pooler.set_stalled(*session, Some(self.now)),
        }
    }

    /// Writes what other turns have made for the client, ahead of what this one makes.
    fn take_output(&mut self) {
        if self.client.outbox.is_empty()
            && let Some(output) = self.state.pooler.poll_output(self.client.session)
        {
            self.client.outbox.push(&output);
            self.flush_client();
        }
    }

    /// Reads the server and writes what is for the client.
    fn move_from_server(&mut self) -> Step {
        let link = self.state.pooler.session(self.client.session).map(|session| session.link());
        let Some(server) = link.and_then(Link::server) else { return Step::Idle };
        if self.state.servers.flush(server, &mut self.state.free, self.cx).is_err() {
            self.server_ended(server);
            return Step::Moved;
        }
        // The client must take what it has before it gets more.
        if !self.client.outbox.is_empty() {
            return Step::Idle;
        }
        if self.client.checkin_due && self.check_in_if_written(server) {
            return Step::Moved;
        }
        match self.read_server(server) {
            Poll::Pending => Step::Idle,
            Poll::Ready(Some(input)) => {
                self.process_server(server, &input);
                Step::Moved
            }
            Poll::Ready(None) => {
                self.server_ended(server);
                Step::Moved
            }
        }
    }

    /// What the server has sent; `None` is its end, in order or not.
    pub(super) fn read_server(&mut self, server: ServerId) -> Poll<Option<Input>> {
        self.state.servers.poll_read(server, self.buffer, self.cx).map(|read| read.ok().flatten())
    }

    pub(super) fn process_server(&mut self, server: ServerId, input: &Input) {
        let mut at = 0;
        loop {
            let bytes = &input.bytes(self.buffer)[at..];
            let state = &mut *self.state;
            state.plan.clear();
            let processed =
                state.pooler.handle_server_bytes(server, self.now, bytes, &mut state.plan);
            self.client.deliver(state, self.cx, bytes);
            state.send_to_server(server, self.cx, bytes);
            at += processed.taken as usize;
            let rest = &input.bytes(self.buffer)[at..];
            match processed.stop {
                Stop::Checkin => self.client.checkin_due = true,
                Stop::Fault => return self.server_ended(server),
                _ => {
                    state.servers.keep(server, rest, &mut state.free);
                    break;
                }
            }
        }
        if self.client.checkin_due {
            self.check_in_if_written(server);
        }
        self.client.unblock();
    }

    /// Releases the server connection if everything is written in both directions.
    fn check_in_if_written(&mut self, server: ServerId) -> bool {
        let written = self.client.is_flushed() && self.state.servers.is_flushed(server);
        if written {
            self.client.checkin_due = false;
            self.state.pooler.checkin(server, self.now);
            self.client.unblock();
        }
        written
    }

    /// The server connection is gone or cannot be used any more.
    pub(super) fn server_ended(&mut self, server: ServerId) {
        let state = &mut *self.state;
        self.client.checkin_due = false;
        state.plan.clear();
        let outcome = state.pooler.handle_server_gone(server, self.now, &mut state.plan);
        state.servers.drop_io(server);
        self.client.deliver(state, self.cx, &[]);
        match outcome {
            DisconnectOutcome::Survives => {}
            DisconnectOutcome::Again(bytes) => {
                self.client.inbox.prepend(bytes);
                // Nothing more of the client's is needed, as was when they were processed first.
                self.client.input = InputState::Open;
            }
            DisconnectOutcome::Ends if matches!(self.client.stage, Stage::Serving) => {
                self.client.stage = Stage::Closing;
            }
            DisconnectOutcome::Ends => {}
        }
        self.client.unblock();
    }

    /// Processes what the client sent and writes what is for the server.
    fn move_from_client(&mut self) -> Step {
        let link =
            self.state.pooler.session(self.client.session).map_or(Link::Unlinked, |s| s.link());
        if let Some(server) = link.server()
            && !self.state.servers.is_flushed(server)
        {
            return Step::Idle;
        }
        // Replies that pgimbal makes itself must not pile up either.
        if !self.client.outbox.is_empty() {
            return Step::Idle;
        }
        // A server connection has been handed over, or an error is to be told instead.
        if matches!(link, Link::Fresh(_) | Link::Unlinked) {
            self.client.unblock();
        }
        match self.client.input {
            InputState::Open if self.state.pooler.is_on_trial(self.client.session) => {
                self.process_timeout();
                return Step::Moved;
            }
            InputState::Open if !self.client.inbox.is_empty() => {
                let input = self.client.inbox.again(self.buffer);
                self.process_client(&input);
                return Step::Moved;
            }
            InputState::Blocked if !matches!(link, Link::Waiting(_) | Link::AwaitingPlace(_)) => {
                return Step::Idle;
            }
            InputState::Blocked if self.client.inbox.held().len() >= HOLD_LIMIT => {
                return Step::Idle;
            }
            _ => {}
        }
        let Client { transport, inbox, input, .. } = &mut *self.client;
        let Some(transport) = transport else {
            if *input == InputState::Short {
                // It closed its socket behind half a message.
                self.client.stage = Stage::Departed(Presence::Vanished);
            }
            return Step::Idle;
        };
        match inbox.poll_read(transport, self.buffer, self.cx) {
            Poll::Pending => return Step::Idle,
            Poll::Ready(Ok(Some(read))) if *input == InputState::Blocked => {
                // It waits; what it sends meanwhile waits behind.
                let bytes = read.bytes(self.buffer);
                self.client.inbox.keep(bytes, &mut self.state.free);
            }
            Poll::Ready(Ok(Some(read))) => self.process_client(&read),
            Poll::Ready(Ok(None)) if inbox.held().ends_with(TERMINATE) => {
                // What was sent before Terminate still runs.
                self.client.drop_transport(self.state, self.cx);
            }
            Poll::Ready(Ok(None) | Err(_)) => {
                self.client.stage = Stage::Departed(Presence::Vanished);
            }
        }
        Step::Moved
    }

    /// A session whose settings a server is to check goes on: before it is greeted, nothing of the
    /// client's is looked at.
    pub(super) fn process_timeout(&mut self) {
        let held = std::mem::take(&mut self.client.inbox);
        self.process_client(&Input::Large(Vec::new()));
        self.client.inbox = held;
    }

    fn process_client(&mut self, input: &Input) {
        let mut at = 0;
        let stop = loop {
            let bytes = &input.bytes(self.buffer)[at..];
            let state = &mut *self.state;
            let session = self.client.session;
            state.plan.clear();
            let processed =
                state.pooler.handle_client_bytes(session, self.now, bytes, &mut state.plan);
            at += processed.taken as usize;
            if !state.plan.to_server().is_empty()
                && let Some(server) = state.pooler.session(session).and_then(|s| s.link().server())
            {
                state.send_to_server(server, self.cx, bytes);
            }
            self.client.deliver(state, self.cx, bytes);
            match processed.stop {
                Stop::Checkout => match self.check_out() {
                    Checkout::Linked(_) | Checkout::Refused => {}
                    Checkout::Waiting => break Stop::Wait,
                },
                Stop::WaitForPlace => {
                    self.state.pooler.await_place(session, self.now);
                    break Stop::Wait;
                }
                stop => break stop,
            }
        };
        let rest = &input.bytes(self.buffer)[at..];
        self.client.inbox.keep(rest, &mut self.state.free);
        self.client_stopped(stop);
    }

    fn client_stopped(&mut self, stop: Stop) {
        self.client.input = match stop {
            Stop::Drained | Stop::Need(_) => InputState::Short,
            Stop::Checkin => {
                self.client.checkin_due = true;
                let link = self.state.pooler.session(self.client.session).map(|s| s.link());
                if let Some(server) = link.and_then(Link::server) {
                    self.check_in_if_written(server);
                }
                InputState::Short
            }
            Stop::Checkout | Stop::Wait | Stop::WaitForPlace => InputState::Blocked,
            Stop::Terminate => {
                self.client.stage = Stage::Departed(Presence::Terminated);
                InputState::Blocked
            }
            Stop::Fault => {
                self.client.stage = Stage::Closing;
                InputState::Blocked
            }
        };
    }

    /// Gets a server connection that is alive as far as anybody can know.
    fn check_out(&mut self) -> Checkout {
        loop {
            let checkout = self.state.pooler.checkout(self.client.session, self.now);
            let Checkout::Linked(server) = checkout else { return checkout };
            if self.state.is_alive(server) {
                return checkout;
            }
            self.server_ended(server);
        }
    }
}
