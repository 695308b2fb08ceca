//! One client's end of its connection: the socket, the bytes in both directions, and its stage.

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

/// One client's end of its connection. It belongs to the client's task and ends with it.
#[derive(Debug)]
pub(super) struct Client {
    session: SessionId,
    /// The socket; `None` once the client has left.
    transport: Option<Transport>,
    inbox: Inbox,
    outbox: Outbox,
    stage: Stage,
    input: InputState,
    checkin_due: bool,
    final_error_tried: bool,
    /// Whether a turn has begun and not ended. It stands here and not in the task, which would be 8
    /// bytes longer.
    in_turn: bool,
    /// Whether the client reads what it is sent.
    reader: Reader,
    /// Counts the client among the connected ones, and among those with its password's generation.
    _counted: (Connected, Option<Counted>),
}

/// The stage of a client between login and end.
#[derive(Debug)]
pub(super) enum Stage {
    /// The client is logged in and waits for its greeting.
    Greeting(Box<Arriving>),
    /// Messages of the client are served.
    Serving,
    /// The connection ends as soon as everything, the final error included, is written.
    Closing,
    /// The client has left in this way; its server connection may still be busy for it.
    Departed(Presence),
    /// Nothing is left to do: the task ends.
    Over,
}

/// What a client's greeting needs.
#[derive(Debug)]
pub(super) struct Arriving {
    /// The parameters of the client's StartupMessage.
    pub(super) parameters: Vec<Setting>,
    /// Messages that the login has made and that are sent with the greeting.
    pub(super) pending_output: Vec<u8>,
}

/// What can be done with the bytes that the client's inbox holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum InputState {
    /// The bytes can be processed.
    Open,
    /// The bytes end in the middle of a message: more must be read first.
    Short,
    /// The core waits for something else, such as a server connection, before it takes more bytes.
    Blocked,
}

impl Client {
    /// Makes the end of a client that has just logged in. `residual` are bytes that it sent behind
    /// the login. `counted` counts it until the value is dropped.
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
            in_turn: false,
            reader: Reader::default(),
            _counted: counted,
        }
    }

    /// The client's session in the core.
    #[inline]
    pub(super) const fn session(&self) -> SessionId {
        self.session
    }

    /// Whether a turn has begun and not ended: a task that is dropped so has panicked.
    pub(super) const fn is_in_turn(&self) -> bool {
        self.in_turn
    }

    /// A turn begins, or has ended.
    #[inline]
    pub(super) const fn set_in_turn(&mut self, in_turn: bool) {
        self.in_turn = in_turn;
    }

    /// The client's stage.
    #[inline]
    pub(super) const fn stage(&self) -> &Stage {
        &self.stage
    }

    /// Whether the stage is [`Stage::Serving`].
    #[inline]
    pub(super) const fn is_serving(&self) -> bool {
        matches!(self.stage, Stage::Serving)
    }

    /// Sets the stage; a later turn acts by it.
    pub(super) fn set_stage(&mut self, stage: Stage) {
        self.stage = stage;
    }

    /// Begins to serve messages: queues the login's messages, ahead of the greeting's, and sets
    /// [`Stage::Serving`].
    pub(super) fn begin_serving(&mut self) {
        if let Stage::Greeting(arriving) = &self.stage {
            self.outbox.push(&arriving.pending_output);
        }
        self.stage = Stage::Serving;
    }

    // What it sends.

    /// What can be done with the bytes held in the inbox.
    #[inline]
    pub(super) const fn input(&self) -> InputState {
        self.input
    }

    /// Sets what can be done with the bytes held in the inbox.
    #[inline]
    pub(super) fn set_input(&mut self, input: InputState) {
        self.input = input;
    }

    /// Lets held bytes be processed again, after a change for which they may have waited. No effect
    /// unless they were [`InputState::Blocked`].
    #[inline]
    pub(super) fn unblock(&mut self) {
        if self.input == InputState::Blocked {
            self.input = InputState::Open;
        }
    }

    /// The bytes that the client has sent and that were not processed yet.
    #[inline]
    pub(super) fn inbox(&mut self) -> &mut Inbox {
        &mut self.inbox
    }

    /// Reads from the client as [`Inbox::poll_read`] does; `None` when pgimbal has closed the
    /// socket.
    #[inline]
    pub(super) fn poll_read(
        &mut self,
        buffer: &mut ReadBuffer,
        cx: &mut Context<'_>,
    ) -> Option<Poll<io::Result<Option<Input>>>> {
        let transport = self.transport.as_mut()?;
        Some(self.inbox.poll_read(transport, buffer, cx))
    }

    /// Reads from the client without processing: the bytes are added to the inbox. Returns false
    /// when the client has closed its connection, or it broke.
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

    /// Adds bytes that pgimbal made to those that wait to be written to the client.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.outbox.push(bytes);
    }

    /// Writes the pieces of a plan that are for the client; what the socket does not take is kept.
    /// A write error while serving sets [`Stage::Departed`]. Without a socket nothing is written.
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

    /// Writes bytes that the client has not taken yet; `None` when there are none, or no socket.
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

    /// Whether bytes for the client wait in pgimbal's memory, without those that TLS holds.
    #[inline]
    pub(super) fn has_output(&self) -> bool {
        !self.outbox.is_empty()
    }

    /// Whether the socket has taken everything for the client, including what TLS held. True
    /// without a socket.
    #[inline]
    pub(super) fn is_flushed(&self) -> bool {
        self.outbox.is_empty()
            && self.transport.as_ref().is_none_or(|transport| !transport.wants_flush())
    }

    /// Whether the client's server connection can be given back to the pool as soon as everything
    /// is written in both directions.
    #[inline]
    pub(super) const fn is_checkin_due(&self) -> bool {
        self.checkin_due
    }

    /// Sets [`Self::is_checkin_due`].
    #[inline]
    pub(super) fn set_checkin_due(&mut self, due: bool) {
        self.checkin_due = due;
    }

    // Its end.

    /// Marks that the final error was offered to the client; returns whether that was so before.
    pub(super) fn try_final_error(&mut self) -> bool {
        std::mem::replace(&mut self.final_error_tried, true)
    }

    /// Closes the socket (TLS sends close_notify if it can at once) and gives the output's memory
    /// back; the input's as well when the client has departed, since nothing of it is processed any
    /// more.
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

    /// Checks at the end of each turn whether the client reads ([`Reader::look`]). No effect
    /// without a socket.
    #[inline]
    pub(super) fn look_whether_it_reads(&mut self, rounds: &mut Rounds, directory: &PoolDirectory) {
        if let Some(transport) = &self.transport {
            self.reader.look(self.session, transport, rounds, directory);
        }
    }
}
