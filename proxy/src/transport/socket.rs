//! A TCP or Unix socket, which is registered with this thread's runtime or moves to another thread.

use std::io::{self, IoSlice, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

/// A stream socket, registered with a runtime, detached from one, or closed.
#[derive(Debug)]
pub enum Socket {
    /// A TCP socket, registered with a runtime.
    Tcp(TcpStream),
    /// A Unix socket, registered with a runtime.
    Unix(UnixStream),
    /// A TCP socket, registered with no runtime.
    DetachedTcp(std::net::TcpStream),
    /// A Unix socket, registered with no runtime.
    DetachedUnix(std::os::unix::net::UnixStream),
    /// No socket: it was closed because moving it between runtimes failed.
    Closed,
}

impl Socket {
    /// Reads what has arrived, with one `recv` for each time the runtime saw the socket become
    /// readable.
    #[inline]
    pub(super) fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(match self {
                Self::Tcp(stream) => stream.poll_read_ready(cx),
                Self::Unix(stream) => stream.poll_read_ready(cx),
                _ => return Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
            })?;
            // `None`: the readiness was stale, and asking again registers the waker.
            if let Some(result) = self.try_recv(buf) {
                return Poll::Ready(result);
            }
        }
    }

    /// Reads if the runtime has seen the socket become readable; `None` otherwise, and when it
    /// turns out that nothing is there. `Some(Ok(0))` is the end of the stream.
    #[inline]
    pub(super) fn try_recv(&self, buf: &mut [u8]) -> Option<io::Result<usize>> {
        let mut short = None;
        let result = self.try_io(Interest::READABLE, |mut socket| {
            let count = socket.read(buf)?;
            if 0 < count && count < buf.len() {
                // The socket is drained. WouldBlock makes tokio clear the readiness without the
                // system call that would find that out; what arrives now makes a new event.
                short = Some(count);
                return Err(io::ErrorKind::WouldBlock.into());
            }
            Ok(count)
        });
        match (short, result) {
            (Some(count), _) => Some(Ok(count)),
            (None, Err(err)) if err.kind() == io::ErrorKind::WouldBlock => None,
            (None, result) => Some(result),
        }
    }

    /// Sends at once; registers the waker only when the socket is full.
    #[inline]
    pub(super) fn poll_send(
        &self,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let fd = self.fd()?;
        match send(&SockRef::from(&fd), bufs) {
            Err(err) if err.kind() == io::ErrorKind::WouldBlock => {}
            result => return Poll::Ready(result),
        }
        loop {
            // The failed send above did not clear the cached readiness, so the first turn sends
            // once more under `try_io`, which does: what became free in between is not missed.
            match self.try_io(Interest::WRITABLE, |socket| send(socket, bufs)) {
                Err(err) if err.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
            ready!(match self {
                Self::Tcp(stream) => stream.poll_write_ready(cx),
                Self::Unix(stream) => stream.poll_write_ready(cx),
                _ => return Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
            })?;
        }
    }

    /// Deregisters the socket from the runtime; one that is detached stays as it is. After an error
    /// the socket is closed.
    pub(super) fn detach(&mut self) -> io::Result<()> {
        *self = match std::mem::replace(self, Self::Closed) {
            Self::Tcp(stream) => Self::DetachedTcp(stream.into_std()?),
            Self::Unix(stream) => Self::DetachedUnix(stream.into_std()?),
            detached => detached,
        };
        Ok(())
    }

    /// Registers the socket with this thread's runtime; one that is registered stays as it is.
    /// After an error the socket is closed.
    pub(super) fn attach(&mut self) -> io::Result<()> {
        *self = match std::mem::replace(self, Self::Closed) {
            Self::DetachedTcp(stream) => Self::Tcp(TcpStream::from_std(stream)?),
            Self::DetachedUnix(stream) => Self::Unix(UnixStream::from_std(stream)?),
            attached => attached,
        };
        Ok(())
    }

    /// The file descriptor, for socket options and addresses.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotConnected`] for [`Self::Closed`].
    pub fn fd(&self) -> io::Result<BorrowedFd<'_>> {
        Ok(match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
            Self::DetachedTcp(stream) => stream.as_fd(),
            Self::DetachedUnix(stream) => stream.as_fd(),
            Self::Closed => return Err(io::ErrorKind::NotConnected.into()),
        })
    }

    #[inline]
    fn try_io<R>(
        &self,
        interest: Interest,
        io: impl FnOnce(&socket2::Socket) -> io::Result<R>,
    ) -> io::Result<R> {
        let fd = self.fd()?;
        let io = || io(&SockRef::from(&fd));
        match self {
            Self::Tcp(stream) => stream.try_io(interest, io),
            Self::Unix(stream) => stream.try_io(interest, io),
            _ => Err(io::ErrorKind::NotConnected.into()),
        }
    }
}

fn send(mut socket: &socket2::Socket, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
    match bufs {
        [one] => socket.write(one),
        many => socket.write_vectored(many),
    }
}

/// The way TLS reads and writes.
impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let count = ready!(self.poll_recv(cx, buf.initialize_unfilled()))?;
        buf.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_send(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_send(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = self.fd().and_then(|fd| SockRef::from(&fd).shutdown(std::net::Shutdown::Write));
        Poll::Ready(shut)
    }
}
