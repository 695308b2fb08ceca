//! The steps inside literals, quoted identifiers and comments.

use super::{Lexer, Mode, Name};
use crate::bytes::{Class, class, continues_word};
use crate::encoding::StandardStrings;
use crate::token::{Literal, Sink};

impl Lexer {
    pub(super) fn literal<S: Sink>(
        &mut self,
        kind: Literal,
        piece: &[u8],
        at: usize,
        sink: &mut S,
    ) -> usize {
        let escapes = match kind {
            Literal::Escape => true,
            Literal::Plain => self.strings == StandardStrings::Off,
            _ => false,
        };
        let rest = &piece[at..];
        let stop = rest.iter().position(|&b| b == b'\'' || (escapes && b == b'\\'));
        let length = stop.unwrap_or(rest.len());
        sink.inside(&rest[..length]);
        let Some(stop) = stop else { return piece.len() };
        self.mode = if rest[stop] == b'\'' {
            Mode::LiteralQuote(kind)
        } else {
            sink.inside(b"\\");
            Mode::LiteralEscape(kind)
        };
        at + stop + 1
    }

    pub(super) fn quoted(&mut self, name: Name, piece: &[u8], at: usize) -> usize {
        let rest = &piece[at..];
        let stop = rest.iter().position(|&b| b == b'"');
        self.carry.push(&rest[..stop.unwrap_or(rest.len())]);
        let Some(stop) = stop else { return piece.len() };
        self.mode = Mode::QuotedQuote(name);
        at + stop + 1
    }

    pub(super) fn end_name<S: Sink>(&mut self, name: Name, end: usize, sink: &mut S) {
        if name == Name::Unicode {
            // It may spell any name, with an escape character that only comes later.
            sink.lost();
        }
        sink.quoted(self.carry.bytes(), self.start..end);
    }

    pub(super) fn comment_or_mark<S: Sink>(
        &mut self,
        byte: u8,
        second: u8,
        comment: Mode,
        at: usize,
        sink: &mut S,
    ) -> usize {
        if byte == second {
            self.mode = comment;
            return at + 1;
        }
        let first = if second == b'-' { b'-' } else { b'/' };
        sink.mark(first, self.start);
        self.ended = None;
        self.mode = Mode::Plain;
        at
    }

    /// Digits that were cut by the end of a piece, or the number of a parameter.
    pub(super) fn number<S: Sink>(
        &mut self,
        piece: &[u8],
        at: usize,
        sink: &mut S,
        goes_on: impl Fn(u8) -> bool,
    ) -> usize {
        let rest = &piece[at..];
        let Some(length) = rest.iter().position(|&byte| !goes_on(byte)) else { return piece.len() };
        sink.number(self.start..self.read + at + length);
        self.mode = Mode::Plain;
        at + length
    }

    pub(super) fn dollar<S: Sink>(&mut self, byte: u8, at: usize, sink: &mut S) -> usize {
        self.carry.clear();
        match class(byte) {
            _ if byte == b'$' => {
                self.mode = Mode::DollarBody { matched: 0 };
                return at + 1;
            }
            Class::Letter => self.mode = Mode::DollarTag,
            Class::Digit => self.mode = Mode::Parameter,
            _ => {
                sink.mark(b'$', self.start);
                self.mode = Mode::Plain;
            }
        }
        at
    }

    pub(super) fn dollar_tag<S: Sink>(&mut self, piece: &[u8], at: usize, sink: &mut S) -> usize {
        let rest = &piece[at..];
        let stop = rest.iter().position(|&b| b == b'$' || !continues_word(b));
        self.carry.push(&rest[..stop.unwrap_or(rest.len())]);
        let Some(stop) = stop else { return piece.len() };
        if rest[stop] != b'$' {
            sink.mark(b'$', self.start);
            self.start += 1;
            self.mode = Mode::Word;
            return at + stop;
        }
        self.mode = Mode::DollarBody { matched: 0 };
        // Two tags that differ to the client may be equal once the server has converted them.
        if self.carry.overflowed() || !self.carry.bytes().is_ascii() {
            sink.lost();
            self.mode = Mode::Lost;
        }
        at + stop + 1
    }

    pub(super) fn dollar_body<S: Sink>(
        &mut self,
        matched: u8,
        piece: &[u8],
        at: usize,
        sink: &mut S,
    ) -> usize {
        if matched == 0 {
            let rest = &piece[at..];
            let stop = rest.iter().position(|&b| b == b'$');
            sink.inside(&rest[..stop.unwrap_or(rest.len())]);
            let Some(stop) = stop else { return piece.len() };
            self.mode = Mode::DollarBody { matched: 1 };
            return at + stop + 1;
        }
        let tag = self.carry.bytes();
        let expected = tag.get(usize::from(matched) - 1).copied().unwrap_or(b'$');
        if piece[at] == expected {
            if usize::from(matched) == tag.len() + 1 {
                self.mode = Mode::Plain;
                sink.literal(Literal::Dollar, self.start..self.read + at + 1);
            } else {
                self.mode = Mode::DollarBody { matched: matched + 1 };
            }
            return at + 1;
        }
        // A `$` that does not fit may be the first of the delimiter.
        sink.inside(b"$");
        sink.inside(&tag[..usize::from(matched) - 1]);
        self.mode = Mode::DollarBody { matched: 0 };
        at
    }

    pub(super) fn block_comment(
        &mut self,
        depth: u32,
        previous: u8,
        piece: &[u8],
        at: usize,
    ) -> usize {
        let byte = piece[at];
        let (depth, previous) = match (previous, byte) {
            (b'*', b'/') => (depth - 1, 0),
            (b'/', b'*') => (depth.saturating_add(1), 0),
            _ => (depth, byte),
        };
        self.mode = if depth == 0 { Mode::Plain } else { Mode::BlockComment { depth, previous } };
        at + 1
    }
}
