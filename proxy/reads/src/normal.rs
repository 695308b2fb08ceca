//! A text without what does not count: its literals, comments and white space.

use std::ops::Range;

use pgimbal_lexer::{Lexer, Literal, Reading, Sink, StandardStrings};

use crate::Reason;
use crate::shapes::{Constant, ConstantKind};

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

/// A text without what does not count, kept to be used again so that none allocates.
#[derive(Debug, Default)]
pub(crate) struct Normalised {
    text: Vec<u8>,
    constants: Vec<Constant>,
    listing: Listing,
    tokens: usize,
}

/// Whether the constants of a text are all listed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Listing {
    #[default]
    Complete,
    /// It has one of another kind, or too many.
    Incomplete,
}

/// More constants are not listed.
const CONSTANTS: usize = 32;

impl Normalised {
    /// The normalised text. It begins with a NUL, which no text that is a read has.
    pub(crate) fn text(&self) -> &[u8] {
        &self.text
    }

    /// Words, names, constants, parameters and marks, without comments.
    pub(crate) fn tokens(&self) -> usize {
        self.tokens
    }

    /// The numbers and plain strings, or nothing if the text has a constant of another kind or too
    /// many of them.
    pub(crate) fn constants(&self) -> Option<&[Constant]> {
        (self.listing == Listing::Complete).then_some(&self.constants)
    }

    fn clear(&mut self) {
        self.text.clear();
        self.text.push(0);
        self.constants.clear();
        self.listing = Listing::Complete;
        self.tokens = 0;
    }

    #[inline]
    fn note_constant(&mut self, kind: ConstantKind, span: &Range<usize>) {
        if self.constants.len() < CONSTANTS {
            self.constants.push(Constant { kind, start: span.start, end: span.end });
        } else {
            self.listing = Listing::Incomplete;
        }
    }
}

/// Writes the normalised text into `into`, which is emptied before.
///
/// Two texts with the same result differ in nothing but literals, comments and white space.
///
/// # Errors
/// Why the text is no read, where that is seen without the grammar.
pub(crate) fn normalise(
    text: &[u8],
    reading: Reading,
    into: &mut Normalised,
) -> Result<(), Reason> {
    into.clear();
    if !text.is_ascii() && !is_utf8(text, reading) {
        return Err(Reason::Encoding);
    }
    if reading.strings == StandardStrings::Off && text.contains(&b'\\') {
        return Err(Reason::Backslash);
    }
    let mut normaliser = Normaliser::new(text, into);
    let mut lexer = Lexer::new(reading.strings);
    lexer.feed(text, &mut normaliser);
    if lexer.is_in_quotes() {
        return Err(Reason::NotParsed);
    }
    lexer.finish(&mut normaliser);
    normaliser.finish()
}

/// Whether the server sees the bytes that the client sent, and these are UTF-8.
fn is_utf8(text: &[u8], reading: Reading) -> bool {
    reading.encoding == pgimbal_lexer::Encoding::Utf8 && std::str::from_utf8(text).is_ok()
}

struct Normaliser<'a> {
    text: &'a [u8],
    into: &'a mut Normalised,
    /// What stands in the text from here to `end` is normal, and not yet copied: a short text is
    /// copied in a few pieces.
    copied: usize,
    /// Where the token before this one ended in the text.
    end: usize,
    next: Next,
    refused: Option<Reason>,
}

/// What a word would be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    /// The first of a statement, parentheses left out.
    Statement,
    Any,
}

impl<'a> Normaliser<'a> {
    fn new(text: &'a [u8], into: &'a mut Normalised) -> Self {
        Self { text, into, copied: 0, end: 0, next: Next::Statement, refused: None }
    }

    /// Adds a token as it stands in the text.
    #[inline]
    fn keep(&mut self, start: usize, end: usize) {
        self.separate(start);
        self.end = end;
    }

    /// Adds another token in place of what stands in the text.
    #[inline]
    fn replace(&mut self, token: &[u8], span: Range<usize>) {
        self.separate(span.start);
        self.copy_to(span.start);
        self.into.text.extend_from_slice(token);
        self.copied = span.end;
        self.end = span.end;
    }

    /// A token begins here: whatever stands between it and the one before it counts as a space.
    #[inline]
    fn separate(&mut self, start: usize) {
        self.into.tokens += 1;
        let is_normal = start == self.end
            || (start == self.end + 1 && self.text[self.end] == b' ' && self.end != 0);
        if !is_normal {
            self.separate_anew(start);
        }
    }

    fn separate_anew(&mut self, start: usize) {
        self.copy_to(self.end);
        if self.into.text.len() > 1 {
            self.into.text.push(b' ');
        }
        self.copied = start;
    }

    #[inline]
    fn copy_to(&mut self, end: usize) {
        self.into.text.extend_from_slice(&self.text[self.copied..end]);
    }

    /// Whether this literal is `'…'`, with no doubled quote.
    #[inline]
    fn is_plain_string(&self, span: &Range<usize>) -> bool {
        let literal = &self.text[span.clone()];
        literal[0] == b'\'' && !literal[1..literal.len() - 1].contains(&b'\'')
    }

    #[cold]
    fn refuse(&mut self, reason: Reason) {
        self.refused.get_or_insert(reason);
    }

    fn finish(mut self) -> Result<(), Reason> {
        self.copy_to(self.end);
        self.refused.map_or(Ok(()), Err)
    }
}

impl Sink for Normaliser<'_> {
    #[inline]
    fn word(&mut self, _: &[u8], span: Range<usize>) {
        if self.next == Next::Statement {
            self.next = Next::Any;
            if !is_read_word(&self.text[span.clone()]) {
                self.refuse(Reason::Statement);
            }
        }
        self.keep(span.start, span.end);
    }

    #[inline]
    fn quoted(&mut self, _: &[u8], span: Range<usize>) {
        self.keep(span.start, span.end);
    }

    #[inline]
    fn literal(&mut self, kind: Literal, span: Range<usize>) {
        let token = match kind {
            Literal::Bits => b"B''",
            _ => b"'''",
        };
        if kind == Literal::Plain && self.is_plain_string(&span) {
            self.into.note_constant(ConstantKind::String, &span);
        } else {
            self.into.listing = Listing::Incomplete;
        }
        self.replace(token, span);
    }

    #[inline]
    fn number(&mut self, span: Range<usize>) {
        if self.text[span.start] == b'$' {
            self.replace(b"$", span);
        } else {
            self.into.note_constant(ConstantKind::Number, &span);
            self.replace(b"0", span);
        }
    }

    #[inline]
    fn mark(&mut self, byte: u8, at: usize) {
        match byte {
            b';' => self.next = Next::Statement,
            0 => self.refuse(Reason::Unfollowed),
            _ => {}
        }
        self.keep(at, at + 1);
    }

    fn inside(&mut self, _: &[u8]) {}

    fn lost(&mut self) {
        self.refuse(Reason::Unfollowed);
    }
}
