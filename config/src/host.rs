//! Where a server is: a host, or the directory of a Unix socket.

use std::fmt;
use std::net::Ipv6Addr;
use std::path::PathBuf;

use figment::value::Value;

use crate::reader::Reader;

/// The place of a server: a host of a network, or the directory of a Unix socket. The option `host`
/// is a directory if it begins with `/`. No name has been looked up yet. `Display` prints the host
/// or the directory, and an IPv6 address without brackets.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    /// A host name or IP address, without a port and without brackets.
    Tcp(String),
    /// The directory of a Unix socket, whose name is `.s.PGSQL.` followed by the port.
    Unix(PathBuf),
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(name) => f.write_str(name),
            Self::Unix(directory) => directory.display().fmt(f),
        }
    }
}

/// A host name or the directory of a Unix socket.
pub(crate) struct HostName;

impl Reader for HostName {
    type Out = Host;
    const KIND: &'static str = "host name, IP address or directory";

    fn read(value: &Value) -> Result<Host, String> {
        match value.as_str() {
            Some(path) if path.starts_with('/') => Ok(Host::Unix(PathBuf::from(path))),
            Some(name) => not_a_host(name).map_or_else(|| Ok(Host::Tcp(name.to_owned())), Err),
            None => Err(ONE_HOST.to_owned()),
        }
    }
}

/// A host name or IP address.
pub(crate) struct DnsName;

impl Reader for DnsName {
    type Out = String;
    const KIND: &'static str = "host name";

    fn read(value: &Value) -> Result<String, String> {
        let name = value.as_str().ok_or("expected a host name in quotes")?;
        not_a_host(name).map_or_else(|| Ok(name.to_owned()), Err)
    }
}

const ONE_HOST: &str = "expected one host name, IP address, or directory of a Unix socket";

/// Why `text` is no host name or IP address, and where what it holds belongs.
fn not_a_host(text: &str) -> Option<String> {
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    let is_ipv6 = |text: &str| {
        let address = text.split_once('%').map_or(text, |(address, _)| address);
        address.parse::<Ipv6Addr>().is_ok()
    };
    if text.contains("://") {
        Some(
            "expected a host name, found a URL: --upstream takes URLs; here host, port, dbname, \
              user and password are options of their own"
                .to_owned(),
        )
    } else if text.contains(',') {
        Some(
            "names several hosts: list them as nodes of a cluster, each in a table \
              [clusters.NAME.nodes.NODE] with host and port, which the database names with \
              `cluster`"
                .to_owned(),
        )
    } else if bare != text && is_ipv6(bare) {
        Some("an IPv6 address stands here without [ and ]".to_owned())
    } else if text.is_empty() || text.contains([' ', '/', '@']) {
        Some(ONE_HOST.to_owned())
    } else if text.contains(':') && !is_ipv6(text) {
        Some(
            "expected a host name without a port: write the port as `port = …` beside it"
                .to_owned(),
        )
    } else {
        None
    }
}
