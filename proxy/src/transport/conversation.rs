//! A conversation: whole messages in and one write for each step out, as logins and probes need it.
//!
//! Memory is bounded by what has arrived, never by a length field.

use std::future::poll_fn;
use std::io::{self, IoSlice};

use pgimbal_wire::frame::{self, BadLength, HEADER_LEN};

use super::Transport;

/// Number of bytes that one read asks for; more than any message of a usual login.
const READ_STEP: usize = 2048;

/// Limit of the bytes that are read and dropped when a refused connection is closed.
const MAX_DRAIN: usize = 64 * 1024;

/// A transport with its read buffer and its write buffer.
#[derive(Debug)]
pub(crate) struct Conversation {
    pub(crate) transport: Transport,
    /// Bytes read and not yet consumed.
    pub(crate) inbox: Vec<u8>,
    /// Bytes that the next [`Self::send`] writes.
    pub(crate) outbox: Vec<u8>,
}

/// The reason for which no message arrives.
#[derive(Debug)]
pub(crate) enum Broken {
    /// The other side closed the connection.
    Closed,
    /// The socket failed.
    Io(io::Error),
    /// The message's length is invalid, or above the limit of this step.
    Length(BadLength),
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Conversation {
    pub(crate) fn new(transport: Transport) -> Self {
        Self { transport, inbox: Vec::new(), outbox: Vec::new() }
    }

    /// Waits for bytes and appends them to the inbox, at most 2048. It has no time limit of its
    /// own. [`Broken::Closed`] at the end of the stream.
    pub(crate) async fn fill(&mut self) -> Result<(), Broken> {
        let filled = self.inbox.len();
        self.inbox.resize(filled + READ_STEP, 0);
        let Self { transport, inbox, .. } = self;
        let result = poll_fn(|cx| transport.poll_read(cx, &mut inbox[filled..])).await;
        inbox.truncate(filled + result.as_ref().copied().unwrap_or(0));
        match result? {
            0 => Err(Broken::Closed),
            _ => Ok(()),
        }
    }

    /// Waits for a whole message at the front of the inbox, and returns its tag and its length in
    /// bytes, header included. `limit` is the longest that is accepted, counted so too. The message
    /// stays in the inbox until [`Self::consume`].
    pub(crate) async fn message(&mut self, limit: usize) -> Result<(u8, usize), Broken> {
        loop {
            if let Some(header) = frame::peek(&self.inbox).map_err(Broken::Length)? {
                let total = header.total as usize;
                if total > limit {
                    let length = header.total - 1;
                    return Err(Broken::Length(BadLength { tag: header.tag, length }));
                }
                if self.inbox.len() >= total {
                    return Ok((header.tag, total));
                }
            }
            self.fill().await?;
        }
    }

    /// The body of the message of `total` bytes at the front of the inbox.
    pub(crate) fn body(&self, total: usize) -> &[u8] {
        &self.inbox[HEADER_LEN..total]
    }

    /// Drops `count` bytes from the front of the inbox.
    pub(crate) fn consume(&mut self, count: usize) {
        self.inbox.drain(..count);
    }

    /// Writes the outbox, empties it and flushes the transport; a flush alone when it is empty.
    pub(crate) async fn send(&mut self) -> io::Result<()> {
        let Self { transport, outbox, .. } = self;
        let mut sent = 0;
        while sent < outbox.len() {
            let rest = &outbox[sent..];
            sent += poll_fn(|cx| transport.poll_write_vectored(cx, &[IoSlice::new(rest)])).await?;
        }
        outbox.clear();
        poll_fn(|cx| transport.poll_flush(cx)).await
    }

    /// Writes the outbox and closes the connection; errors are ignored. Bytes that have arrived and
    /// were not read (at most 64 KiB) are read first, because closing a socket with unread bytes
    /// resets it, and the peer would lose what it was just sent.
    pub(crate) async fn close(mut self) {
        if self.send().await.is_err() {
            return;
        }
        let Self { mut transport, mut inbox, .. } = self;
        if poll_fn(|cx| transport.poll_shutdown(cx)).await.is_err() {
            return;
        }
        inbox.resize(READ_STEP, 0);
        let mut drained = 0;
        while let Some(Ok(count @ 1..)) = transport.try_read_cached(&mut inbox) {
            drained += count;
            if drained > MAX_DRAIN {
                break;
            }
        }
    }
}
