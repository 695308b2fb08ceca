//! The startup packet: the first packet of a connection, the only kind without a tag.
//!
//! This module owns what the packet may say and how a protocol version is agreed on. It reads
//! borrowed bytes, allocates nothing and accepts no length above [`MAX_STARTUP_LEN`]. Source:
//! "Message Formats" (StartupMessage, SSLRequest, GSSENCRequest, CancelRequest) and "Message Flow"
//! ("Start-up") of the protocol's chapter.

use thiserror::Error;

use crate::error::SqlState;

/// Longest startup packet in bytes, its length field included: PostgreSQL's
/// `MAX_STARTUP_PACKET_LENGTH`.
pub const MAX_STARTUP_LEN: usize = 10_000;

/// Allowed lengths of the secret key of a CancelRequest in bytes. Protocol 3.0 has 4 only; 3.2
/// allows up to 256. A CancelRequest names no version, so [`parse`] takes all of them and refuses
/// any other with [`StartupError::Length`].
pub const CANCEL_KEY_LEN: std::ops::RangeInclusive<usize> = 4..=256;

const CODE_CANCEL: u32 = 80_877_102;
const CODE_SSL: u32 = 80_877_103;
const CODE_GSSENC: u32 = 80_877_104;
const OPTION_PREFIX: &[u8] = b"_pq_.";

/// A version of the frontend/backend protocol. Versions are ordered by major, then minor number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ProtocolVersion {
    /// Major version; pgimbal speaks 3 only.
    pub major: u16,
    /// Minor version; pgimbal speaks 0 and 2 of major version 3.
    pub minor: u16,
}

impl ProtocolVersion {
    /// Version 3.0, which every client and server speaks.
    pub const V3_0: Self = Self { major: 3, minor: 0 };
    /// Version 3.2, of PostgreSQL 18, with secret keys of up to 256 bytes. The newest that pgimbal
    /// speaks.
    pub const V3_2: Self = Self { major: 3, minor: 2 };

    /// The version as it is sent in StartupMessage and NegotiateProtocolVersion: the major version
    /// in the upper 16 bits, the minor in the lower. 3.0 is 196608.
    #[must_use]
    pub const fn code(self) -> u32 {
        (self.major as u32) << 16 | self.minor as u32
    }

    const fn from_code(code: u32) -> Self {
        Self { major: (code >> 16) as u16, minor: (code & 0xffff) as u16 }
    }
}

/// A startup packet, borrowed from the bytes in which it arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StartupPacket<'a> {
    /// SSLRequest: the client asks for TLS.
    Ssl,
    /// GSSENCRequest: the client asks for GSSAPI encryption.
    GssEnc,
    /// CancelRequest: the client asks to cancel the running query of another connection.
    Cancel {
        /// Process id from the other connection's BackendKeyData.
        process_id: u32,
        /// Secret key from the other connection's BackendKeyData, 4 to 256 bytes.
        key: &'a [u8],
    },
    /// StartupMessage: the client asks for a session.
    Startup {
        /// The protocol version that the client asks for; its major version is 3.
        version: ProtocolVersion,
        /// User, database and settings as the client sent them.
        parameters: Parameters<'a>,
    },
}

/// The name and value pairs of a StartupMessage in the order in which they were sent. Names and
/// values are bytes without their terminators, in no particular encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameters<'a>(&'a [u8]);

impl<'a> Parameters<'a> {
    /// Iterates over all pairs as `(name, value)`, in the order sent. A name is never empty and may
    /// occur more than once; a value may be empty. Protocol options (`_pq_.…`) are among them.
    pub fn iter(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + use<'a> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let name = take_cstr(&mut rest).filter(|name| !name.is_empty())?;
            Some((name, take_cstr(&mut rest)?))
        })
    }

    /// Names of the protocol options that the client asks for, each with its prefix `_pq_.`, in the
    /// order sent and as often as sent; empty for most clients. pgimbal knows none of them, and
    /// [`crate::encode::negotiate_protocol_version`] tells the client so.
    pub fn protocol_options(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        self.iter().map(|(name, _)| name).filter(|name| name.starts_with(OPTION_PREFIX))
    }
}

