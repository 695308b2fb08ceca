//! How a session's bytes are to be read: its `standard_conforming_strings` and its encodings.

/// The session's `standard_conforming_strings`, which decides how a plain literal is read. The
/// server reports it in ParameterStatus; any value but `off`, or none, counts as on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StandardStrings {
    /// A backslash in `'…'` is a backslash, as the SQL standard has it; PostgreSQL's default.
    #[default]
    On,
    /// A backslash in `'…'` escapes, as in `E'…'`.
    Off,
}

/// What matters of the session's `client_encoding`, and of the encoding of its database, to find
/// quotes and words in a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Encoding {
    /// No byte below 0x80 is ever part of a longer character: UTF8, the LATINs, EUC and so on.
    #[default]
    AsciiSafe,
    /// As `AsciiSafe`, and client and database both have UTF8: the server sees the bytes that the
    /// client sent.
    Utf8,
    /// The second byte of a character may be an ASCII letter or a backslash, and every byte from
    /// 0x80 leads a pair: BIG5, GBK, UHC, GB18030. Second bytes are masked before the text is read.
    Pairs,
    /// As `Pairs`, but the bytes 0xA1 to 0xDF stand alone: SJIS.
    ShiftJis,
    /// The server may find a quote, a backslash or a letter where the client sent bytes from 0x80:
    /// a text with such a byte cannot be read.
    Unreadable,
}

/// Encodings in which every byte below 0x80 is itself, as PostgreSQL's `pg_encname_tbl` spells them
/// and their aliases, without punctuation; sorted.
#[rustfmt::skip]
const ASCII_SAFE: &[&[u8]] = &[
    b"abc", b"alt", b"euccn", b"eucjp", b"euckr", b"euctw", b"iso88591", b"iso885910",
    b"iso885913", b"iso885914", b"iso885915", b"iso885916", b"iso88592", b"iso88593", b"iso88594",
    b"iso88595", b"iso88596", b"iso88597", b"iso88598", b"iso88599", b"koi8", b"koi8r", b"koi8u",
    b"latin1", b"latin10", b"latin2", b"latin3", b"latin4", b"latin5", b"latin6", b"latin7",
    b"latin8", b"latin9", b"sqlascii", b"tcvn", b"tcvn5712", b"unicode", b"utf8", b"vscii",
    b"win", b"win1250", b"win1251", b"win1252", b"win1253", b"win1254", b"win1255", b"win1256",
    b"win1257", b"win1258", b"win866", b"win874", b"windows1250", b"windows1251", b"windows1252",
    b"windows1253", b"windows1254", b"windows1255", b"windows1256", b"windows1257",
    b"windows1258", b"windows866", b"windows874",
];

impl Encoding {
    /// Returns the reading of the client encoding of this name, as ParameterStatus or a client
    /// spells it, whatever the database's encoding is; only its ASCII letters, in any case, and
    /// digits count. An unknown or empty name gives [`Self::Unreadable`]; UTF8 gives
    /// [`Self::AsciiSafe`].
    ///
    /// Tried on PostgreSQL 15, for every pair of a client and a database encoding that has a
    /// conversion: all sequences of one and of two bytes that begin at or above 0x80, those of
    /// three bytes behind the leads 0x8E, 0x8F and 0xE3, and samples of four bytes for GB18030,
    /// `EUC_TW` and `MULE_INTERNAL`, sent as parameters, so that they took the way that a text
    /// takes. Only `SHIFT_JIS_2004` gave ASCII for other bytes than those that this reading takes
    /// for ASCII (0x81 0x5F is a backslash, 0x81 0xB0 a tilde). `EUC_JIS_2004`, JOHAB and
    /// `MULE_INTERNAL` gave none, but their maps and the lengths of their characters have changed
    /// between versions.
    #[must_use]
    pub fn from_name(name: &[u8]) -> Encoding {
        match &Encoding::clean(name)[..] {
            b"big5" | b"win950" | b"windows950" | b"gbk" | b"win936" | b"windows936" | b"uhc"
            | b"win949" | b"windows949" | b"gb18030" => Encoding::Pairs,
            b"sjis" | b"mskanji" | b"shiftjis" | b"win932" | b"windows932" => Encoding::ShiftJis,
            safe if ASCII_SAFE.binary_search(&safe).is_ok() => Encoding::AsciiSafe,
            _ => Encoding::Unreadable,
        }
    }

