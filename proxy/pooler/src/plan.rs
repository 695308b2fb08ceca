//! What a step of the core wants written, and where it stopped.
//!
//! Pieces are offsets into the buffer that was processed or into what the plan has made, never
//! borrows: the driver sends them with one `writev` before the buffer changes. What is for a
//! session whose turn it is not, the driver copies (`Pooler::queue_output`).

use std::ops::Range;

use crate::ids::SessionId;

/// The size, in bytes with its header, up to which a message is held until it is whole; a longer
/// one is processed by its prefix and streams. 16 KiB holds nearly every control message and most
/// rows, and 10,000 clients that each stop in the middle of one cost 160 MB at worst.
pub const HOLD_LIMIT: usize = 16 * 1024;

/// A run of bytes to write to a peer, as offsets: into the buffer that was processed, or into bytes
/// that the core has made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Bytes of the buffer that was given to the step, as offsets from its start; never empty.
    Span(Range<u32>),
    /// Bytes that the core has made, as offsets into [`Plan::made`]; never empty.
    Made(Range<u32>),
}

/// What one peer is to be sent: pieces, in the order in which they are to be written. Pieces that
/// stand next to each other in the same source are merged.
#[derive(Debug, Default)]
pub struct Pieces {
    list: Vec<Piece>,
    bytes: u64,
}

impl Pieces {
    /// Appends bytes `from..to` of the processed buffer.
    #[inline]
    fn span(&mut self, from: usize, to: usize) {
        if from == to {
            return;
        }
        self.bytes += (to - from) as u64;
        if let Some(Piece::Span(last)) = self.list.last_mut()
            && last.end as usize == from
        {
            last.end = to as u32;
            return;
        }
        self.list.push(Piece::Span(from as u32..to as u32));
    }

    /// Returns the pieces, in the order in which they are to be written; empty if there are none.
    #[must_use]
    pub fn pieces(&self) -> &[Piece] {
        &self.list
    }

    /// Whether there is nothing to write to the peer; a list never has pieces without bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Returns the length of all pieces together, in bytes; 0 if there are none.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    fn clear(&mut self) {
        self.list.clear();
        self.bytes = 0;
    }

    fn made(&mut self, from: usize, to: usize) {
        if from == to {
            return;
        }
        self.bytes += (to - from) as u64;
        if let Some(Piece::Made(last)) = self.list.last_mut()
            && last.end as usize == from
        {
            last.end = to as u32;
            return;
        }
        self.list.push(Piece::Made(from as u32..to as u32));
    }
}

/// What one step wants written: to one server connection, and to any number of clients. A worker
/// has one, which the driver writes out and clears after each step.
///
/// Nearly every step has one client to write to. It is found by one comparison, and its list keeps
/// its memory from step to step.
#[derive(Debug)]
pub struct Plan {
    to_server: Pieces,
    /// The first `addressed` are this step's, in the order in which they were addressed. The others
    /// only keep their memory.
    to_sessions: Vec<SessionPieces>,
    addressed: usize,
    /// Which of them was written to last, and whose it is; [`NOBODY`] if none is addressed yet.
    last: usize,
    last_session: SessionId,
    made: Vec<u8>,
}

/// What one client is to be sent in this step.
#[derive(Debug)]
struct SessionPieces {
    session: SessionId,
    pieces: Pieces,
}

/// No session has the serial number 0.
const NOBODY: SessionId = SessionId { slot: 0, serial: 0 };

impl Default for Plan {
    fn default() -> Self {
        Self {
            to_server: Pieces::default(),
            to_sessions: Vec::new(),
            addressed: 0,
            last: 0,
            last_session: NOBODY,
            made: Vec::new(),
        }
    }
}

/// Clients whose lists keep their memory.
const LISTS_KEPT: usize = 8;

