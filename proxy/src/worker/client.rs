//! One client's task: moves bytes between its socket and its server connection as the core says.
//!
//! The future is small, because there are many; it has no await and holds no buffer between turns.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Instant;

use pgimbal_pooler::ids::SessionId;
use pgimbal_pooler::plan::Pieces;
use pgimbal_pooler::session::Presence;

use super::Worker;
use super::dead_peers::Reader;
use super::inbox::Inbox;
use super::outbox::{FreeList, Outbox, Source};
use super::state::State;
use super::turn::Turn;
use crate::admin::collect::Connected;
use crate::credentials::Counted;
use crate::transport::{Setting, Transport};

/// The task of one client.
#[derive(Debug)]
pub(super) struct ClientTask {
    pub(super) worker: Rc<Worker>,
    pub(super) client: Client,
}

/// One client's end of the connection.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) session: SessionId,
    /// `None` once the client has left.
    pub(super) transport: Option<Transport>,
    pub(super) inbox: Inbox,
    pub(super) outbox: Outbox,
    pub(super) stage: Stage,
    pub(super) input: InputState,
    /// The server connection is free as soon as everything is written.
    pub(super) checkin_due: bool,
    /// The final error was offered to the client once.
    pub(super) goodbye_tried: bool,
    /// A turn has begun and not ended: the task has panicked if it is dropped so.
    in_turn: bool,
    /// Whether it reads what it is sent.
    pub(super) reader: Reader,
    /// Counts the client among the connected ones, and those of its password's generation.
    _counted: (Connected, Option<Counted>),
}

/// How far the client has come.
#[derive(Debug)]
pub(super) enum Stage {
    /// It is logged in and waits for its greeting.
    Greeting(Box<Arriving>),
    /// Its messages are served.
    Serving,
    /// Its connection ends as soon as everything is written.
    Closing,
    /// It has left in this way; its server connection may still be busy with it.
    Departed(Presence),
    /// Nothing is left to do.
    Over,
}

/// What a client's greeting depends on.
#[derive(Debug)]
pub(super) struct Arriving {
    /// What it asked for at startup.
    pub(super) parameters: Vec<Setting>,
    /// Messages of the login that leave with the greeting.
    pub(super) pending_output: Vec<u8>,
}

/// What may be done with the bytes that are held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum InputState {
    /// They can be processed.
    Open,
    /// More bytes are needed.
    Short,
    /// Something else must happen first.
    Blocked,
}

impl Future for ClientTask {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        let over = {
            let mut state = this.worker.state.borrow_mut();
            this.client.in_turn = true;
            let over = this.client.turn(&mut state, cx);
            this.client.in_turn = false;
            over
        };
        this.worker.perform();
        if over { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl Drop for ClientTask {
    fn drop(&mut self) {
        self.client.leave_worker(&self.worker);
    }
}

impl Client {
    pub(super) fn new(
        session: SessionId,
        transport: Transport,
        residual: Vec<u8>,
        arriving: Arriving,
        counted: (Connected, Option<Counted>),
    ) -> Self {
        Self {
            session,
            transport: Some(transport),
            inbox: Inbox::with(residual),
            outbox: Outbox::default(),
            stage: Stage::Greeting(Box::new(arriving)),
            input: InputState::Open,
            checkin_due: false,
            goodbye_tried: false,
            in_turn: false,
            reader: Reader::default(),
            _counted: counted,
        }
    }

    /// One turn; whether the task is over.
    fn turn(&mut self, state: &mut State, cx: &mut Context<'_>) -> bool {
        state.watch(self.session, cx.waker());
        let mut buffer = state.lend_buffer();
        let over = Turn { client: self, state, buffer: &mut buffer, cx, now: Instant::now() }.run();
        state.buffer = Some(buffer);
        self.mind_reading(state);
        over
    }

    /// Writes what the plan has for clients: to this one at once out of the buffer that was
    /// `processed`, to others when their own tasks run.
    pub(super) fn deliver(&mut self, state: &mut State, cx: &mut Context<'_>, processed: &[u8]) {
        let State { plan, free, pooler, .. } = state;
        let source = Source { processed, made: plan.made() };
        for (session, pieces) in plan.to_sessions() {
            if session == self.session {
                self.send(free, cx, source, pieces);
            } else {
                pooler.queue_output(session, source.all(pieces));
            }
        }
    }

    /// Writes pieces of a plan; a client that has left gets nothing.
    fn send(
        &mut self,
        free: &mut FreeList,
        cx: &mut Context<'_>,
        source: Source<'_>,
        pieces: &Pieces,
    ) {
        let Some(transport) = &mut self.transport else { return };
        self.reader.wrote |= !pieces.is_empty();
        if self.outbox.send(transport, free, cx, source, pieces).is_err()
            && matches!(self.stage, Stage::Serving)
        {
            self.stage = Stage::Departed(Presence::Vanished);
        }
    }

    /// Whether the client has taken everything.
    pub(super) fn is_flushed(&self) -> bool {
        self.outbox.is_empty()
            && self.transport.as_ref().is_none_or(|transport| !transport.wants_flush())
    }

    /// Something has changed for which held bytes may have waited.
    pub(super) fn unblock(&mut self) {
        if self.input == InputState::Blocked {
            self.input = InputState::Open;
        }
    }

    /// Closes the client's socket and gives its memory back.
    pub(super) fn drop_transport(&mut self, state: &mut State, cx: &mut Context<'_>) {
        if let Some(mut transport) = self.transport.take() {
            // TLS says good-bye if it can do so at once.
            let _ = transport.poll_shutdown(cx);
            self.outbox.discard(&mut state.free);
        }
        if matches!(self.stage, Stage::Departed(_)) {
            self.inbox.discard(&mut state.free);
        }
    }

    /// The task is dropped: its session ends, in good order or because it has panicked.
    fn leave_worker(&mut self, worker: &Worker) {
        if matches!(self.stage, Stage::Over) {
            return;
        }
        let mut state = worker.state.borrow_mut();
        if self.in_turn {
            state.panics += 1;
            tracing::error!(
                session = self.session.serial,
                "a client's task has panicked; its connections are closed"
            );
        }
        state.pooler.forget_session(self.session);
        drop(state);
        worker.wake_housekeeping();
    }
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
