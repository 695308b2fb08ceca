//! TCP options, of client and server connections alike.

use std::io;

use pgimbal_config::TcpConfig;
use socket2::{SockRef, TcpKeepalive};

use crate::transport::Socket;

/// Sets TCP_NODELAY, keepalive and TCP_USER_TIMEOUT; a Unix socket has none of them.
///
/// # Errors
/// The socket's, when it is already gone.
pub fn configure(socket: &Socket, config: &TcpConfig) -> io::Result<()> {
    if !matches!(socket, Socket::Tcp(_) | Socket::DetachedTcp(_)) {
        return Ok(());
    }
    let fd = socket.fd()?;
    set_options(&SockRef::from(&fd), config)
}

/// As [`configure`], of a socket that is TCP for sure. What a listener has, accepted sockets
/// inherit.
///
/// # Errors
/// The socket's.
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