/// The reason for which a startup packet is refused; `Display` is PostgreSQL's own message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum StartupError {
    /// The length field is below 8 or above [`MAX_STARTUP_LEN`], or does not fit the kind of
    /// packet. As in PostgreSQL the connection is then closed without a message.
    #[error("invalid length of startup packet")]
    Length,
    /// The name and value pairs are not terminated by a zero byte that is the last byte of the
    /// packet.
    #[error("invalid startup packet layout: expected terminator as last byte")]
    Layout,
    /// The client asks for a major version other than 3, with the version that it asks for. An
    /// unknown request code (1234.x) is such a version too.
    #[error(
        "unsupported frontend protocol {}.{}: server supports 3.0 to 3.2", .0.major, .0.minor
    )]
    Version(ProtocolVersion),
}

impl StartupError {
    /// The SQLSTATE of the FATAL ErrorResponse: 08P01 for a malformed packet, 0A000 for a version
    /// that is not supported. For [`Self::Length`] no message is sent.
    #[must_use]
    pub const fn sqlstate(self) -> SqlState {
        match self {
            Self::Length | Self::Layout => SqlState::PROTOCOL_VIOLATION,
            Self::Version(_) => SqlState::FEATURE_NOT_SUPPORTED,
        }
    }
}

/// Reads the startup packet at the start of `buf` and returns it with its length in bytes, which
/// the caller drops; what follows the packet is not looked at. After SSLRequest and GSSENCRequest
/// the client sends another startup packet.
///
/// `Ok(None)` means that more bytes are needed. A length out of range is refused as soon as the
/// length field has arrived, everything that the body may say only when the packet is whole.
///
/// # Errors
/// [`StartupError`] when the packet is malformed or asks for a major version other than 3.
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

/// The outcome of protocol version negotiation ("Message Flow", NegotiateProtocolVersion).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Negotiation {
    /// The version that the session speaks: 3.0 or 3.2.
    pub version: ProtocolVersion,
    /// Whether the client must be sent one NegotiateProtocolVersion, which names `version` and
    /// lists every protocol option of the client as unknown. `false` when the client asked for
    /// exactly `version` and for no protocol option.
    pub must_notify: bool,
}

/// Agrees on a protocol version with the client. 3.0 and 3.2 are spoken as asked for; 3.1, which is
/// reserved and was never in use, becomes 3.0; anything newer becomes 3.2. `version` must come from
/// [`parse`], so that its major version is 3. Nothing is sent: the caller does it where
/// [`Negotiation::must_notify`] says so, with [`crate::encode::negotiate_protocol_version`].
#[must_use]
pub fn negotiate(version: ProtocolVersion, parameters: &Parameters<'_>) -> Negotiation {
    let spoken = if version >= ProtocolVersion::V3_2 {
        ProtocolVersion::V3_2
    } else {
        ProtocolVersion::V3_0
    };
    let must_notify = spoken != version || parameters.protocol_options().next().is_some();
    Negotiation { version: spoken, must_notify }
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
    fn pairs_keep_their_order() {
        let found = startup(0x30000, b"user\0ann\0database\0shop\0user\0bob\0\0");
        let pairs: [(&[u8], &[u8]); 3] =
            [(b"user", b"ann"), (b"database", b"shop"), (b"user", b"bob")];
        assert!(found.iter().eq(pairs));
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
        for (minor, spoken, must_notify) in
            [(0, 0, false), (1, 0, true), (2, 2, false), (9999, 2, true)]
        {
            let agreed = negotiate(ProtocolVersion { major: 3, minor }, &plain);
            assert_eq!(
                (agreed.version.minor, agreed.must_notify),
                (spoken, must_notify),
                "3.{minor}"
            );
            assert!(negotiate(ProtocolVersion { major: 3, minor }, &option).must_notify);
        }
        assert_eq!(option.protocol_options().collect::<Vec<_>>(), [b"_pq_.future"]);
    }
}
