//! The document as bytes: JSON, deflated (zlib).

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use thiserror::Error;
use zeroize::Zeroizing;

pub use pgimbal_auth::rotation::Unreadable;

use super::{Document, VERSION};

/// Limit of the document's JSON text in bytes. A store holds about 1 MB, deflated to a third; a
/// text that is larger than this is no document, and a few kilobytes may inflate to gigabytes.
pub const MAX_INFLATED: u64 = 16 << 20;

/// The reason for which bytes are no document of this version. Nothing of them is used, and they
/// must not be overwritten.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DocumentError {
    /// The bytes are not deflated (zlib, RFC 1950), or were cut off.
    #[error("not deflated, or cut off")]
    NotDeflated,
    /// The text is larger than [`MAX_INFLATED`].
    #[error("larger than {} MiB when inflated", MAX_INFLATED >> 20)]
    TooLarge,
    /// The text is no document, or one of another version.
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
}

/// The one field that every version has.
#[derive(serde::Deserialize)]
struct Versioned {
    version: u32,
}

impl Document {
    /// Reads a document from bytes: deflated JSON, or JSON as a person writes it. No bytes at all
    /// are the empty document of a new store.
    ///
    /// # Errors
    /// [`DocumentError`] when the bytes are something else, or of another version.
    pub fn parse(bytes: &[u8]) -> Result<Self, DocumentError> {
        let text = match bytes.trim_ascii_start().first() {
            None => return Ok(Self::default()),
            Some(b'{') => Zeroizing::new(bytes.to_vec()),
            Some(_) => inflate(bytes)?,
        };
        let versioned: Versioned = serde_json::from_slice(&text).map_err(Unreadable::from)?;
        if versioned.version != VERSION {
            return Err(Unreadable::Version(versioned.version).into());
        }
        let read: Self = serde_json::from_slice(&text).map_err(Unreadable::from)?;
        // Whatever order its lists have there, they are in ours now.
        let mut document = Self::default();
        document.merge(read);
        Ok(document)
    }

    /// The document as deflated JSON, to be stored or sent; the bytes are wiped when dropped. Equal
    /// documents give equal bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        deflate(&self.to_json())
    }

    /// The document as JSON text.
    fn to_json(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(serde_json::to_vec(self).unwrap_or_default())
    }
}

/// Room that a buffer gets at a time, in bytes.
const ROOM: usize = 64 << 10;

fn deflate(text: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut out = Zeroizing::new(Vec::new());
    let mut encoder = Compress::new(Compression::default(), true);
    loop {
        out.reserve(ROOM);
        let rest = text.get(encoder.total_in() as usize..).unwrap_or_default();
        match encoder.compress_vec(rest, &mut out, FlushCompress::Finish) {
            Ok(Status::Ok | Status::BufError) => {}
            // It fails only for an encoder that has ended before.
            Ok(Status::StreamEnd) | Err(_) => return out,
        }
    }
}

fn inflate(bytes: &[u8]) -> Result<Zeroizing<Vec<u8>>, DocumentError> {
    let mut text = Zeroizing::new(Vec::new());
    let mut decoder = Decompress::new(true);
    loop {
        text.reserve(ROOM);
        let before = (decoder.total_in(), text.len());
        let rest = bytes.get(before.0 as usize..).unwrap_or_default();
        let status = decoder.decompress_vec(rest, &mut text, FlushDecompress::None);
        if text.len() as u64 > MAX_INFLATED {
            return Err(DocumentError::TooLarge);
        }
        match status {
            Ok(Status::StreamEnd) => return Ok(text),
            Ok(_) if (decoder.total_in(), text.len()) != before => {}
            // Nothing more comes out of it, and its end is missing.
            Ok(_) | Err(_) => return Err(DocumentError::NotDeflated),
        }
    }
}
