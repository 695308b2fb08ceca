//! Framing: the header of five bytes in front of every message after the startup packet.
//!
//! This module owns what a header may say and knows nothing of what a body means. Source: "Message
//! Formats" of the protocol's chapter.

use thiserror::Error;

/// Length of a message header in bytes: one byte of tag, four bytes of length.
pub const HEADER_LEN: usize = 5;

/// The largest length field that is accepted, in bytes, the field itself included and the tag not.
/// PostgreSQL allocates messages below its `MaxAllocSize` (1 GiB - 1) and reports a larger length
/// as invalid.
pub const MAX_MESSAGE_LEN: u32 = 0x3fff_ffff;

/// The header of a message, read in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The message type, one of the constants of [`crate::tag`] when the peer keeps to the
    /// protocol.
    pub tag: u8,
    /// Length of the whole message in bytes: tag, length field and body. From 5 to
    /// [`MAX_MESSAGE_LEN`] + 1.
    pub total: u32,
}

impl Header {
    /// Length of the body in bytes, which may be 0.
    #[must_use]
    pub const fn body_len(self) -> u32 {
        self.total - HEADER_LEN as u32
    }
}

/// A length field that is below 4 or above [`MAX_MESSAGE_LEN`]. Where the next message begins is
/// unknown after it, so the connection cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("invalid message length {length} for message type 0x{tag:02x}")]
pub struct BadLength {
    /// The tag in front of the length field.
    pub tag: u8,
    /// The value of the length field.
    pub length: u32,
}

/// Reads the header at the start of `buf` without consuming it; the caller drops the message.
///
/// `Ok(None)` when `buf` holds fewer than [`HEADER_LEN`] bytes. The body need not have arrived. The
/// tag is not checked, so every byte passes as one.
///
/// # Errors
/// [`BadLength`] when the length field is below 4 or above [`MAX_MESSAGE_LEN`].
#[inline]
pub const fn peek(buf: &[u8]) -> Result<Option<Header>, BadLength> {
    let [tag, a, b, c, d, ..] = buf else { return Ok(None) };
    let length = u32::from_be_bytes([*a, *b, *c, *d]);
    if length < 4 || length > MAX_MESSAGE_LEN {
        return Err(BadLength { tag: *tag, length });
    }
    Ok(Some(Header { tag: *tag, total: length + 1 }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_needs_five_bytes() {
        assert_eq!(peek(b"Q\0\0\0"), Ok(None));
        assert_eq!(peek(b"Q\0\0\0\x04"), Ok(Some(Header { tag: b'Q', total: 5 })));
    }

    #[test]
    fn lengths_below_four_and_above_the_limit_are_refused() {
        assert_eq!(peek(b"Q\0\0\0\x03"), Err(BadLength { tag: b'Q', length: 3 }));
        assert_eq!(peek(b"Q\x40\0\0\0"), Err(BadLength { tag: b'Q', length: MAX_MESSAGE_LEN + 1 }));
    }
}
