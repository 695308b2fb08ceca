//! Bytes that a peer's socket did not take.
//!
//! Buffers come from a worker's free list, so that an idle client holds none.

use std::io::{self, IoSlice};
use std::ops::Range;
use std::task::{Context, Poll};

use pgimbal_pooler::plan::{Piece, Pieces};

use crate::transport::Transport;

/// Limit of buffers that are kept for reuse; more are given back to the allocator.
const KEPT: usize = 64;

/// Size in bytes of the largest buffer that is kept; a larger one was for an unusual message.
const KEPT_BYTES: usize = 32 * 1024;

/// Number of pieces that one system call writes at most. A run of messages makes few; Linux takes
/// 1024.
const PIECES_AT_ONCE: usize = 64;

/// A worker's spare buffers, at most 64 of at most 32 KiB, shared by all its inboxes and outboxes.
#[derive(Debug, Default)]
pub(super) struct FreeList(Vec<Vec<u8>>);

impl FreeList {
    /// Takes a spare buffer, or makes one without memory. It is empty.
    pub(super) fn take(&mut self) -> Vec<u8> {
        self.0.pop().unwrap_or_default()
    }

    /// Takes `buffer` back for reuse, unless it is too large or there are enough, and leaves an
    /// empty one without memory in its place.
    pub(super) fn give_back(&mut self, buffer: &mut Vec<u8>) {
        let mut buffer = std::mem::take(buffer);
        if buffer.capacity() > 0 && buffer.capacity() <= KEPT_BYTES && self.0.len() < KEPT {
            buffer.clear();
            self.0.push(buffer);
        }
    }

    /// Replaces the content of `buffer` by `bytes`; when these are empty, its memory is given back.
    pub(super) fn keep(&mut self, buffer: &mut Vec<u8>, bytes: &[u8]) {
        if bytes.is_empty() {
            self.give_back(buffer);
            return;
        }
        if buffer.capacity() == 0 {
            *buffer = self.take();
        }
        buffer.clear();
        buffer.extend_from_slice(bytes);
    }
}

/// Bytes that still have to be written to one peer. While there are any, nothing is read from the
/// other side, so that the outbox does not grow.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    bytes: Vec<u8>,
    sent: usize,
}

impl Outbox {
    /// Whether no bytes are left in pgimbal's memory; TLS may still hold some.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Adds bytes that pgimbal made; the next [`Self::poll_flush`] writes them.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Writes the bytes that are left, and then those that TLS holds. `Ready(Ok)` when all are
    /// written; the buffer is given back to `free` then.
    pub(super) fn poll_flush(
        &mut self,
        transport: &mut Transport,
        free: &mut FreeList,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while self.sent < self.bytes.len() {
            match transport.poll_write_vectored(cx, &[IoSlice::new(&self.bytes[self.sent..])]) {
                Poll::Ready(Ok(n)) => self.sent += n,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
        if !self.bytes.is_empty() {
            self.sent = 0;
            free.give_back(&mut self.bytes);
        }
        if transport.wants_flush() { transport.poll_flush(cx) } else { Poll::Ready(Ok(())) }
    }

    /// Writes `pieces` of a plan at once, in order, up to 64 per system call; what the socket does
    /// not take is copied and kept. Behind bytes that are left from before, all is kept.
    ///
    /// # Errors
    /// The error of the socket; the peer is gone then.
    pub(super) fn send(
        &mut self,
        transport: &mut Transport,
        free: &mut FreeList,
        cx: &mut Context<'_>,
        source: Source<'_>,
        pieces: &Pieces,
    ) -> io::Result<()> {
        if pieces.is_empty() {
            return Ok(());
        }
        let mut rest = pieces.pieces();
        let mut skip = 0;
        while self.bytes.is_empty() && !rest.is_empty() {
            let (batch, _) = rest.split_at(rest.len().min(PIECES_AT_ONCE));
            let mut slices = [IoSlice::new(&[]); PIECES_AT_ONCE];
            for (slice, piece) in slices.iter_mut().zip(batch) {
                *slice = IoSlice::new(source.bytes(piece));
            }
            slices[0] = IoSlice::new(&source.bytes(&rest[0])[skip..]);
            match transport.poll_write_vectored(cx, &slices[..batch.len()]) {
                Poll::Ready(Ok(mut written)) => {
                    while let Some(piece) = rest.first() {
                        let left = source.bytes(piece).len() - skip;
                        if written < left {
                            skip += written;
                            break;
                        }
                        written -= left;
                        skip = 0;
                        rest = &rest[1..];
                    }
                }
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => break,
            }
        }
        self.keep(free, source, rest, skip);
        if self.bytes.is_empty() && transport.wants_flush() {
            // What TLS cannot send now, it keeps: the next flush sends it.
            let _ = transport.poll_flush(cx)?;
        }
        Ok(())
    }

    /// Drops all bytes and gives the memory back to `free`, because the peer is gone.
    pub(super) fn discard(&mut self, free: &mut FreeList) {
        self.sent = 0;
        free.give_back(&mut self.bytes);
    }

    fn keep(&mut self, free: &mut FreeList, source: Source<'_>, rest: &[Piece], mut skip: usize) {
        for piece in rest {
            if self.bytes.capacity() == 0 {
                self.bytes = free.take();
            }
            self.bytes.extend_from_slice(&source.bytes(piece)[skip..]);
            skip = 0;
        }
    }
}

/// The two buffers into which the pieces of a plan point.
#[derive(Clone, Copy, Debug)]
pub(super) struct Source<'a> {
    /// The buffer of bytes that the core has processed, for [`Piece::Span`].
    pub(super) processed: &'a [u8],
    /// The bytes that the core made, for [`Piece::Made`].
    pub(super) made: &'a [u8],
}

impl<'a> Source<'a> {
    /// The bytes of each of `pieces`, in their order.
    pub(super) fn all(self, pieces: &Pieces) -> impl Iterator<Item = &'a [u8]> {
        pieces.pieces().iter().map(move |piece| self.bytes(piece))
    }

    fn bytes(self, piece: &Piece) -> &'a [u8] {
        let at = |range: &Range<u32>| range.start as usize..range.end as usize;
        match piece {
            Piece::Span(range) => &self.processed[at(range)],
            Piece::Made(range) => &self.made[at(range)],
        }
    }
}
