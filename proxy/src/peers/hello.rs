//! What a replica says of itself, each second.

use std::net::SocketAddr;

use hyper::body::Bytes;
use pgimbal_replicas::InstanceId;
use serde::{Deserialize, Serialize};

/// Longest name and version of a peer that is kept, in bytes.
const LONGEST_WORD: usize = 253;
/// Limit of former peer ids that a peer may name, as many as a replica remembers.
pub(super) const FORMER_IDS: usize = 8;

/// The head of a hello, one line of JSON. Fields that this version does not know are passed over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Hello {
    /// The sender's instance id.
    pub(super) instance: InstanceId,
    /// What it is called.
    pub(super) name: String,
    /// The version that it runs.
    pub(super) version: String,
    /// The address at which it listens for peers; without a host, it is where it comes from.
    pub(super) listen: SocketAddr,
    /// A number that grows with each hello of the sender: an answer that was long on its way does
    /// not undo what was said after it. 0 from a version that does not number them.
    #[serde(default)]
    pub(super) number: u64,
    /// The process that the sender takes over from, on the same host.
    #[serde(default)]
    pub(super) before: Option<InstanceId>,
    /// Whether another process has taken over the address at which it was found: it is reached at
    /// `listen` alone.
    #[serde(default)]
    pub(super) moved: bool,
    /// The address at which it sees the receiver.
    pub(super) you: Option<SocketAddr>,
    /// Whether it accepts clients.
    pub(super) ready: bool,
    /// The peer id in the cancel keys that it hands out now.
    #[serde(default)]
    pub(super) peer_id: Option<u16>,
    /// Peer ids in keys that it has handed out before.
    #[serde(default)]
    pub(super) former: Vec<u16>,
}

impl Hello {
    /// The hello with the bytes of its heartbeat, as they are sent.
    pub(super) fn to_bytes(&self, heartbeat: &[u8]) -> Vec<u8> {
        // A struct of texts and numbers can always be written.
        let mut bytes = serde_json::to_vec(self).unwrap_or_default();
        bytes.push(b'\n');
        bytes.extend_from_slice(heartbeat);
        bytes
    }

    /// Reads a hello and its heartbeat.
    ///
    /// # Errors
    /// The reason in words, when it is none.
    pub(super) fn parse(bytes: &Bytes) -> Result<(Self, Bytes), String> {
        let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
        let hello: Self =
            serde_json::from_slice(&bytes[..end]).map_err(|error| format!("no hello: {error}"))?;
        let words = [&hello.name, &hello.version];
        if words.iter().any(|word| word.len() > LONGEST_WORD || word.chars().any(char::is_control))
            || hello.former.len() > FORMER_IDS
        {
            return Err("no hello: a name is too long".to_owned());
        }
        Ok((hello, bytes.slice((end + 1).min(bytes.len())..)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hello_is_read_as_it_was_written() {
        let hello = Hello {
            instance: InstanceId(7),
            name: "a\nb".replace('\n', "-"),
            version: "1".to_owned(),
            listen: "10.0.0.1:6433".parse().unwrap(),
            number: 8,
            before: Some(InstanceId(6)),
            moved: true,
            you: "[::1]:9".parse().ok(),
            ready: true,
            peer_id: Some(3),
            former: vec![2],
        };
        let bytes = Bytes::from(hello.to_bytes(b"beat\n"));
        assert_eq!(Hello::parse(&bytes), Ok((hello.clone(), Bytes::from_static(b"beat\n"))));
        for wrong in ["", "{", "[]", "{}\n", "\n"] {
            assert!(Hello::parse(&Bytes::from(wrong)).is_err(), "{wrong:?}");
        }
        let long = Hello { name: "a".repeat(300), ..hello };
        assert!(Hello::parse(&Bytes::from(long.to_bytes(b""))).is_err());
    }
}
