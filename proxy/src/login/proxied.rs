//! The PROXY protocol, versions 1 and 2 (haproxy's `proxy-protocol.txt`), by which a load balancer
//! names the client that it connects for.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::io::AsyncReadExt;

use super::error::LoginError;
use crate::transport::Socket;

/// The first bytes of a header of version 2.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Longest header of version 1 in bytes, its line end included.
const LONGEST_LINE: usize = 107;
/// Limit of the bytes after the first 16 of version 2. Addresses of Unix sockets take 216, and load
/// balancers add some hundred bytes of their own.
const LONGEST_REST: usize = 2048;

/// Reads the header and returns the client's address; `None` when the header names none, as in a
/// health check of the load balancer. Nothing behind the header is read, because that may be TLS.
///
/// # Errors
/// [`LoginError`] when the header is invalid, or the connection ends.
pub(super) async fn read(socket: &mut Socket) -> Result<Option<SocketAddr>, LoginError> {
    let mut begin = [0; SIGNATURE.len()];
    // Both versions are longer than that.
    match socket.read(&mut begin[..1]).await {
        Ok(1) => {}
        Ok(_) | Err(_) => return Err(LoginError::ClosedAtOnce),
    }
    exact(socket, &mut begin[1..]).await?;
    match begin {
        SIGNATURE => version_2(socket).await,
        begin if begin.starts_with(b"PROXY ") => version_1(socket, &begin).await,
        _ => Err(LoginError::ProxyHeader("something else came")),
    }
}

async fn exact(socket: &mut Socket, bytes: &mut [u8]) -> Result<(), LoginError> {
    match socket.read_exact(bytes).await {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Err(LoginError::Closed),
        Err(error) => Err(LoginError::Io(error)),
    }
}

async fn version_1(socket: &mut Socket, begin: &[u8]) -> Result<Option<SocketAddr>, LoginError> {
    let mut line = begin.to_vec();
    // Byte by byte: what is behind the line is another's to read.
    while !line.ends_with(b"\r\n") {
        if line.len() == LONGEST_LINE {
            return Err(LoginError::ProxyHeader("its line has no end"));
        }
        let mut byte = [0];
        exact(socket, &mut byte).await?;
        line.push(byte[0]);
    }
    line_names(&line).ok_or(LoginError::ProxyHeader("its line is malformed"))
}

/// The client's address in a line of version 1; `None` when the line is malformed, `Some(None)`
/// when it names no address.
fn line_names(line: &[u8]) -> Option<Option<SocketAddr>> {
    let line = std::str::from_utf8(line).ok()?.strip_prefix("PROXY ")?.strip_suffix("\r\n")?;
    let words: Vec<&str> = line.split(' ').collect();
    let address: IpAddr = match words[..] {
        ["UNKNOWN", ..] => return Some(None),
        ["TCP4", source, destination, _, _] => {
            destination.parse::<Ipv4Addr>().ok()?;
            source.parse::<Ipv4Addr>().ok()?.into()
        }
        ["TCP6", source, destination, _, _] => {
            destination.parse::<Ipv6Addr>().ok()?;
            source.parse::<Ipv6Addr>().ok()?.into()
        }
        _ => return None,
    };
    words[4].parse::<u16>().ok()?;
    Some(Some(SocketAddr::new(address, words[3].parse().ok()?)))
}

async fn version_2(socket: &mut Socket) -> Result<Option<SocketAddr>, LoginError> {
    let mut head = [0; 4];
    exact(socket, &mut head).await?;
    let [version_and_command, family, ..] = head;
    let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
    if length > LONGEST_REST {
        return Err(LoginError::ProxyHeader("it is longer than any of those"));
    }
    let mut rest = vec![0; length];
    exact(socket, &mut rest).await?;
    match version_and_command {
        // LOCAL: the load balancer speaks for itself.
        0x20 => Ok(None),
        0x21 => block_names(family, &rest)
            .ok_or(LoginError::ProxyHeader("its addresses do not fit its length")),
        _ => Err(LoginError::ProxyHeader("its version or command is not known")),
    }
}

/// The client's address in a header of version 2; `None` when it is cut short, `Some(None)` when it
/// names no address.
fn block_names(family: u8, block: &[u8]) -> Option<Option<SocketAddr>> {
    let port = |at: usize| Some(u16::from_be_bytes(*block.get(at..)?.first_chunk()?));
    match family >> 4 {
        // AF_INET: two addresses, two ports.
        1 => {
            let source: [u8; 4] = *block.first_chunk()?;
            port(10)?;
            Some(Some(SocketAddr::new(Ipv4Addr::from(source).into(), port(8)?)))
        }
        // AF_INET6.
        2 => {
            let source: [u8; 16] = *block.first_chunk()?;
            port(34)?;
            Some(Some(SocketAddr::new(Ipv6Addr::from(source).into(), port(32)?)))
        }
        // AF_UNSPEC, AF_UNIX: nobody with an address.
        _ => Some(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_names_its_source() {
        let named = |line: &str| line_names(line.as_bytes());
        let source = |text: &str| Some(Some(text.parse().expect("an address")));
        assert_eq!(named("PROXY TCP4 192.0.2.7 10.0.0.1 5678 6432\r\n"), source("192.0.2.7:5678"));
        assert_eq!(named("PROXY TCP6 2001:db8::7 ::1 1 2\r\n"), source("[2001:db8::7]:1"));
        assert_eq!(named("PROXY UNKNOWN\r\n"), Some(None));
        assert_eq!(named("PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n"), Some(None));
        for line in [
            "PROXY TCP4 192.0.2.7 10.0.0.1 5678\r\n",
            "PROXY TCP4 2001:db8::7 ::1 1 2\r\n",
            "PROXY TCP4 192.0.2.7 10.0.0.1 70000 1\r\n",
            "PROXY TCP4 192.0.2.7 10.0.0.1 1 2 3\r\n",
            "PROXY UDP4 192.0.2.7 10.0.0.1 1 2\r\n",
            "PROXY \r\n",
        ] {
            assert_eq!(named(line), None, "{line}");
        }
    }

    #[test]
    fn a_block_names_its_source() {
        let mut block = [192, 0, 2, 7, 10, 0, 0, 1, 0x16, 0x2e, 0x19, 0x20].to_vec();
        let named = Some(Some("192.0.2.7:5678".parse().expect("an address")));
        assert_eq!(block_names(0x11, &block), named);
        block.extend([3, 0, 1, 7]);
        assert_eq!(block_names(0x11, &block), named, "what follows is the load balancer's own");
        assert_eq!(block_names(0x11, &block[..11]), None);
        assert_eq!(block_names(0x21, &block), None);
        assert_eq!(block_names(0x00, &[]), Some(None));
    }
}
