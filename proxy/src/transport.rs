//! One connection's bytes: plain or TLS, TCP or Unix.
//!
//! Owns how few system calls a read or write takes; knows nothing of what the bytes say.

mod conversation;
mod socket;

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::{client, server};

pub(crate) use conversation::{Broken, Conversation};
pub use socket::Socket;

/// A setting's name and value, bytes as they came.
pub type Setting = (Box<[u8]>, Box<[u8]>);

/// A connection of either side, ready for its first message after the login.
#[derive(Debug)]
pub enum Transport {
    /// No TLS.
    Plain(Socket),
    /// TLS with a client of ours.
    TlsServer(Box<server::TlsStream<Socket>>),
    /// TLS with a server that we dialled.
    TlsClient(Box<client::TlsStream<Socket>>),
}

impl Transport {
    /// Reads what has arrived; `Ok(0)` is the end. Plain: one `recv` for each wake-up, because a
    /// short read says that the socket is drained and clears its readiness; the waker is
    /// registered only when nothing is there.
    ///
    /// # Errors
    /// The socket's, or [`io::ErrorKind::InvalidData`] for what is not TLS.
    #[inline]
    pub fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(socket) => socket.poll_recv(cx, buf),
            Self::TlsServer(tls) => poll_read_tls(Pin::new(tls), cx, buf),
            Self::TlsClient(tls) => poll_read_tls(Pin::new(tls), cx, buf),
        }
    }

    /// Sends what the socket takes at once. Plain: one `send` without asking for readiness; only
    /// when the socket is full the waker is registered.
    ///
    /// Over TLS the count is of bytes encrypted; call [`Self::poll_flush`] when nothing more is
    /// to be written, until it is ready.
    ///
    /// # Errors
    /// The socket's.
    #[inline]
    pub fn poll_write_vectored(
        &mut self,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(socket) => socket.poll_send(cx, bufs),
            Self::TlsServer(tls) => poll_write_tls(Pin::new(tls), cx, bufs),
            Self::TlsClient(tls) => poll_write_tls(Pin::new(tls), cx, bufs),
        }
    }

    /// Sends what TLS has encrypted and the socket did not take yet. Plain: ready at once.
    ///
    /// # Errors
    /// The socket's.
    #[inline]
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(_) => Poll::Ready(Ok(())),
            Self::TlsServer(tls) => Pin::new(tls).poll_flush(cx),
            Self::TlsClient(tls) => Pin::new(tls).poll_flush(cx),
        }
    }

    /// Whether TLS holds encrypted bytes that [`Self::poll_flush`] must still send.
    #[must_use]
    #[inline]
    pub fn wants_flush(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::TlsServer(tls) => tls.get_ref().1.wants_write(),
            Self::TlsClient(tls) => tls.get_ref().1.wants_write(),
        }
    }

    /// Reads from a connection that nobody waits for: `None` without a system call unless the
    /// runtime has seen it become readable. `Some(Ok(0))` is the end.
    ///
    /// A waker registered before may be lost; poll again before relying on one.
    pub fn try_read_cached(&mut self, buf: &mut [u8]) -> Option<io::Result<usize>> {
        match self {
            Self::Plain(socket) => socket.try_recv(buf),
            Self::TlsServer(_) | Self::TlsClient(_) => {
                // A record may already be decrypted, so TLS is asked, not the socket alone. It
                // reads through the same cached readiness.
                match self.poll_read(&mut Context::from_waker(Waker::noop()), buf) {
                    Poll::Ready(result) => Some(result),
                    Poll::Pending => None,
                }
            }
        }
    }

    /// Sends TLS's closing alert, if any, and ends the sending direction.
    ///
    /// # Errors
    /// The socket's.
    pub fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(socket) => Pin::new(socket).poll_shutdown(cx),
            Self::TlsServer(tls) => Pin::new(tls).poll_shutdown(cx),
            Self::TlsClient(tls) => Pin::new(tls).poll_shutdown(cx),
        }
    }

    /// Takes the connection off this thread's runtime, TLS state and all.
    ///
    /// # Errors
    /// The socket's when it cannot be deregistered.
    pub fn into_parts(mut self) -> io::Result<Parts> {
        self.socket_mut().detach()?;
        Ok(Parts(self))
    }

    /// Registers a connection that came from another thread with this thread's runtime.
    ///
    /// # Errors
    /// The socket's when it cannot be registered.
    pub fn from_parts(parts: Parts) -> io::Result<Self> {
        let Parts(mut transport) = parts;
        transport.socket_mut().attach()?;
        Ok(transport)
    }

    /// The socket, for its options and addresses.
    #[must_use]
    pub fn socket(&self) -> &Socket {
        match self {
            Self::Plain(socket) => socket,
            Self::TlsServer(tls) => tls.get_ref().0,
            Self::TlsClient(tls) => tls.get_ref().0,
        }
    }

    /// Whether the connection is encrypted.
    #[must_use]
    pub const fn is_tls(&self) -> bool {
        !matches!(self, Self::Plain(_))
    }

    fn socket_mut(&mut self) -> &mut Socket {
        match self {
            Self::Plain(socket) => socket,
            Self::TlsServer(tls) => tls.get_mut().0,
            Self::TlsClient(tls) => tls.get_mut().0,
        }
    }
}

/// A connection that belongs to no runtime, on its way to another thread.
#[derive(Debug)]
pub struct Parts(Transport);

fn poll_read_tls<T: AsyncRead>(
    tls: Pin<&mut T>,
    cx: &mut Context<'_>,
    buf: &mut [u8],
) -> Poll<io::Result<usize>> {
    let mut buf = ReadBuf::new(buf);
    match ready!(tls.poll_read(cx, &mut buf)) {
        Ok(()) => Poll::Ready(Ok(buf.filled().len())),
        // A peer that closes without TLS's alert is as gone as one that sends it; PostgreSQL's
        // messages carry their own lengths, so nothing can be cut short unseen.
        Err(err) if err.kind() == io::ErrorKind::UnexpectedEof => Poll::Ready(Ok(0)),
        Err(err) => Poll::Ready(Err(err)),
    }
}

/// Encrypts only when everything before has been sent, so that a slow peer pauses its source
/// instead of filling TLS's buffer.
fn poll_write_tls<T: AsyncWrite>(
    mut tls: Pin<&mut T>,
    cx: &mut Context<'_>,
    bufs: &[IoSlice<'_>],
) -> Poll<io::Result<usize>> {
    ready!(tls.as_mut().poll_flush(cx))?;
    tls.poll_write_vectored(cx, bufs)
}