impl Plan {
    /// Empties the plan for the next step. Memory is kept, but not more than 16 KiB of made bytes
    /// after a step that made over 64 KiB, and the lists of 8 clients.
    pub fn clear(&mut self) {
        self.to_server.clear();
        for entry in &mut self.to_sessions[..self.addressed] {
            entry.pieces.clear();
        }
        (self.addressed, self.last_session) = (0, NOBODY);
        self.to_sessions.truncate(LISTS_KEPT);
        self.made.clear();
        if self.made.capacity() > 4 * HOLD_LIMIT {
            self.made.shrink_to(HOLD_LIMIT);
        }
    }

    /// Returns what is to be written to the server connection that the step was about: in a
    /// client's turn the one that its session is linked to.
    #[inline]
    #[must_use]
    pub const fn to_server(&self) -> &Pieces {
        &self.to_server
    }

    /// Returns what is to be written to clients: each session once, in the order in which the step
    /// addressed them, and none with nothing to write. The driver copies those of a session whose
    /// turn it is not (`Pooler::queue_output`); for one that has left meanwhile, they are dropped.
    #[inline]
    pub fn to_sessions(&self) -> impl Iterator<Item = (SessionId, &Pieces)> {
        let addressed = &self.to_sessions[..self.addressed];
        addressed.iter().map(|entry| (entry.session, &entry.pieces))
    }

    /// Returns the number of bytes to be written to all clients together; 0 if there are none.
    /// Counted in the pool's `client_bytes_out`.
    #[inline]
    #[must_use]
    pub fn bytes_to_sessions(&self) -> u64 {
        self.to_sessions().map(|(_, pieces)| pieces.bytes()).sum()
    }

    /// Returns the bytes that the core has made in this step: what [`Piece::Made`] points into.
    /// Valid until the plan is cleared.
    #[inline]
    #[must_use]
    pub fn made(&self) -> &[u8] {
        &self.made
    }

    /// Appends bytes `from..to` of the processed buffer for the server.
    #[inline]
    pub(crate) fn span_to_server(&mut self, from: usize, to: usize) {
        self.to_server.span(from, to);
    }

    /// Lets `write` append made bytes for the server.
    pub(crate) fn make_for_server(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let from = self.made.len();
        write(&mut self.made);
        self.to_server.made(from, self.made.len());
    }

    /// Appends bytes `from..to` of the processed buffer for this session's client.
    #[inline]
    pub(crate) fn span_to_session(&mut self, session: SessionId, from: usize, to: usize) {
        if from != to {
            self.pieces_for(session).span(from, to);
        }
    }

    /// Lets `write` append made bytes for this session's client.
    pub(crate) fn make_for_session(
        &mut self,
        session: SessionId,
        write: impl FnOnce(&mut Vec<u8>),
    ) {
        let from = self.made.len();
        write(&mut self.made);
        let to = self.made.len();
        if from != to {
            self.pieces_for(session).made(from, to);
        }
    }

    /// The list of a session; one that was not addressed before in this step is added.
    #[inline(always)]
    fn pieces_for(&mut self, session: SessionId) -> &mut Pieces {
        if self.last_session != session {
            self.last = self.address(session);
            self.last_session = session;
        }
        &mut self.to_sessions[self.last].pieces
    }

    /// The place of a session that was not the last one to be written to.
    #[inline(never)]
    fn address(&mut self, session: SessionId) -> usize {
        let addressed = &self.to_sessions[..self.addressed];
        if let Some(at) = addressed.iter().position(|entry| entry.session == session) {
            return at;
        }
        let at = self.addressed;
        match self.to_sessions.get_mut(at) {
            Some(entry) => entry.session = session,
            None => self.to_sessions.push(SessionPieces { session, pieces: Pieces::default() }),
        }
        self.addressed += 1;
        at
    }
}

/// What becomes of the rest of a message that is longer than the buffer, and of which the beginning
/// was processed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// There is no such message: the next byte is the tag of a message (protocol chapter "Message
    /// Formats").
    None,
    /// The next bytes, as many as this, are forwarded to the peer for which the message is.
    Forward(u32),
    /// The next bytes, as many as this, are dropped: the message is for nobody but the proxy.
    Drop(u32),
}

