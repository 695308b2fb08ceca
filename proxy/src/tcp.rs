//! TCP options of client and server connections.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use pgimbal_config::TcpConfig;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::{SockRef, TcpKeepalive};

use crate::transport::Socket;

/// The dead-peer timer (`TCP_USER_TIMEOUT`) of one connection.
///
/// Linux also lets it run for a peer that is alive and does not read: such a peer acknowledges
/// every probe and is cut off all the same. So the timer is switched off while bytes wait for the
/// peer to read, and `client_stall_timeout` limits that time instead.
#[derive(Debug, Default)]
pub struct DeadPeerTimer {
    off: bool,
}

impl DeadPeerTimer {
    /// Sets the timer to `limit` (`tcp_user_timeout`), or switches it off while bytes wait for the
    /// peer; without a change it sets nothing. Must be called several times within `limit`. Returns
    /// whether bytes wait, so that the connection must be looked at again even if nothing more is
    /// written; always `false` for a Unix socket and for one that is closed.
    pub fn look(&mut self, socket: &Socket, limit: Duration) -> bool {
        if !matches!(socket, Socket::Tcp(_)) {
            return false;
        }
        // A socket that is gone is noticed by who reads it.
        let Ok(fd) = socket.fd() else { return false };
        let socket = SockRef::from(&fd);
        let waits = has_unsent(&socket, fd).unwrap_or(false);
        if waits != self.off && socket.set_tcp_user_timeout((!waits).then_some(limit)).is_ok() {
            self.off = waits;
        }
        self.off
    }
}

/// Whether the kernel holds bytes that it has not sent yet: while its low-water mark is one byte, a
/// socket that has some is not writable.
fn has_unsent(socket: &SockRef<'_>, fd: BorrowedFd<'_>) -> io::Result<bool> {
    const AT_ONCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };
    socket.set_tcp_notsent_lowat(1)?;
    let mut polled = [PollFd::new(&fd, PollFlags::OUT)];
    let events = poll(&mut polled, Some(&AT_ONCE));
    // The system's own again.
    socket.set_tcp_notsent_lowat(0)?;
    events?;
    Ok(polled[0].revents().is_empty())
}

/// Sets `TCP_NODELAY`, keepalive (idle time, interval and count) and `TCP_USER_TIMEOUT` by the
/// options of the configuration; does nothing to a Unix socket. It is called for each new server
/// connection, and for a client when a reload has changed what the listener's sockets inherit.
///
/// # Errors
/// The operating system's error, when the socket is already closed.
pub fn configure(socket: &Socket, config: &TcpConfig) -> io::Result<()> {
    if !matches!(socket, Socket::Tcp(_) | Socket::DetachedTcp(_)) {
        return Ok(());
    }
    let fd = socket.fd()?;
    set_options(&SockRef::from(&fd), config)
}

/// Sets the options of [`configure`] on a socket that must be TCP. Accepted sockets inherit the
/// options of their listener.
///
/// # Errors
/// The operating system's error.
pub fn set_options(socket: &SockRef<'_>, config: &TcpConfig) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(config.keepalive_idle)
        .with_interval(config.keepalive_interval)
        .with_retries(config.keepalive_count);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(Some(config.user_timeout))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_timer_is_off_while_bytes_wait_for_a_peer_to_read() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let socket = Socket::Tcp(tokio::net::TcpStream::connect(address).await.unwrap());
        let (reader, _) = listener.accept().await.unwrap();
        let limit = Duration::from_secs(9);
        let set = || SockRef::from(&socket.fd().unwrap()).tcp_user_timeout().unwrap();
        let mut timer = DeadPeerTimer::default();
        let Socket::Tcp(stream) = &socket else { unreachable!() };
        stream.try_write(b"a little").unwrap();
        assert!(!timer.look(&socket, limit));
        while stream.try_write(&[0; 65_536]).is_ok() {}
        assert!(timer.look(&socket, limit) && set().is_none());
        // Nothing changes while it goes on.
        assert!(timer.look(&socket, limit) && set().is_none());
        let mut buffer = vec![0; 65_536];
        while timer.look(&socket, limit) {
            reader.readable().await.unwrap();
            let _ = reader.try_read(&mut buffer);
        }
        assert_eq!(set(), Some(limit));
        assert_eq!(SockRef::from(&socket.fd().unwrap()).tcp_notsent_lowat().unwrap(), 0);
    }

    #[tokio::test]
    async fn behaviour_56_options_are_set() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let config = TcpConfig::default();
        let socket = Socket::Tcp(stream);
        configure(&socket, &config).unwrap();
        let fd = socket.fd().unwrap();
        let socket = SockRef::from(&fd);
        assert!(socket.tcp_nodelay().unwrap() && socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), config.keepalive_idle);
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(config.user_timeout));
    }
}
