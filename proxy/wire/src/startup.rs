//! The first packet of a connection: the only one without a tag.
//!
//! Owns what the packet may say and how a protocol version is agreed on. Looks at borrowed bytes,
//! allocates nothing and never believes a length further than [`MAX_STARTUP_LEN`].

use thiserror::Error;

use crate::error::SqlState;

/// Longest first packet in bytes, its length field included: PostgreSQL's own
/// `MAX_STARTUP_PACKET_LENGTH`.
pub const MAX_STARTUP_LEN: usize = 10_000;

/// Shortest and longest secret key of a cancel request in bytes: 4 is protocol 3.0's only length,
/// 256 is the limit that protocol 3.2 documents.
pub const CANCEL_KEY_LEN: std::ops::RangeInclusive<usize> = 4..=256;

const CODE_CANCEL: u32 = 80_877_102;
const CODE_SSL: u32 = 80_877_103;
const CODE_GSSENC: u32 = 80_877_104;
const OPTION_PREFIX: &[u8] = b"_pq_.";

/// A version of the wire protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ProtocolVersion {
    /// Major version; only 3 is spoken.
    pub major: u16,
    /// Minor version.
    pub minor: u16,
}

impl ProtocolVersion {
    /// The version every client and server speaks.
    pub const V3_0: Self = Self { major: 3, minor: 0 };
    /// The version with long cancel keys.
    pub const V3_2: Self = Self { major: 3, minor: 2 };

    /// The version as the number that travels in packets.
    #[must_use]
    pub const fn code(self) -> u32 {
        (self.major as u32) << 16 | self.minor as u32
    }

    const fn from_code(code: u32) -> Self {
        Self { major: (code >> 16) as u16, minor: (code & 0xffff) as u16 }
    }
}

/// The first packet of a connection, borrowed from the bytes it came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StartupPacket<'a> {
    /// SSLRequest: the client asks for TLS.
    Ssl,
    /// GSSENCRequest: the client asks for GSSAPI encryption.
    GssEnc,
    /// CancelRequest for another connection.
    Cancel {
        /// Process id that the other connection was given.
        process_id: u32,
        /// Secret key that the other connection was given, 4 to 256 bytes.
        key: &'a [u8],
    },
    /// StartupMessage.
    Startup {
        /// The version asked for.
        version: ProtocolVersion,
        /// Names and values as sent.
        parameters: Parameters<'a>,
    },
}

/// The name and value pairs of a StartupMessage in the order sent. Bytes stay bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameters<'a>(&'a [u8]);

impl<'a> Parameters<'a> {
    /// All pairs.
    pub fn iter(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + use<'a> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let name = take_cstr(&mut rest).filter(|name| !name.is_empty())?;
            Some((name, take_cstr(&mut rest)?))
        })
    }

    /// The last value of `name`, as PostgreSQL takes it.
    #[must_use]
    pub fn get(&self, name: &[u8]) -> Option<&'a [u8]> {
        self.iter().filter(|(n, _)| *n == name).last().map(|(_, value)| value)
    }

    /// Names of the protocol options (`_pq_.…`) asked for. pgimbal knows none of them yet.
    pub fn protocol_options(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        self.iter().map(|(name, _)| name).filter(|name| name.starts_with(OPTION_PREFIX))
    }
}

/// A first packet that is refused. Its text is PostgreSQL's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum StartupError {
    /// The length field is too small or above [`MAX_STARTUP_LEN`].
    #[error("invalid length of startup packet")]
    Length,
    /// The pairs do not end with a terminator as last byte.
    #[error("invalid startup packet layout: expected terminator as last byte")]
    Layout,
    /// A major version that is not spoken.
    #[error(
        "unsupported frontend protocol {}.{}: server supports 3.0 to 3.2", .0.major, .0.minor
    )]
    Version(ProtocolVersion),
}

