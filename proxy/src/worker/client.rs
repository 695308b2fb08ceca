//! One client's end of its connection: the socket, what is on its way, how far it has come.

use std::io;
use std::task::{Context, Poll};

use pgimbal_pooler::ids::SessionId;
use pgimbal_pooler::plan::Pieces;
use pgimbal_pooler::session::Presence;

use super::dead_peers::{Reader, Rounds};
use super::inbox::{Inbox, Input, ReadBuffer};
use super::outbox::{FreeList, Outbox, Source};
use crate::admin::collect::Connected;
use crate::credentials::Counted;
use crate::directory::PoolDirectory;
use crate::transport::{Setting, Transport};

/// One client's end of the connection.
#[derive(Debug)]
pub(super) struct Client {
    session: SessionId,
    /// `None` once the client has left.
    transport: Option<Transport>,
    inbox: Inbox,
    outbox: Outbox,
    stage: Stage,
    input: InputState,
    checkin_due: bool,
    final_error_tried: bool,
    /// Whether it reads what it is sent.
    reader: Reader,
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
            final_error_tried: false,
            reader: Reader::default(),
            _counted: counted,
        }
    }

    #[inline]
    pub(super) const fn session(&self) -> SessionId {
        self.session
    }

    #[inline]
    pub(super) const fn stage(&self) -> &Stage {
        &self.stage
    }

    #[inline]
    pub(super) const fn is_serving(&self) -> bool {
        matches!(self.stage, Stage::Serving)
    }

    pub(super) fn set_stage(&mut self, stage: Stage) {
        self.stage = stage;
    }

    /// Its greeting is decided: writes what was to leave with that, then its messages are served.
    pub(super) fn begin_serving(&mut self) {
        if let Stage::Greeting(arriving) = &self.stage {
            self.outbox.push(&arriving.pending_output);
        }
        self.stage = Stage::Serving;
    }

    // What it sends.

    #[inline]
    pub(super) const fn input(&self) -> InputState {
        self.input
    }

    #[inline]
    pub(super) fn set_input(&mut self, input: InputState) {
        self.input = input;
    }

    /// Something has changed for which held bytes may have waited.
    #[inline]
    pub(super) fn unblock(&mut self) {
        if self.input == InputState::Blocked {
            self.input = InputState::Open;
        }
    }

    /// What it has sent and what was not processed yet.
    #[inline]
    pub(super) fn inbox(&mut self) -> &mut Inbox {
        &mut self.inbox
    }

    /// Reads, as [`Inbox::poll_read`]; `None` when its socket is closed on this side.
    #[inline]
    pub(super) fn poll_read(
        &mut self,
        buffer: &mut ReadBuffer,
        cx: &mut Context<'_>,
    ) -> Option<Poll<io::Result<Option<Input>>>> {
        let transport = self.transport.as_mut()?;
        Some(self.inbox.poll_read(transport, buffer, cx))
    }

    /// Holds what it sends before its turn has come; whether it is still there.
    pub(super) fn read_ahead(&mut self, buffer: &mut ReadBuffer, cx: &mut Context<'_>) -> bool {
        let Some(transport) = &mut self.transport else { return true };
        match Inbox::default().poll_read(transport, buffer, cx) {
            Poll::Ready(Ok(None) | Err(_)) => false,
            Poll::Ready(Ok(Some(input))) => {
                self.inbox.append(input.bytes(buffer));
                true
            }
            Poll::Pending => true,
        }
    }

    // What it is sent.

    /// Adds made bytes to what is to be written.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.outbox.push(bytes);
    }

    /// Writes pieces of a plan; a client that has left gets nothing.
    #[inline]
    pub(super) fn send(
        &mut self,
        free: &mut FreeList,
        cx: &mut Context<'_>,
        source: Source<'_>,
        pieces: &Pieces,
    ) {
        let Some(transport) = &mut self.transport else { return };
        if !pieces.is_empty() {
            self.reader.set_written();
        }
        if self.outbox.send(transport, free, cx, source, pieces).is_err()
            && matches!(self.stage, Stage::Serving)
        {
            self.stage = Stage::Departed(Presence::Vanished);
        }
    }

    /// Writes what it has not taken yet; `None` when there is nothing.
    #[inline]
    pub(super) fn poll_flush(
        &mut self,
        free: &mut FreeList,
        cx: &mut Context<'_>,
    ) -> Option<Poll<io::Result<()>>> {
        let transport = self.transport.as_mut()?;
        if self.outbox.is_empty() && !transport.wants_flush() {
            return None;
        }
        self.reader.set_written();
        Some(self.outbox.poll_flush(transport, free, cx))
    }

    /// Whether pgimbal holds bytes for it.
    #[inline]
    pub(super) fn has_output(&self) -> bool {
        !self.outbox.is_empty()
    }

    /// Whether it has taken everything, what TLS holds as well.
    #[inline]
    pub(super) fn is_flushed(&self) -> bool {
        self.outbox.is_empty()
            && self.transport.as_ref().is_none_or(|transport| !transport.wants_flush())
    }

    /// Whether its server connection is free as soon as everything is written.
    #[inline]
    pub(super) const fn is_checkin_due(&self) -> bool {
        self.checkin_due
    }

    #[inline]
    pub(super) fn set_checkin_due(&mut self, due: bool) {
        self.checkin_due = due;
    }

    // Its end.

    /// Its final error is offered to it; whether that was done before.
    pub(super) fn try_final_error(&mut self) -> bool {
        std::mem::replace(&mut self.final_error_tried, true)
    }

    /// Closes its socket and gives its memory back.
    pub(super) fn drop_transport(&mut self, free: &mut FreeList, cx: &mut Context<'_>) {
        if let Some(mut transport) = self.transport.take() {
            // TLS says good-bye if it can do so at once.
            let _ = transport.poll_shutdown(cx);
            self.outbox.discard(free);
        }
        if matches!(self.stage, Stage::Departed(_)) {
            self.inbox.discard(free);
        }
    }

    /// At the end of each turn: looks whether it reads, when it is time.
    #[inline]
    pub(super) fn look_whether_it_reads(&mut self, rounds: &mut Rounds, directory: &PoolDirectory) {
        if let Some(transport) = &self.transport {
            self.reader.look(self.session, transport, rounds, directory);
        }
    }
}
