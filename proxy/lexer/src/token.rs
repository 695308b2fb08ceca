//! Tokens, and what is told of them.

use std::ops::Range;

/// What the tokens of a text are told to. Offsets count from the text's first byte.
pub trait Sink {
    /// A keyword or an unquoted identifier (its first 64 bytes).
    fn word(&mut self, word: &[u8], span: Range<usize>);
    /// A quoted identifier: its content, doubled quotes left double (its first 64 bytes).
    fn quoted(&mut self, content: &[u8], span: Range<usize>);
    /// A string, bit-string or dollar-quoted literal.
    fn literal(&mut self, kind: Literal, span: Range<usize>);
    /// Digits, with the dots among them, or a parameter such as `$1`.
    fn number(&mut self, span: Range<usize>);
    /// Any other byte outside comments: punctuation, a part of an operator.
    fn mark(&mut self, byte: u8, at: usize);
    /// A piece of the inside of a literal.
    fn inside(&mut self, piece: &[u8]);
    /// The rest of the text cannot be followed.
    fn lost(&mut self);
}

/// The kinds of literal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Literal {
    /// `'…'` or `N'…'`, backslashes being what `standard_conforming_strings` says.
    Plain,
    /// `E'…'`.
    Escape,
    /// `B'…'` or `X'…'`.
    Bits,
    /// `U&'…'`.
    Unicode,
    /// `$tag$…$tag$`.
    Dollar,
}

/// The first bytes of a name.
#[derive(Debug, Clone, Copy)]
pub struct Name {
    bytes: [u8; Name::ROOM],
    length: u8,
}

impl Name {
    /// One more than PostgreSQL's own limit.
    const ROOM: usize = 64;

    /// The first 64 bytes of `name`.
    pub fn of(name: &[u8]) -> Name {
        let length = name.len().min(Name::ROOM);
        let mut bytes = [0; Name::ROOM];
        bytes[..length].copy_from_slice(&name[..length]);
        Name { bytes, length: length as u8 }
    }

    /// Those that are kept.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }

    /// Whether there is more of it.
    pub fn is_cut(&self) -> bool {
        usize::from(self.length) == Name::ROOM
    }

    /// The name with its ASCII letters in lower case.
    pub fn lower(mut self) -> Name {
        self.bytes.make_ascii_lowercase();
        self
    }

    /// Whether it is `word`, in any case unless it is quoted.
    pub fn is(&self, word: &[u8], is_quoted: bool) -> bool {
        self.bytes() == word || (!is_quoted && self.bytes().eq_ignore_ascii_case(word))
    }
}

impl Default for Name {
    fn default() -> Name {
        Name { bytes: [0; Name::ROOM], length: 0 }
    }
}
