//! Classes of bytes, and the few bytes of a token that wait for the next piece of its text.

/// The first bytes of an open token.
#[derive(Debug, Clone, Copy)]
pub struct Carry {
    bytes: [u8; Carry::ROOM],
    /// Above `ROOM`: bytes were left out.
    length: u8,
}

impl Carry {
    /// PostgreSQL's own limit for a name is 63 bytes, and no keyword is longer.
    pub const ROOM: usize = 64;

    /// Forgets them.
    pub fn clear(&mut self) {
        self.length = 0;
    }

    /// Adds bytes of the token; what does not fit is left out.
    pub fn push(&mut self, more: &[u8]) {
        let length = usize::from(self.length).min(Carry::ROOM);
        let fits = more.len().min(Carry::ROOM - length);
        self.bytes[length..length + fits].copy_from_slice(&more[..fits]);
        let left_out = more.len() > fits || self.overflowed();
        self.length = if left_out { Carry::ROOM as u8 + 1 } else { (length + fits) as u8 };
    }

    /// Those that are kept.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length).min(Carry::ROOM)]
    }

    /// Whether bytes were left out.
    pub fn overflowed(&self) -> bool {
        usize::from(self.length) > Carry::ROOM
    }
}

impl Default for Carry {
    fn default() -> Carry {
        Carry { bytes: [0; Carry::ROOM], length: 0 }
    }
}

/// What a byte may be outside literals and comments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Class {
    /// Punctuation, a part of an operator, or no character of SQL.
    Mark,
    /// White space.
    Space,
    /// What an identifier may begin with, bytes from 0x80 among them.
    Letter,
    /// `0` to `9`.
    Digit,
    /// `'`, `"`, `-`, `/` and `$`.
    Opens,
}

/// The class of `byte`.
#[inline]
pub fn class(byte: u8) -> Class {
    CLASSES[usize::from(byte)]
}

/// Whether `byte` goes on with an identifier.
#[inline]
pub fn continues_word(byte: u8) -> bool {
    matches!(class(byte), Class::Letter | Class::Digit) || byte == b'$'
}

const CLASSES: [Class; 256] = {
    let mut classes = [Class::Mark; 256];
    let mut byte = 0;
    while byte < 256 {
        classes[byte] = match byte as u8 {
            b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c => Class::Space,
            b'a'..=b'z' | b'A'..=b'Z' | b'_' | 0x80..=0xff => Class::Letter,
            b'0'..=b'9' => Class::Digit,
            b'\'' | b'"' | b'-' | b'/' | b'$' => Class::Opens,
            _ => Class::Mark,
        };
        byte += 1;
    }
    classes
};