impl StartupError {
    /// The SQLSTATE of the FATAL that answers the packet.
    #[must_use]
    pub const fn sqlstate(self) -> SqlState {
        match self {
            Self::Length | Self::Layout => SqlState::PROTOCOL_VIOLATION,
            Self::Version(_) => SqlState::FEATURE_NOT_SUPPORTED,
        }
    }
}

/// Reads a first packet at the start of `buf`; with it comes the number of bytes it takes.
///
/// `Ok(None)` when more bytes are needed. A wrong length is refused as soon as it has arrived.
///
/// # Errors
/// [`StartupError`] when the packet is malformed or asks for another major version.
pub fn parse(buf: &[u8]) -> Result<Option<(StartupPacket<'_>, usize)>, StartupError> {
    let Some(length) = be_u32(buf) else { return Ok(None) };
    let used = length as usize;
    if !(8..=MAX_STARTUP_LEN).contains(&used) {
        return Err(StartupError::Length);
    }
    let Some(code) = buf.get(4..).and_then(be_u32) else { return Ok(None) };
    // SSL and GSSENC requests have one length; saying so now keeps a peer from sending 10 kB.
    if matches!(code, CODE_SSL | CODE_GSSENC) && used != 8 {
        return Err(StartupError::Length);
    }
    let Some(body) = buf.get(8..used) else { return Ok(None) };
    let packet = match code {
        CODE_SSL => StartupPacket::Ssl,
        CODE_GSSENC => StartupPacket::GssEnc,
        CODE_CANCEL => parse_cancel(body)?,
        _ => parse_startup(ProtocolVersion::from_code(code), body)?,
    };
    Ok(Some((packet, used)))
}

fn parse_cancel(body: &[u8]) -> Result<StartupPacket<'_>, StartupError> {
    let process_id = be_u32(body).ok_or(StartupError::Length)?;
    let key = &body[4..];
    if !CANCEL_KEY_LEN.contains(&key.len()) {
        return Err(StartupError::Length);
    }
    Ok(StartupPacket::Cancel { process_id, key })
}

fn parse_startup(version: ProtocolVersion, body: &[u8]) -> Result<StartupPacket<'_>, StartupError> {
    if version.major != 3 {
        return Err(StartupError::Version(version));
    }
    let mut rest = body;
    loop {
        match take_cstr(&mut rest) {
            Some(b"") if rest.is_empty() => break,
            Some(b"") | None => return Err(StartupError::Layout),
            Some(_) => take_cstr(&mut rest).ok_or(StartupError::Layout)?,
        };
    }
    Ok(StartupPacket::Startup { version, parameters: Parameters(body) })
}

/// What follows from the version and the options that a client asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Negotiation {
    /// The version spoken from now on.
    pub version: ProtocolVersion,
    /// Whether exactly one NegotiateProtocolVersion must be sent, listing every unknown option.
    pub announce: bool,
}

/// Agrees on a version: 3.0 and 3.2 as asked, 3.1 (reserved, never in use) becomes 3.0, anything
/// newer 3.2. `version` must come from [`parse`], so that its major version is 3.
#[must_use]
pub fn negotiate(version: ProtocolVersion, parameters: &Parameters<'_>) -> Negotiation {
    let spoken = if version >= ProtocolVersion::V3_2 {
        ProtocolVersion::V3_2
    } else {
        ProtocolVersion::V3_0
    };
    let announce = spoken != version || parameters.protocol_options().next().is_some();
    Negotiation { version: spoken, announce }
}

fn be_u32(buf: &[u8]) -> Option<u32> {
    buf.first_chunk::<4>().map(|bytes| u32::from_be_bytes(*bytes))
}

