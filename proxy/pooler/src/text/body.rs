//! The inside of literals that may be run or be a search path, judged roughly: its words one by one.

use super::keyword::Watched;

/// Where in the words of a body its pieces have come to. Nested quotes are not told apart: a word
/// in a string that EXECUTE may run counts like any other.
#[derive(Debug, Clone, Default)]
pub(super) struct Body {
    word: Word,
    before: Before,
}

/// An open word: its first bytes.
#[derive(Debug, Clone)]
struct Word {
    bytes: [u8; Word::ROOM],
    length: u8,
}

impl Word {
    /// The longest word that is looked for, `pg_replication_origin_session_setup`, and one more.
    const ROOM: usize = 36;
}

impl Default for Word {
    fn default() -> Word {
        Word { bytes: [0; Word::ROOM], length: 0 }
    }
}

/// What stood before the open word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Before {
    /// The start, `;`, a quote, or a word after which a statement begins.
    #[default]
    Boundary,
    Creates,
    /// A SET that leads a statement.
    Set,
    With,
    Other,
}

/// What was found in a piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Finding {
    Nothing,
    /// Code that leaves something in its session.
    Leaves,
    /// The name of the temporary schema at the start of the literal.
    TemporarySchema,
}

impl Body {
    /// Reads a piece of a literal.
    pub(super) fn read(&mut self, piece: &[u8]) -> Finding {
        let mut found = Finding::Nothing;
        for &byte in piece {
            let letter = byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80;
            if letter {
                let length = usize::from(self.word.length);
                if length < Word::ROOM {
                    self.word.bytes[length] = byte.to_ascii_lowercase();
                    self.word.length += 1;
                }
                continue;
            }
            found = found.max(self.end_word());
            match byte {
                b';' | b'\'' | b'"' | b'$' => self.before = Before::Boundary,
                b'(' | b')' | b',' | b'=' => self.before = Before::Other,
                _ => {}
            }
        }
        found
    }

    /// The literal ended; what its last word is.
    pub(super) fn end(&mut self) -> Finding {
        let found = self.end_word();
        self.before = Before::Boundary;
        found
    }

    fn end_word(&mut self) -> Finding {
        let length = usize::from(std::mem::take(&mut self.word.length));
        if length == 0 {
            return Finding::Nothing;
        }
        let word = &self.word.bytes[..length];
        let before = self.before;
        self.before = match word {
            b"begin" | b"then" | b"else" | b"loop" | b"execute" => Before::Boundary,
            b"create" | b"replace" | b"local" | b"global" | b"into" => Before::Creates,
            b"set" if before == Before::Boundary => Before::Set,
            b"with" => Before::With,
            _ => Before::Other,
        };
        if word == b"pg_temp" && before == Before::Boundary {
            return Finding::TemporarySchema;
        }
        let leaves = match word {
            b"local" | b"constraints" | b"transaction" if before == Before::Set => false,
            _ if before == Before::Set => true,
            b"reset" | b"listen" | b"load" | b"prepare" => before == Before::Boundary,
            b"temp" | b"temporary" => before == Before::Creates,
            b"hold" => before == Before::With,
            b"pg_temp" => true,
            _ => matches!(
                Watched::of(word),
                Some(Watched::SetConfig | Watched::AdvisoryLock | Watched::SessionFunction)
            ),
        };
        if leaves { Finding::Leaves } else { Finding::Nothing }
    }
}
