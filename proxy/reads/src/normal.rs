//! A text without what does not count: its literals, comments and white space.

use std::ops::Range;

use pgimbal_lexer::{Lexer, Literal, Reading, Sink, StandardStrings};

use crate::Reason;

/// Whether a text may begin as a read, by its first word. Most writes are told apart here.
pub(crate) fn may_begin_as_read(text: &[u8]) -> bool {
    let Some(start) = text.iter().position(|byte| !byte.is_ascii_whitespace()) else { return true };
    let text = &text[start..];
    if !text[0].is_ascii_alphabetic() {
        return true;
    }
    let length = text.iter().position(|byte| !byte.is_ascii_alphabetic()).unwrap_or(text.len());
    is_read_word(&text[..length])
}

/// Whether a statement that only reads may begin with this word.
fn is_read_word(word: &[u8]) -> bool {
    const WORDS: [&[u8]; 7] =
        [b"select", b"with", b"values", b"table", b"show", b"explain", b"copy"];
    WORDS.iter().any(|read| read.eq_ignore_ascii_case(word))
}

/// What was seen of a text while it was normalised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Normalised {
    /// Words, names, literals, numbers and marks, without comments.
    pub(crate) tokens: usize,
    pub(crate) constants: Constants,
}

/// Whether a text has literals or numbers, so that it is hardly ever sent twice with the same ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Constants {
    None,
    Some,
}

/// Writes the normalised text into `into`, which is emptied before. It begins with a NUL, which no
/// text that is a read has.
///
/// Two texts with the same result differ in nothing but literals, comments and white space.
///
/// # Errors
/// Why the text is no read, where that is seen without the grammar.
pub(crate) fn normalise(
    text: &[u8],
    reading: Reading,
    into: &mut Vec<u8>,
) -> Result<Normalised, Reason> {
    into.clear();
    into.push(0);
    if !text.is_ascii() && !is_utf8(text, reading) {
        return Err(Reason::Encoding);
    }
    if reading.strings == StandardStrings::Off && text.contains(&b'\\') {
        return Err(Reason::Backslash);
    }
    let seen = Normalised { tokens: 0, constants: Constants::None };
    let mut normaliser = Normaliser { text, into, end: 0, next: Next::Statement, found: Ok(seen) };
    let mut lexer = Lexer::new(reading.strings);
    lexer.feed(text, &mut normaliser);
    if lexer.is_in_quotes() {
        return Err(Reason::NotParsed);
    }
    lexer.finish(&mut normaliser);
    normaliser.found
}

/// Whether the server sees the bytes that the client sent, and these are UTF-8.
fn is_utf8(text: &[u8], reading: Reading) -> bool {
    reading.encoding == pgimbal_lexer::Encoding::Utf8 && std::str::from_utf8(text).is_ok()
}

struct Normaliser<'a> {
    text: &'a [u8],
    into: &'a mut Vec<u8>,
    /// Where the token before this one ended in the text.
    end: usize,
    next: Next,
    found: Result<Normalised, Reason>,
}

/// What a word would be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    /// The first of a statement, parentheses left out.
    Statement,
    Any,
}

impl Normaliser<'_> {
    /// Adds a token, behind a space if something stands between it and the one before it.
    #[inline]
    fn add(&mut self, token: &[u8], span: Range<usize>) {
        if let Ok(seen) = &mut self.found {
            seen.tokens += 1;
        }
        if span.start != self.end && self.into.len() > 1 {
            self.into.push(b' ');
        }
        self.into.extend_from_slice(token);
        self.end = span.end;
    }

    #[inline]
    fn note_constant(&mut self) {
        if let Ok(seen) = &mut self.found {
            seen.constants = Constants::Some;
        }
    }

    #[cold]
    fn refuse(&mut self, reason: Reason) {
        if self.found.is_ok() {
            self.found = Err(reason);
        }
    }
}

impl Sink for Normaliser<'_> {
    #[inline]
    fn word(&mut self, _: &[u8], span: Range<usize>) {
        let word = &self.text[span.clone()];
        if self.next == Next::Statement {
            self.next = Next::Any;
            if !is_read_word(word) {
                self.refuse(Reason::Statement);
            }
        }
        self.add(word, span);
    }

    #[inline]
    fn quoted(&mut self, _: &[u8], span: Range<usize>) {
        let quoted = &self.text[span.clone()];
        self.add(quoted, span);
    }

    #[inline]
    fn literal(&mut self, kind: Literal, span: Range<usize>) {
        let token = match kind {
            Literal::Bits => b"B''",
            _ => b"'''",
        };
        self.note_constant();
        self.add(token, span);
    }

    #[inline]
    fn number(&mut self, span: Range<usize>) {
        let token = match self.text[span.start] {
            b'$' => b"$",
            _ => {
                self.note_constant();
                b"0"
            }
        };
        self.add(token, span);
    }

    #[inline]
    fn mark(&mut self, byte: u8, at: usize) {
        match byte {
            b';' => self.next = Next::Statement,
            0 => self.refuse(Reason::Unfollowed),
            _ => {}
        }
        self.add(&[byte], at..at + 1);
    }

    fn inside(&mut self, _: &[u8]) {}

    fn lost(&mut self) {
        self.refuse(Reason::Unfollowed);
    }
}
