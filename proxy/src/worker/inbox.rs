//! Reads bytes from a peer (client or server). All peers of a worker share one read buffer; bytes
//! that a peer's last read left unprocessed are put in front of the next.

use std::io;
use std::task::{Context, Poll};

use pgimbal_pooler::plan::HOLD_LIMIT;

use super::outbox::FreeList;
use crate::transport::Transport;

/// Number of bytes that one read takes at most: large enough that a long result costs few system
/// calls, small enough to stay in the second-level cache.
const READ: usize = 64 * 1024;

/// Room in front of a read for the bytes left from the one before.
const FRONT: usize = HOLD_LIMIT;

/// A worker's read buffer: [`FRONT`] bytes for what was left before, then [`READ`] bytes for a
/// read.
#[derive(Debug)]
pub(super) struct ReadBuffer(Box<[u8]>);

impl ReadBuffer {
    fn new() -> Self {
        Self(vec![0; FRONT + READ].into())
    }

    /// Makes a buffer of no bytes, so that a read into it panics; for a test.
    #[cfg(test)]
    pub(super) fn broken() -> Self {
        Self(Box::default())
    }
}

/// The place of a read buffer while no turn uses it. A turn that panics loses the buffer; the next
/// one gets a new one.
#[derive(Debug, Default)]
pub(super) struct SpareBuffer(Option<ReadBuffer>);

impl SpareBuffer {
    /// Takes the buffer, or makes one when there is none.
    #[inline]
    pub(super) fn lend(&mut self) -> ReadBuffer {
        self.0.take().unwrap_or_else(ReadBuffer::new)
    }

    /// Puts the buffer back after a turn.
    #[inline]
    pub(super) fn give_back(&mut self, buffer: ReadBuffer) {
        self.0 = Some(buffer);
    }
}

/// Bytes that were read from one peer and not processed yet, for example half a message.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    held: Vec<u8>,
}

/// Bytes of one peer to be processed: those held before, then those just read.
#[derive(Debug)]
pub(super) enum Input {
    /// The bytes of the read buffer from the first index up to the second.
    Buffered(usize, usize),
    /// A buffer of its own, when more than [`FRONT`] bytes were held: a message that can only be
    /// processed as a whole.
    Large(Vec<u8>),
}

impl Inbox {
    /// Makes an inbox that holds `held`, the bytes that arrived behind the login.
    pub(super) const fn with(held: Vec<u8>) -> Self {
        Self { held }
    }

    /// Whether no bytes are held.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// The bytes held, in the order in which they arrived.
    pub(super) fn held(&self) -> &[u8] {
        &self.held
    }

    /// Reads once, up to 64 KiB, and returns the bytes held together with those that came; the
    /// inbox must be given the rest by [`Self::keep`]. `Ok(None)` when the peer has closed its
    /// side; bytes held stay held then.
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

    /// Reads as [`Self::poll_read`] does from a connection whose task is not waiting for it; `None`
    /// when the runtime has seen nothing come. It wakes nobody.
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

    /// The bytes held, to be processed again without a read. The rest must be given back by
    /// [`Self::keep`], as after [`Self::poll_read`].
    pub(super) fn again(&mut self, buffer: &mut ReadBuffer) -> Input {
        self.joined(buffer, 0)
    }

    /// Holds `rest`, the bytes that were not processed, in place of what was held; empty gives the
    /// memory back to `free`.
    #[inline]
    pub(super) fn keep(&mut self, rest: &[u8], free: &mut FreeList) {
        if !rest.is_empty() || self.held.capacity() > 0 {
            free.keep(&mut self.held, rest);
        }
    }

    /// Puts `bytes` in front of the bytes held: they are processed first.
    pub(super) fn prepend(&mut self, mut bytes: Vec<u8>) {
        bytes.append(&mut self.held);
        self.held = bytes;
    }

    /// Adds `bytes` behind those held.
    pub(super) fn append(&mut self, bytes: &[u8]) {
        self.held.extend_from_slice(bytes);
    }

    /// Drops the bytes held and gives their memory back to `free`.
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
    /// The bytes to process; `buffer` must be the one that was read into.
    #[inline]
    pub(super) fn bytes<'a>(&'a self, buffer: &'a ReadBuffer) -> &'a [u8] {
        match self {
            Self::Buffered(from, to) => &buffer.0[*from..*to],
            Self::Large(bytes) => bytes,
        }
    }
}