/// Takes a zero-terminated string off the front of `rest`.
fn take_cstr<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let end = rest.iter().position(|byte| *byte == 0)?;
    let (text, tail) = rest.split_at(end);
    *rest = &tail[1..];
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(code: u32, body: &[u8]) -> Vec<u8> {
        let mut out = (8 + body.len() as u32).to_be_bytes().to_vec();
        out.extend(code.to_be_bytes());
        out.extend(body);
        out
    }

    fn startup(version: u32, body: &[u8]) -> Parameters<'_> {
        let bytes = packet(version, body);
        let Ok(Some((StartupPacket::Startup { .. }, used))) = parse(&bytes) else {
            panic!("{:?}", parse(&bytes));
        };
        assert_eq!(used, bytes.len());
        Parameters(body)
    }

    #[test]
    fn pairs_keep_their_order_and_the_last_of_a_name_counts() {
        let found = startup(0x30000, b"user\0ann\0database\0shop\0user\0bob\0\0");
        assert_eq!(found.iter().count(), 3);
        assert_eq!(found.get(b"user"), Some(&b"bob"[..]));
        assert_eq!(found.get(b"options"), None);
    }

    #[test]
    fn any_prefix_of_a_packet_asks_for_more() {
        let bytes = packet(0x30000, b"user\0ann\0\0");
        for end in 0..bytes.len() {
            assert_eq!(parse(&bytes[..end]), Ok(None), "{end} bytes");
        }
    }

    #[test]
    fn behaviour_40_lengths_and_layouts_that_cannot_be_true() {
        for length in [0u32, 3, 4, 7, 10_001, u32::MAX] {
            assert_eq!(parse(&length.to_be_bytes()), Err(StartupError::Length), "{length}");
        }
        for body in [&b""[..], b"user\0", b"user\0ann\0", b"user\0ann\0\0x", b"\0\0", b"user"] {
            assert_eq!(parse(&packet(0x30000, body)), Err(StartupError::Layout), "{body:?}");
        }
        assert_eq!(parse(&packet(CODE_SSL, b"x")), Err(StartupError::Length));
        assert_eq!(parse(&packet(CODE_CANCEL, b"\0\0\0\x01abc")), Err(StartupError::Length));
        assert_eq!(parse(&packet(CODE_CANCEL, &[0; 4 + 257])), Err(StartupError::Length));
    }

    #[test]
    fn requests_before_startup() {
        assert_eq!(parse(&packet(CODE_SSL, b"")), Ok(Some((StartupPacket::Ssl, 8))));
        assert_eq!(parse(&packet(CODE_GSSENC, b"")), Ok(Some((StartupPacket::GssEnc, 8))));
        let long = [7u8; 32];
        let mut body = 9u32.to_be_bytes().to_vec();
        body.extend(long);
        assert_eq!(
            parse(&packet(CODE_CANCEL, &body)),
            Ok(Some((StartupPacket::Cancel { process_id: 9, key: &long }, 44)))
        );
    }

    #[test]
    fn behaviour_38_versions_are_negotiated_or_refused() {
        for (major, minor) in [(2, 0), (4, 0), (1, 7)] {
            let version = ProtocolVersion { major, minor };
            let bytes = packet(version.code(), b"user\0ann\0\0");
            let refused = parse(&bytes);
            assert_eq!(refused, Err(StartupError::Version(version)));
            assert_eq!(refused.unwrap_err().sqlstate(), SqlState::FEATURE_NOT_SUPPORTED);
        }
        let plain = Parameters(b"user\0ann\0\0");
        let option = Parameters(b"user\0ann\0_pq_.future\0on\0\0");
        for (minor, spoken, announce) in
            [(0, 0, false), (1, 0, true), (2, 2, false), (9999, 2, true)]
        {
            let agreed = negotiate(ProtocolVersion { major: 3, minor }, &plain);
            assert_eq!((agreed.version.minor, agreed.announce), (spoken, announce), "3.{minor}");
            assert!(negotiate(ProtocolVersion { major: 3, minor }, &option).announce);
        }
        assert_eq!(option.protocol_options().collect::<Vec<_>>(), [b"_pq_.future"]);
    }
}
