//! Transports: the bytes of one connection, plain or TLS, over TCP or a Unix socket.
//!
//! This module owns how few system calls a read or write takes, and knows nothing of the messages.

mod conversation;
mod socket;

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::{client, server};

pub(crate) use conversation::{Broken, Conversation};
pub use socket::Socket;

/// Name and value of a setting, in the bytes in which they arrived, without terminators.
pub type Setting = (Box<[u8]>, Box<[u8]>);

/// A connection to a client or a server: its socket, and the state of TLS where it is used.
/// Dropping it closes the socket without TLS's closing alert.
#[derive(Debug)]
pub enum Transport {
    /// A connection without TLS.
    Plain(Socket),
    /// A TLS connection to a client.
    TlsServer(Box<server::TlsStream<Socket>>),
    /// A TLS connection to a server.
    TlsClient(Box<client::TlsStream<Socket>>),
}

impl Transport {
    /// Reads what has arrived; `Ok(0)` is the end of the stream, or an empty `buf`. Without TLS
    /// there is one `recv` for each wake-up, because a short read shows that the socket is drained
    /// and clears its readiness; the waker is registered only when nothing is there.
    ///
    /// # Errors
    /// The socket's error, and [`io::ErrorKind::InvalidData`] when the peer breaks TLS.
    #[inline]
    pub fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(socket) => socket.poll_recv(cx, buf),
            Self::TlsServer(tls) => poll_read_tls(Pin::new(tls), cx, buf),
            Self::TlsClient(tls) => poll_read_tls(Pin::new(tls), cx, buf),
        }
    }

    /// Writes as much as the socket takes at once. Without TLS there is one `send` without a look
    /// at the readiness; the waker is registered only when the socket is full.
    ///
    /// Over TLS the result counts the bytes that were encrypted: call [`Self::poll_flush`] until it
    /// is ready when nothing more is to be written.
    ///
    /// # Errors
    /// The socket's error.
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

    /// Sends the encrypted bytes that the socket has not taken yet; ready at once without TLS.
    ///
    /// # Errors
    /// The socket's error.
    #[inline]
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(_) => Poll::Ready(Ok(())),
            Self::TlsServer(tls) => Pin::new(tls).poll_flush(cx),
            Self::TlsClient(tls) => Pin::new(tls).poll_flush(cx),
        }
    }

    /// Whether there are encrypted bytes that [`Self::poll_flush`] must send; always `false`
    /// without TLS.
    #[must_use]
    #[inline]
    pub fn wants_flush(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::TlsServer(tls) => tls.get_ref().1.wants_write(),
            Self::TlsClient(tls) => tls.get_ref().1.wants_write(),
        }
    }

    /// Reads without waiting, if the runtime has seen the socket become readable; `None` without a
    /// system call otherwise. `Some(Ok(0))` is the end of the stream.
    ///
    /// A waker that was registered before may be lost; poll again before relying on one.
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

    /// Closes the sending direction, after TLS's closing alert, so that the peer reads the end of
    /// the stream. What the peer still sends can be read; dropping the transport closes the socket.
    ///
    /// # Errors
    /// The socket's error.
    pub fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(socket) => Pin::new(socket).poll_shutdown(cx),
            Self::TlsServer(tls) => Pin::new(tls).poll_shutdown(cx),
            Self::TlsClient(tls) => Pin::new(tls).poll_shutdown(cx),
        }
    }

    /// Deregisters the connection from this thread's runtime, with its TLS state, so that it can
    /// move to another thread, where [`Self::attach`] registers it. The connection is closed when
    /// that fails.
    ///
    /// # Errors
    /// The runtime's error when the socket cannot be deregistered.
    pub fn detach(mut self) -> io::Result<DetachedTransport> {
        self.socket_mut().detach()?;
        Ok(DetachedTransport(self))
    }

    /// Registers a connection from another thread with this thread's runtime. The connection is
    /// closed when that fails.
    ///
    /// # Errors
    /// The runtime's error when the socket cannot be registered.
    pub fn attach(detached: DetachedTransport) -> io::Result<Self> {
        let DetachedTransport(mut transport) = detached;
        transport.socket_mut().attach()?;
        Ok(transport)
    }

    /// The socket below TLS, for its options and addresses.
    #[must_use]
    pub fn socket(&self) -> &Socket {
        match self {
            Self::Plain(socket) => socket,
            Self::TlsServer(tls) => tls.get_ref().0,
            Self::TlsClient(tls) => tls.get_ref().0,
        }
    }

    /// Whether the connection uses TLS.
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

/// A connection that is registered with no runtime, on its way to another thread.
#[derive(Debug)]
pub struct DetachedTransport(Transport);

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
