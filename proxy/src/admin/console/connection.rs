//! The console's connection to a client: reads whole messages and buffers the output.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::time::Duration;

use pgimbal_wire::frame::{self, HEADER_LEN};
use tokio::time::timeout;

use super::answer::Fault;
use crate::transport::Transport;

/// Longest message in bytes, header included; no command comes near it.
const MAX_MESSAGE: usize = 16 * 1024;
/// Number of bytes that one read asks of the socket.
const READ_SIZE: usize = 1024;
/// Size of the buffered output, in bytes, above which it is written before the next request is
/// read.
const OUTPUT_HIGH: usize = 64 * 1024;
/// Time that a client may leave an answer unread before its session ends.
const WRITE_TIME: Duration = Duration::from_secs(60);

/// A connection with its read buffer and its write buffer.
#[derive(Debug)]
pub(super) struct ConsoleConnection {
    transport: Transport,
    input: Vec<u8>,
    /// Number of bytes at the start of `input` that were consumed.
    taken: usize,
    /// The bytes that the next flush writes.
    pub(super) output: Vec<u8>,
}

/// The reason for which the connection has no further message.
#[derive(Debug)]
pub(super) enum Ended {
    /// The client closed the connection.
    Closed,
    /// The client broke the protocol, or sent a message that is too long.
    Refused(Fault),
    /// The connection failed.
    Io(io::Error),
}

impl From<io::Error> for Ended {
    fn from(err: io::Error) -> Self {
        Self::Io(err)
    }
}

impl ConsoleConnection {
    /// Makes a connection whose login left `input` unread and `output` unsent.
    pub(super) fn new(transport: Transport, input: Vec<u8>, output: Vec<u8>) -> Self {
        Self { transport, input, taken: 0, output }
    }

    /// The next message's tag and body, without its header. The buffered output is written first
    /// when the client may be waiting for it: when no whole message is there, or much is buffered.
    ///
    /// # Errors
    /// [`Ended`] when the client is gone, or its message is malformed or too long.
    pub(super) async fn next(&mut self) -> Result<(u8, Vec<u8>), Ended> {
        loop {
            if let Some(message) = self.take()? {
                if self.output.len() > OUTPUT_HIGH {
                    self.flush().await?;
                }
                return Ok(message);
            }
            self.flush().await?;
            self.read().await?;
        }
    }

    /// Writes all output, within the time that a client may leave an answer unread
    /// ([`io::ErrorKind::TimedOut`] beyond it). The output is empty afterwards, also after an
    /// error.
    pub(super) async fn flush(&mut self) -> io::Result<()> {
        if self.output.is_empty() {
            return Ok(());
        }
        let written = timeout(WRITE_TIME, write_all(&mut self.transport, &self.output)).await;
        self.output = Vec::new();
        written.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
    }

    /// Closes the sending direction, as the last step of a session; buffered output is not written.
    pub(super) async fn shut_down(&mut self) -> io::Result<()> {
        let closed = poll_fn(|cx| self.transport.poll_shutdown(cx));
        timeout(WRITE_TIME, closed).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
    }

    fn take(&mut self) -> Result<Option<(u8, Vec<u8>)>, Ended> {
        let rest = &self.input[self.taken..];
        let header = frame::peek(rest).map_err(|err| Ended::Refused(protocol(err.to_string())))?;
        let Some(header) = header else { return Ok(None) };
        let total = header.total as usize;
        if total > MAX_MESSAGE {
            return Err(Ended::Refused(protocol(format!(
                "a message of {total} bytes is too long for the console"
            ))));
        }
        let Some(message) = rest.get(..total) else { return Ok(None) };
        let body = message[HEADER_LEN..].to_vec();
        self.taken += total;
        Ok(Some((header.tag, body)))
    }

    async fn read(&mut self) -> Result<(), Ended> {
        self.input.drain(..self.taken);
        self.taken = 0;
        let held = self.input.len();
        self.input.resize(held + READ_SIZE, 0);
        let room = &mut self.input[held..];
        let count = poll_fn(|cx| self.transport.poll_read(cx, room)).await?;
        self.input.truncate(held + count);
        if count == 0 { Err(Ended::Closed) } else { Ok(()) }
    }
}

/// Makes the error of a protocol violation (08P01).
pub(super) fn protocol(message: impl Into<String>) -> Fault {
    Fault::new(pgimbal_wire::error::SqlState::PROTOCOL_VIOLATION, message)
}

async fn write_all(transport: &mut Transport, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let sent = poll_fn(|cx| transport.poll_write_vectored(cx, &[IoSlice::new(bytes)])).await?;
        if sent == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        bytes = &bytes[sent..];
    }
    poll_fn(|cx| transport.poll_flush(cx)).await
}