/// What a step returns: how far a buffer was processed, and why the processing stopped there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Processed {
    /// How many bytes of the buffer, from its start, are dealt with: the driver drops them, once
    /// the plan is written. The next call gets the rest in front.
    pub taken: u32,
    /// Why the processing stopped, and so what the driver does before it calls again for the same
    /// peer.
    pub stop: Stop,
}

/// Why a step stopped, and what the driver has to do before the next step of the same peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Everything in the buffer was processed: read more.
    Drained,
    /// The next message is not complete: read until this many bytes, counted from the first that
    /// was not taken, are there, then call again.
    Need(u32),
    /// The session needs a server connection before its next message: call `Pooler::checkout`.
    Checkout,
    /// The server connection is idle and no reply of it is pending: once everything is written it
    /// is given back (`Pooler::checkin`).
    Checkin,
    /// The next message of the client is served elsewhere: once everything is written, the server
    /// connection is given back (`Pooler::checkin`), then the same bytes are processed again.
    Leave,
    /// As [`Self::Checkin`], after `Pooler::take_refused`, whose bytes the client has sent and a
    /// replica has refused: they are processed again, in front of all others.
    Again,
    /// The next message must wait for replies that are pending; the client is not read until its
    /// server connection has made a step, or the session is woken.
    Wait,
    /// The next message would pin the session to its server connection, and as many sessions of the
    /// pool are pinned as may be (`max_pinned`): it waits (`Pooler::await_place`).
    WaitForPlace,
    /// The client sent Terminate (protocol chapter "Message Flow", "Termination"): call
    /// `Pooler::handle_departure`. What it sent before still runs.
    Terminate,
    /// The peer broke the protocol, or the session has left. What the plan holds is the final error
    /// that the client is told, if there is one; then the connection is closed. After a step of a
    /// server connection, the driver clears the plan and calls `Pooler::handle_server_gone`.
    Fault,
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: SessionId = SessionId { slot: 0, serial: 1 };
    const OTHER: SessionId = SessionId { slot: 0, serial: 2 };

    fn pieces(plan: &Plan) -> Vec<(SessionId, &[Piece])> {
        plan.to_sessions().map(|(session, pieces)| (session, pieces.pieces())).collect()
    }

    #[test]
    fn neighbours_merge_and_keep_their_order() {
        let mut plan = Plan::default();
        plan.span_to_server(0, 5);
        plan.span_to_server(5, 9);
        plan.make_for_server(|out| out.extend_from_slice(b"ab"));
        plan.make_for_session(ONE, |out| out.extend_from_slice(b"c"));
        plan.make_for_server(|out| out.extend_from_slice(b"d"));
        plan.span_to_server(9, 9);
        assert_eq!(
            plan.to_server().pieces(),
            [Piece::Span(0..9), Piece::Made(0..2), Piece::Made(3..4)]
        );
        assert_eq!(pieces(&plan), [(ONE, &[Piece::Made(2..3)][..])]);
        assert_eq!(plan.to_server().bytes(), 12);
        plan.clear();
        assert!(plan.to_server().is_empty() && plan.to_sessions().next().is_none());
    }

    #[test]
    fn each_session_has_its_own_pieces_and_a_slot_is_not_a_session() {
        let mut plan = Plan::default();
        plan.span_to_session(ONE, 0, 5);
        plan.span_to_session(OTHER, 5, 9);
        plan.span_to_session(ONE, 9, 12);
        plan.make_for_session(OTHER, |out| out.push(b'x'));
        plan.span_to_session(SessionId { slot: 1, serial: 3 }, 12, 12);
        let one = [Piece::Span(0..5), Piece::Span(9..12)];
        let other = [Piece::Span(5..9), Piece::Made(0..1)];
        assert_eq!(pieces(&plan), [(ONE, &one[..]), (OTHER, &other[..])]);
        assert_eq!(plan.bytes_to_sessions(), 13);
        plan.clear();
        plan.span_to_session(OTHER, 0, 1);
        assert_eq!(
            pieces(&plan),
            [(OTHER, &[Piece::Span(0..1)][..])],
            "the last step is forgotten"
        );
    }
}
