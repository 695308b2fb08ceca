//! Tokens, and what is told of them.

use std::ops::Range;

/// What the tokens of a text are told to. Offsets count from the text's first byte.
pub(super) trait Sink {
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
pub(super) enum Literal {
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
