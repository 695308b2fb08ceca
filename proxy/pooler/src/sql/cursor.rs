//! A place among the tokens of one statement.

use std::borrow::Cow;
use std::ops::Range;

use super::encoding::{Encoding, Mask, Reading};
use super::lex::Lexer;
use super::names::cut_name;
use super::token::{Literal, Sink};

/// A token of the text.
#[derive(Debug, Clone)]
pub(super) struct Token {
    pub(super) kind: Kind,
    pub(super) span: Range<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Word,
    Quoted,
    Literal(Literal),
    Number,
    Mark(u8),
}

/// A place among the tokens of a statement.
pub(super) struct Cursor<'t> {
    pub(super) text: &'t [u8],
    pub(super) reading: Reading,
    tokens: Vec<Token>,
    pub(super) at: usize,
    whole: bool,
}

impl<'t> Cursor<'t> {
    /// The statement `text`, which is `whole` or only the beginning of a longer one.
    pub(super) fn new(text: &'t [u8], whole: bool, reading: Reading) -> Cursor<'t> {
        let mut lexer = Lexer::new(reading.strings);
        let mut tokens = Collect { tokens: Vec::with_capacity(8) };
        if reading.encoding.has_pairs() {
            let mut masked = text.to_vec();
            Mask::new(reading.encoding).apply(&mut masked);
            lexer.feed(&masked, &mut tokens);
        } else {
            lexer.feed(text, &mut tokens);
        }
        if whole {
            lexer.finish(&mut tokens);
        }
        let tokens = tokens.tokens;
        Cursor { text, reading, tokens, at: 0, whole }
    }

    pub(super) fn token(&self) -> Option<&Token> {
        self.tokens.get(self.at)
    }

    pub(super) fn kind_after(&self, more: usize) -> Option<Kind> {
        self.tokens.get(self.at + more).map(|token| token.kind)
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.whole && self.at == self.tokens.len()
    }

    pub(super) fn skip_to_end(&mut self) {
        self.at = self.tokens.len();
    }

    /// Whether the token `more` further on is this keyword.
    pub(super) fn is_word_after(&self, more: usize, keyword: &str) -> bool {
        self.tokens.get(self.at + more).is_some_and(|token| {
            token.kind == Kind::Word
                && self.text[token.span.clone()].eq_ignore_ascii_case(keyword.as_bytes())
        })
    }

    pub(super) fn peek_word(&self, keyword: &str) -> bool {
        self.is_word_after(0, keyword)
    }

    /// Goes past this keyword, if it is next.
    pub(super) fn word(&mut self, keyword: &str) -> bool {
        let is = self.peek_word(keyword);
        self.at += usize::from(is);
        is
    }

    /// Goes past these keywords, if both are next.
    pub(super) fn two_words(&mut self, first: &str, second: &str) -> bool {
        let are = self.peek_word(first) && self.is_word_after(1, second);
        self.at += if are { 2 } else { 0 };
        are
    }

    /// Goes past this mark, if it is next.
    pub(super) fn mark(&mut self, byte: u8) -> bool {
        let is = self.kind_after(0) == Some(Kind::Mark(byte));
        self.at += usize::from(is);
        is
    }

    /// Goes past an optional keyword, which alone would be a name.
    pub(super) fn skip_if_more(&mut self, keyword: &str) {
        if self.at + 1 < self.tokens.len() {
            self.word(keyword);
        }
    }

    /// An identifier: lower-cased unless it is quoted, cut as PostgreSQL cuts it. `None` if the
    /// server's encoding or locale would have to be known to say what it is.
    pub(super) fn identifier(&mut self) -> Option<Cow<'t, [u8]>> {
        let token = self.tokens.get(self.at)?;
        let bytes = &self.text[token.span.clone()];
        let name = match token.kind {
            Kind::Word => lower(bytes),
            Kind::Quoted => {
                let content = bytes.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
                unquote(content, b'"')
            }
            _ => return None,
        };
        self.at += 1;
        let length = cut_name(&name, self.reading.encoding == Encoding::Utf8)?.len();
        Some(match name {
            Cow::Borrowed(name) => Cow::Borrowed(&name[..length]),
            Cow::Owned(mut name) => {
                name.truncate(length);
                Cow::Owned(name)
            }
        })
    }
}

/// `bytes` in lower case (ASCII only, as PostgreSQL does in multibyte encodings).
pub(super) fn lower(bytes: &[u8]) -> Cow<'_, [u8]> {
    if bytes.iter().any(u8::is_ascii_uppercase) {
        Cow::Owned(bytes.to_ascii_lowercase())
    } else {
        Cow::Borrowed(bytes)
    }
}

/// `content` with each doubled `quote` made single.
pub(super) fn unquote(content: &[u8], quote: u8) -> Cow<'_, [u8]> {
    if !content.contains(&quote) {
        return Cow::Borrowed(content);
    }
    let mut single = Vec::with_capacity(content.len());
    let mut bytes = content.iter();
    while let Some(&byte) = bytes.next() {
        single.push(byte);
        if byte == quote {
            bytes.next();
        }
    }
    Cow::Owned(single)
}

struct Collect {
    tokens: Vec<Token>,
}

impl Collect {
    fn push(&mut self, kind: Kind, span: Range<usize>) {
        self.tokens.push(Token { kind, span });
    }
}

impl Sink for Collect {
    fn word(&mut self, _: &[u8], span: Range<usize>) {
        self.push(Kind::Word, span);
    }

    fn quoted(&mut self, _: &[u8], span: Range<usize>) {
        self.push(Kind::Quoted, span);
    }

    fn literal(&mut self, kind: Literal, span: Range<usize>) {
        self.push(Kind::Literal(kind), span);
    }

    fn number(&mut self, span: Range<usize>) {
        self.push(Kind::Number, span);
    }

    fn mark(&mut self, byte: u8, at: usize) {
        self.push(Kind::Mark(byte), at..at + 1);
    }

    fn inside(&mut self, _: &[u8]) {}

    fn lost(&mut self) {}
}
