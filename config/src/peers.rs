//! Options of the other replicas of a deployment, and of the way to them.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use figment::value::Value;

use crate::host::DnsName;
use crate::reader::{Address, Maybe, Names, NonEmpty, OrOff, Reader, number};
use crate::table::settings;

/// Length, in characters, below which a `deployment_key` is refused for peers: who connects to the
/// port of peers learns the public key that is derived from it, and can try keys at home. 32
/// characters of hexadecimal are 128 bits.
pub const LEAST_DEPLOYMENT_KEY: usize = 32;

/// The greatest peer id of a cancel key: PgBouncer's, 14 bits.
pub const GREATEST_PEER_ID: u16 = 16_383;

settings! {
    /// The options of the other replicas of the deployment, `[peers]`. Replicas prove to each
    /// other that they have the same `deployment_key`. A reload changes none of them.
    pub struct PeersConfig {
        /// Address for the other replicas: mutual TLS 1.3 with a key made from `deployment_key`.
        /// Off: this replica is the only one.
        "listen" listen: Option<SocketAddr> as OrOff<Address> = "off", restart,
            try "127.0.0.1:6433";
        /// A DNS name with the address of every replica, asked again and again: in Kubernetes a
        /// headless Service with `publishNotReadyAddresses`. Their port is that of `listen`.
        "dns" dns: Option<String> as Maybe<DnsName> = "", restart, try "pgimbal-peers.db.svc";
        /// Instead of `dns`: the replicas, this one among them or not, as `host:port`.
        "addresses" addresses: Vec<PeerAddress> as PeerAddresses = "", restart,
            try "a.example:6433";
        /// What this replica is called in tables and logs. Unless it is set, the host name: the
        /// pod's name in Kubernetes.
        "replica_name" replica_name: Option<String> as Maybe<NonEmpty> = "", restart, try "a";
        /// The number of this replica in the cancel keys that it hands out, 1 to 16383; each has
        /// another one. Unless it is set, the replica's slot of the budget gives it; without
        /// either, every other replica is asked for the session of a cancel key.
        "peer_id" peer_id: Option<u16> as Maybe<PeerNumber> = "", restart, try "7";
    }
}

/// The place of a replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerAddress {
    /// A host name, or an IP address without brackets.
    pub host: String,
    /// The TCP port, not 0.
    pub port: u16,
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.parse() {
            Ok(IpAddr::V6(host)) => write!(f, "[{host}]:{}", self.port),
            _ => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// A list of hosts with their ports, empty by default.
pub(crate) struct PeerAddresses;

impl Reader for PeerAddresses {
    type Out = Vec<PeerAddress>;
    const KIND: &'static str = "list of host:port";

    fn read(value: &Value) -> Result<Vec<PeerAddress>, String> {
        Names::read(value)?.iter().map(|item| place(item)).collect()
    }

    fn unset() -> Option<Vec<PeerAddress>> {
        Some(Vec::new())
    }
}

fn place(text: &str) -> Result<PeerAddress, String> {
    let wrong = || "expected hosts with ports, such as \"pgimbal-0.peers:6433\"".to_owned();
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(wrong)?;
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let host = bare.unwrap_or(host);
    let is_six = host.parse::<std::net::Ipv6Addr>().is_ok();
    let is_name = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    if host.is_empty() || bare.is_some() != is_six || !(is_six || host.chars().all(is_name)) {
        return Err(wrong());
    }
    Ok(PeerAddress { host: host.to_owned(), port })
}

/// A peer id of cancel keys.
pub(crate) struct PeerNumber;

impl Reader for PeerNumber {
    type Out = u16;
    const KIND: &'static str = "number, 1 to 16383";

    fn read(value: &Value) -> Result<u16, String> {
        number(value, 1, GREATEST_PEER_ID)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_hosts_with_ports() {
        for (text, host) in [("a.b:1", "a.b"), ("[::1]:6433", "::1"), ("10.0.0.1:9", "10.0.0.1")] {
            let place = place(text).expect(text);
            assert_eq!((&*place.host, &*place.to_string()), (host, text));
        }
        for text in ["a", "a:", "a:0", ":1", "::1", "[a]:1", "a b:1", "a:65536", "https://a:1"] {
            assert!(place(text).is_err(), "{text}");
        }
    }
}
