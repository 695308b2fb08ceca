//! What a step of the core wants written, and where it stopped.
//!
//! Pieces are offsets into the buffer that was processed or into the plan's scratch, never borrows:
//! the driver sends them with one `writev` before the buffer changes.

use std::ops::Range;

/// The size up to which a message is held until it is whole; a longer one is processed by its
/// prefix and streams. 16 KiB holds nearly every control message and most rows, and 10,000 clients
/// that each stop in the middle of one cost 160 MB at worst.
pub const HOLD_LIMIT: usize = 16 * 1024;

/// Bytes to write: out of the processed buffer, or made by the core.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Offsets into the buffer that was processed.
    Span(Range<u32>),
    /// Offsets into [`Plan::scratch`].
    Made(Range<u32>),
}

/// An ordered list of pieces for one peer; neighbours merge.
#[derive(Debug, Default)]
pub struct Pieces {
    list: Vec<Piece>,
    bytes: u64,
}

impl Pieces {
    /// Appends bytes `from..to` of the processed buffer.
    #[inline]
    pub fn span(&mut self, from: usize, to: usize) {
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

    /// The pieces in the order in which they are to be written.
    #[must_use]
    pub fn pieces(&self) -> &[Piece] {
        &self.list
    }

    /// Whether there is nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Bytes in all pieces together.
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

/// What one step wants written to either peer. One per worker, reused by every step.
#[derive(Debug, Default)]
pub struct Plan {
    /// For the server that the session is linked to.
    pub to_server: Pieces,
    /// For the client.
    pub to_client: Pieces,
    /// Bytes that the core made.
    pub scratch: Vec<u8>,
}

impl Plan {
    /// Forgets everything, keeps the memory unless one step made it large.
    pub fn clear(&mut self) {
        self.to_server.clear();
        self.to_client.clear();
        self.scratch.clear();
        if self.scratch.capacity() > 4 * HOLD_LIMIT {
            self.scratch.shrink_to(HOLD_LIMIT);
        }
    }

    /// Whether there is nothing to write to anybody.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.to_server.is_empty() && self.to_client.is_empty()
    }

    /// Lets `write` append made bytes for the server.
    pub fn make_for_server(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let from = self.scratch.len();
        write(&mut self.scratch);
        self.to_server.made(from, self.scratch.len());
    }

    /// Lets `write` append made bytes for the client.
    pub fn make_for_client(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let from = self.scratch.len();
        write(&mut self.scratch);
        self.to_client.made(from, self.scratch.len());
    }
}

/// How far a buffer was processed, and why the processing stopped there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Processed {
    /// Bytes of the buffer that are dealt with, from its start.
    pub taken: u32,
    /// Why it stopped.
    pub stop: Stop,
}

/// Why a step stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Everything in the buffer was processed.
    Drained,
    /// The next message can be processed once this many bytes stand at the front of the buffer.
    Need(u32),
    /// The session needs a server connection before the next message.
    Checkout,
    /// The server connection is idle and no reply of it is pending: once everything is written it
    /// is released.
    Checkin,
    /// The next message must wait for replies that are pending; the client is not read.
    Wait,
    /// The next message would pin the session, and as many are pinned as may be: it waits
    /// ([`Pooler::await_place`](crate::pooler::Pooler::await_place)).
    WaitForPlace,
    /// The client said Terminate.
    Terminate,
    /// The peer broke the protocol; what the plan holds is the final error that it is told.
    Fault,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_merge_and_keep_their_order() {
        let mut plan = Plan::default();
        plan.to_server.span(0, 5);
        plan.to_server.span(5, 9);
        plan.make_for_server(|out| out.extend_from_slice(b"ab"));
        plan.make_for_client(|out| out.extend_from_slice(b"c"));
        plan.make_for_server(|out| out.extend_from_slice(b"d"));
        plan.to_server.span(9, 9);
        assert_eq!(
            plan.to_server.pieces(),
            [Piece::Span(0..9), Piece::Made(0..2), Piece::Made(3..4)]
        );
        assert_eq!(plan.to_client.pieces(), [Piece::Made(2..3)]);
        assert_eq!(plan.to_server.bytes(), 12);
        plan.clear();
        assert!(plan.is_empty());
    }
}
