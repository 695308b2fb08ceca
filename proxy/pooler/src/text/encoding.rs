//! How a session's bytes are to be read: its `standard_conforming_strings` and `client_encoding`.

/// The session's `standard_conforming_strings`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StandardStrings {
    /// A backslash in `'…'` is a backslash.
    #[default]
    On,
    /// A backslash in `'…'` escapes, as in `E'…'`.
    Off,
}

/// What matters of the session's `client_encoding`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Encoding {
    /// No byte below 0x80 is ever part of a longer character: UTF8, the LATINs, EUC and so on.
    #[default]
    AsciiSafe,
    /// The second byte of a character may be an ASCII letter or a backslash, and every byte from
    /// 0x80 leads a pair: BIG5, GBK, UHC, GB18030. (JOHAB: PostgreSQL refuses ASCII there.)
    Pairs,
    /// As `Pairs`, but 0xA1 to 0xDF stand alone: SJIS, SHIFT_JIS_2004.
    ShiftJis,
}

impl Encoding {
    /// The encoding of this name, as ParameterStatus or a client spells it.
    pub fn from_name(name: &[u8]) -> Encoding {
        // PostgreSQL compares letters and digits only.
        let clean: Vec<u8> =
            name.iter().filter(|b| b.is_ascii_alphanumeric()).map(u8::to_ascii_lowercase).collect();
        match &clean[..] {
            b"big5" | b"win950" | b"windows950" | b"gbk" | b"win936" | b"windows936" | b"uhc"
            | b"win949" | b"windows949" | b"gb18030" => Encoding::Pairs,
            b"sjis" | b"mskanji" | b"shiftjis" | b"win932" | b"windows932" | b"shiftjis2004" => {
                Encoding::ShiftJis
            }
            _ => Encoding::AsciiSafe,
        }
    }
}

/// How a session's texts are to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reading {
    /// Whether backslashes escape in plain literals.
    pub strings: StandardStrings,
    /// Whether a byte that looks like ASCII may be part of a longer character.
    pub encoding: Encoding,
}

/// Replaces the second bytes of characters, so that none is taken for ASCII. A pair may be cut by
/// the end of a chunk.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mask {
    encoding: Encoding,
    inside_pair: bool,
}

impl Mask {
    pub(super) fn new(encoding: Encoding) -> Mask {
        Mask { encoding, inside_pair: false }
    }

    /// Whether there is anything to mask.
    pub(super) fn is_needed(self) -> bool {
        self.encoding != Encoding::AsciiSafe
    }

    /// Masks the next bytes of the text.
    pub(super) fn apply(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            if self.inside_pair {
                *byte = 0xff;
                self.inside_pair = false;
            } else if *byte >= 0x80 {
                let alone = self.encoding == Encoding::ShiftJis && (0xa1..=0xdf).contains(byte);
                self.inside_pair = !alone;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn second_bytes_are_masked_also_across_chunks() {
        let mut mask = Mask::new(Encoding::ShiftJis);
        let (mut one, mut two) = (*b"a\x83", *b"\x5c'\xb1\x5c");
        mask.apply(&mut one);
        mask.apply(&mut two);
        assert_eq!((&one, &two), (b"a\x83", b"\xff'\xb1\x5c"));
        assert!(!Mask::new(Encoding::AsciiSafe).is_needed());
    }

    #[test]
    fn names_are_known_by_their_letters() {
        assert_eq!(Encoding::from_name(b"Shift-JIS"), Encoding::ShiftJis);
        assert_eq!(Encoding::from_name(b"GB18030"), Encoding::Pairs);
        assert_eq!(Encoding::from_name(b"UTF8"), Encoding::AsciiSafe);
    }
}
