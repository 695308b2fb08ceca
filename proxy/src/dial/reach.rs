//! Name resolution and connecting sockets.

use pgimbal_config::Host;
use tokio::net::{TcpStream, UnixStream};

use super::{Address, DialError, DialFault, Target};
use crate::tcp;
use crate::transport::Socket;

/// Every address of the target's host, in the order of the resolver; one for a Unix socket. Empty
/// when the resolver knows the name and no address.
///
/// # Errors
/// [`DialFault::Resolve`], or [`DialFault::Timeout`] after the target's connect timeout.
pub(super) async fn addresses(target: &Target) -> Result<Vec<Address>, DialError> {
    let host = match &target.host {
        Host::Unix(directory) => {
            let path = directory.join(format!(".s.PGSQL.{}", target.port));
            return Ok(vec![Address::Unix(path)]);
        }
        Host::Tcp(host) => host,
    };
    let lookup = tokio::net::lookup_host((host.as_str(), target.port));
    let fault = match tokio::time::timeout(target.connect_timeout, lookup).await {
        Ok(Ok(found)) => return Ok(found.map(Address::Tcp).collect()),
        Ok(Err(error)) => DialFault::Resolve(error),
        Err(_) => DialFault::Timeout(target.connect_timeout),
    };
    Err(DialError::new(target, None, fault))
}

/// Connects to one address and sets the TCP options; the caller limits the time. Every error is a
/// [`DialFault::Connect`].
pub(super) async fn connect(target: &Target, address: &Address) -> Result<Socket, DialFault> {
    let socket = match address {
        Address::Tcp(address) => TcpStream::connect(address).await.map(Socket::Tcp),
        Address::Unix(path) => UnixStream::connect(path).await.map(Socket::Unix),
    };
    let socket = socket.map_err(DialFault::Connect)?;
    tcp::configure(&socket, &target.tcp).map_err(DialFault::Connect)?;
    Ok(socket)
}
