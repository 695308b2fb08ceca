//! The inside of the literals that matter: names of settings and languages, and the code of DO.

/// What has been read of a literal that arrives in pieces.
#[derive(Debug, Clone, Default)]
pub(super) struct Inside {
    content: Start,
    word: Start,
    has_dot: bool,
    has_backslash: bool,
    names_statements: bool,
}

/// A literal that has been read.
#[derive(Debug)]
pub(super) struct Read {
    content: Start,
    /// It has a dot, as the names of custom settings have.
    pub(super) has_dot: bool,
    /// It has a backslash.
    pub(super) has_backslash: bool,
    /// EXECUTE, PREPARE or DEALLOCATE stands in it as a word.
    pub(super) names_statements: bool,
}

/// The first bytes of something, in lower case.
#[derive(Debug, Clone, Copy, Default)]
struct Start {
    bytes: [u8; Start::ROOM],
    length: u8,
}

impl Start {
    /// One more than the longest that is looked for, `session_authorization`.
    const ROOM: usize = 22;

    fn push(&mut self, byte: u8) {
        if let Some(place) = self.bytes.get_mut(usize::from(self.length)) {
            *place = byte.to_ascii_lowercase();
            self.length += 1;
        }
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

impl Read {
    /// Whether the literal is `word` in any case.
    pub(super) fn is(&self, word: &[u8]) -> bool {
        self.content.bytes() == word
    }
}

impl Inside {
    pub(super) fn read(&mut self, piece: &[u8]) {
        for &byte in piece {
            self.content.push(byte);
            self.has_dot |= byte == b'.';
            self.has_backslash |= byte == b'\\';
            if byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80 {
                self.word.push(byte);
            } else {
                self.end_word();
            }
        }
    }

    /// The literal has ended.
    pub(super) fn end(&mut self) -> Read {
        self.end_word();
        let Inside { content, has_dot, has_backslash, names_statements, .. } = std::mem::take(self);
        Read { content, has_dot, has_backslash, names_statements }
    }

    fn end_word(&mut self) {
        let word = std::mem::take(&mut self.word);
        self.names_statements |= matches!(word.bytes(), b"execute" | b"prepare" | b"deallocate");
    }
}