    /// Returns the reading of a session of this `client_encoding` in a database of this
    /// `server_encoding`, both as ParameterStatus spells them. [`Self::Utf8`] if both are UTF8,
    /// otherwise what [`Self::from_name`] says of the client's alone; an unknown or empty
    /// `server_encoding` counts as not UTF8.
    #[must_use]
    pub fn of(client: &[u8], server: &[u8]) -> Encoding {
        let is_utf8 = |name| matches!(&Encoding::clean(name)[..], b"utf8" | b"unicode");
        if is_utf8(client) && is_utf8(server) {
            Encoding::Utf8
        } else {
            Encoding::from_name(client)
        }
    }

    /// PostgreSQL compares letters and digits only.
    fn clean(name: &[u8]) -> Vec<u8> {
        name.iter().filter(|b| b.is_ascii_alphanumeric()).map(u8::to_ascii_lowercase).collect()
    }

    /// Whether a byte below 0x80 may be a part of a longer character.
    pub fn has_pairs(self) -> bool {
        matches!(self, Encoding::Pairs | Encoding::ShiftJis)
    }
}

/// How a session's texts are to be read. It follows what the server reports in ParameterStatus. The
/// default is PostgreSQL's: no escapes by backslash, and an encoding that is safe for ASCII.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reading {
    /// Whether backslashes escape in plain literals (`'…'`): `standard_conforming_strings`.
    pub strings: StandardStrings,
    /// Whether a byte that looks like ASCII may be part of a longer character (`client_encoding`).
    pub encoding: Encoding,
}

/// Replaces the second bytes of characters, so that none is taken for ASCII. A pair may be cut by
/// the end of a chunk.
#[derive(Debug, Clone, Copy)]
pub struct Mask {
    encoding: Encoding,
    inside_pair: bool,
}

impl Mask {
    /// A mask at the beginning of a text.
    pub fn new(encoding: Encoding) -> Mask {
        Mask { encoding, inside_pair: false }
    }

    /// Masks the next bytes of the text.
    pub fn apply(&mut self, bytes: &mut [u8]) {
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
        assert!(!Encoding::AsciiSafe.has_pairs() && Encoding::ShiftJis.has_pairs());
    }

    #[test]
    fn names_are_known_by_their_letters() {
        assert!(ASCII_SAFE.is_sorted());
        for (name, encoding) in [
            ("Shift-JIS", Encoding::ShiftJis),
            ("GB18030", Encoding::Pairs),
            ("UTF8", Encoding::AsciiSafe),
            ("iso-8859-15", Encoding::AsciiSafe),
            ("SHIFT_JIS_2004", Encoding::Unreadable),
            ("EUC_JIS_2004", Encoding::Unreadable),
            ("johab", Encoding::Unreadable),
            ("MULE_INTERNAL", Encoding::Unreadable),
            ("of another server", Encoding::Unreadable),
            ("", Encoding::Unreadable),
        ] {
            assert_eq!(Encoding::from_name(name.as_bytes()), encoding, "{name}");
        }
        assert_eq!(Encoding::of(b"utf-8", b"UTF8"), Encoding::Utf8);
        assert_eq!(Encoding::of(b"UTF8", b"LATIN1"), Encoding::AsciiSafe);
        assert_eq!(Encoding::of(b"SJIS", b"UTF8"), Encoding::ShiftJis);
    }
}
