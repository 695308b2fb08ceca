//! Reading a peer: one buffer for the whole worker, in front of which stands what a peer's last
//! read has left.

use std::io;
use std::task::{Context, Poll};

use pgimbal_pooler::plan::HOLD_LIMIT;

use super::outbox::FreeList;
use crate::transport::Transport;

/// Bytes of one read: large enough that a long result costs few system calls, small enough to stay
/// in the second-level cache.
const READ: usize = 64 * 1024;

/// Room in front of a read for what is left of the one before.
const FRONT: usize = HOLD_LIMIT;

/// A worker's read buffer.
#[derive(Debug)]
pub(super) struct ReadBuffer(Box<[u8]>);

impl ReadBuffer {
    fn new() -> Self {
        Self(vec![0; FRONT + READ].into())
    }

    /// One that cannot be read into.
    #[cfg(test)]
    pub(super) fn broken() -> Self {
        Self(Box::default())
    }
}

/// A place for a read buffer that is lent. A turn that panics loses the buffer; the next one gets a
/// new one.
#[derive(Debug, Default)]
pub(super) struct SpareBuffer(Option<ReadBuffer>);

impl SpareBuffer {
    #[inline]
    pub(super) fn lend(&mut self) -> ReadBuffer {
        self.0.take().unwrap_or_else(ReadBuffer::new)
    }

    #[inline]
    pub(super) fn give_back(&mut self, buffer: ReadBuffer) {
        self.0 = Some(buffer);
    }
}

/// Bytes of a peer that were read and not processed yet.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    held: Vec<u8>,
}

/// What there is to process.
#[derive(Debug)]
pub(super) enum Input {
    /// The front of the read buffer, from here to there.
    Buffered(usize, usize),
    /// More than fits there: a message that must be whole to be processed.
    Large(Vec<u8>),
}

impl Inbox {
    /// An inbox with bytes that were read during the login.
    pub(super) const fn with(held: Vec<u8>) -> Self {
        Self { held }
    }

    /// Whether nothing is held.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// The bytes held.
    pub(super) fn held(&self) -> &[u8] {
        &self.held
    }

    /// Reads, and returns what is held together with what came. `Ok(None)` is the end.
    #[inline]
    pub(super) fn poll_read(
        &mut self,
        transport: &mut Transport,
        buffer: &mut ReadBuffer,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Option<Input>>> {
        let n = match transport.poll_read(cx, &mut buffer.0[FRONT..]) {
            Poll::Ready(Ok(0)) => return Poll::Ready(Ok(None)),
            Poll::Ready(Ok(n)) => n,
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Pending => return Poll::Pending,
        };
        Poll::Ready(Ok(Some(self.joined(buffer, n))))
    }

    /// As [`Self::poll_read`], of a connection that nobody waits for; `None` when nothing came.
    pub(super) fn try_read_cached(
        &mut self,
        transport: &mut Transport,
        buffer: &mut ReadBuffer,
    ) -> Option<io::Result<Option<Input>>> {
        match transport.try_read_cached(&mut buffer.0[FRONT..])? {
            Ok(0) => Some(Ok(None)),
            Ok(n) => Some(Ok(Some(self.joined(buffer, n)))),
            Err(error) => Some(Err(error)),
        }
    }

    /// What is held, to be processed again without a read.
    pub(super) fn again(&mut self, buffer: &mut ReadBuffer) -> Input {
        self.joined(buffer, 0)
    }

    /// Keeps what was not processed.
    #[inline]
    pub(super) fn keep(&mut self, rest: &[u8], free: &mut FreeList) {
        if !rest.is_empty() || self.held.capacity() > 0 {
            free.keep(&mut self.held, rest);
        }
    }

    /// Holds more, in front of what is held.
    pub(super) fn prepend(&mut self, mut bytes: Vec<u8>) {
        bytes.append(&mut self.held);
        self.held = bytes;
    }

    /// Holds more, behind what is held.
    pub(super) fn append(&mut self, bytes: &[u8]) {
        self.held.extend_from_slice(bytes);
    }

    /// Gives the memory back.
    pub(super) fn discard(&mut self, free: &mut FreeList) {
        free.give_back(&mut self.held);
    }

    fn joined(&mut self, buffer: &mut ReadBuffer, n: usize) -> Input {
        let held = self.held.len();
        if held <= FRONT {
            buffer.0[FRONT - held..FRONT].copy_from_slice(&self.held);
            return Input::Buffered(FRONT - held, FRONT + n);
        }
        let mut large = std::mem::take(&mut self.held);
        large.extend_from_slice(&buffer.0[FRONT..FRONT + n]);
        Input::Large(large)
    }
}

impl Input {
    /// The bytes.
    #[inline]
    pub(super) fn bytes<'a>(&'a self, buffer: &'a ReadBuffer) -> &'a [u8] {
        match self {
            Self::Buffered(from, to) => &buffer.0[*from..*to],
            Self::Large(bytes) => bytes,
        }
    }
}
