//! PostgreSQL's lexical rules, as far as they decide where a token begins and ends. A text may
//! arrive in pieces: what is open between two of them is at most 64 bytes.

mod inside;

use crate::bytes::{Carry, Class, class, continues_word};
use crate::encoding::StandardStrings;
use crate::token::{Literal, Sink};

/// A lexer that stands somewhere in a text.
#[derive(Debug, Clone)]
pub struct Lexer {
    mode: Mode,
    strings: StandardStrings,
    /// The bytes of the pieces before this one.
    read: usize,
    /// Where the open token began.
    start: usize,
    /// The open word, quoted identifier or dollar-quote tag.
    carry: Carry,
    /// The literal that just ended, which another on a later line would continue.
    ended: Option<Literal>,
    /// Whether a newline came since.
    newline: Newline,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Newline {
    Unseen,
    Seen,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Plain,
    Word,
    /// After `U&`, which may begin a literal or an identifier.
    UnicodePrefix,
    Literal(Literal),
    /// After a backslash that escapes the next byte.
    LiteralEscape(Literal),
    /// After a quote that ends the literal unless it is doubled.
    LiteralQuote(Literal),
    Quoted(Name),
    QuotedQuote(Name),
    /// After `-`, `/` and `$`.
    Minus,
    Slash,
    Dollar,
    DollarTag,
    Number,
    /// After `$1`.
    Parameter,
    /// In a dollar-quoted literal, after so many bytes of its closing delimiter.
    DollarBody {
        matched: u8,
    },
    LineComment,
    /// In so many comments, after this byte of the innermost (0 where it cannot matter).
    BlockComment {
        depth: u32,
        previous: u8,
    },
    Lost,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Name {
    Exact,
    Unicode,
}

impl Lexer {
    /// A lexer at the beginning of a text.
    pub fn new(strings: StandardStrings) -> Lexer {
        Lexer {
            mode: Mode::Plain,
            strings,
            read: 0,
            start: 0,
            carry: Carry::default(),
            ended: None,
            newline: Newline::Unseen,
        }
    }

    /// Reads the next piece of the text.
    #[inline]
    pub fn feed<S: Sink>(&mut self, piece: &[u8], sink: &mut S) {
        let mut at = 0;
        while at < piece.len() {
            at = match self.mode {
                Mode::Plain => self.plain(piece, at, sink),
                _ => self.within(piece, at, sink),
            };
        }
        self.read += piece.len();
    }

    /// Whether what was read ends inside a literal or a quoted identifier.
    pub fn is_in_quotes(&self) -> bool {
        matches!(
            self.mode,
            Mode::Literal(_) | Mode::LiteralEscape(_) | Mode::Quoted(_) | Mode::DollarBody { .. }
        )
    }

    /// The text has ended. A literal, identifier or comment left open is a syntax error, which is
    /// the server's to raise.
    pub fn finish<S: Sink>(&mut self, sink: &mut S) {
        let end = self.read;
        match self.mode {
            Mode::Word => sink.word(self.carry.bytes(), self.start..end),
            Mode::LiteralQuote(kind) => sink.literal(kind, self.start..end),
            Mode::QuotedQuote(name) => self.end_name(name, end, sink),
            Mode::Minus => sink.mark(b'-', self.start),
            Mode::Slash => sink.mark(b'/', self.start),
            Mode::Dollar => sink.mark(b'$', self.start),
            Mode::Number | Mode::Parameter => sink.number(self.start..end),
            Mode::UnicodePrefix => {
                sink.word(b"u", self.start..end - 1);
                sink.mark(b'&', end - 1);
            }
            Mode::DollarTag => {
                sink.mark(b'$', self.start);
                sink.word(self.carry.bytes(), self.start + 1..end);
            }
            _ => {}
        }
        self.mode = Mode::Plain;
    }

    /// Between tokens: the only mode that an ordinary short text sees much of.
    #[inline]
    fn plain<S: Sink>(&mut self, piece: &[u8], mut at: usize, sink: &mut S) -> usize {
        while let Some(&byte) = piece.get(at) {
            match class(byte) {
                Class::Space => {
                    if byte == b'\n' || byte == b'\r' {
                        self.newline = Newline::Seen;
                    }
                    at += 1;
                    continue;
                }
                Class::Letter => {
                    let mut end = at + 1;
                    while end < piece.len() && continues_word(piece[end]) {
                        end += 1;
                    }
                    self.start = self.read + at;
                    self.ended = None;
                    if end == piece.len() {
                        self.carry.clear();
                        self.carry.push(&piece[at..end]);
                        self.mode = Mode::Word;
                        return end;
                    }
                    if self.is_prefix(&piece[at..end], piece[end]) {
                        return end + 1;
                    }
                    sink.word(&piece[at..end], self.start..self.read + end);
                    at = end;
                    continue;
                }
                Class::Digit => {
                    let mut end = at + 1;
                    while end < piece.len() && (piece[end].is_ascii_digit() || piece[end] == b'.') {
                        end += 1;
                    }
                    self.ended = None;
                    if end == piece.len() {
                        self.start = self.read + at;
                        self.mode = Mode::Number;
                        return end;
                    }
                    sink.number(self.read + at..self.read + end);
                    at = end;
                }
                Class::Mark => {
                    sink.mark(byte, self.read + at);
                    at += 1;
                }
                Class::Opens => match self.closed(piece, at, sink) {
                    Some(end) => {
                        at = end;
                        continue;
                    }
                    None => return self.open(byte, at),
                },
            }
            self.ended = None;
        }
        at
    }

    /// The short way for what ends in this piece: `"name"`, `'literal'` and `$1`, each followed by
    /// another byte that has no part in it. Returns where it ends.
    #[inline]
    fn closed<S: Sink>(&mut self, piece: &[u8], at: usize, sink: &mut S) -> Option<usize> {
        let inside = &piece[at + 1..];
        let quote = piece[at];
        if quote == b'$' {
            let digits = inside.iter().position(|b| !b.is_ascii_digit())?;
            if digits == 0 {
                return None;
            }
            self.ended = None;
            sink.number(self.read + at..self.read + at + 1 + digits);
            return Some(at + 1 + digits);
        }
        let plain = self.ended.is_none() && self.strings == StandardStrings::On;
        if quote != b'"' && !(quote == b'\'' && plain) {
            return None;
        }
        let length = inside.iter().position(|&b| b == quote)?;
        if *inside.get(length + 1)? == quote {
            return None;
        }
        let end = at + length + 2;
        let span = self.read + at..self.read + end;
        let inside = &inside[..length];
        if quote == b'"' {
            self.ended = None;
            sink.quoted(&inside[..length.min(Carry::ROOM)], span);
        } else {
            sink.inside(inside);
            sink.literal(Literal::Plain, span);
            self.ended = Some(Literal::Plain);
            self.newline = Newline::Unseen;
        }
        Some(end)
    }

    /// A byte that may open a literal, a quoted identifier or a comment.
    fn open(&mut self, byte: u8, at: usize) -> usize {
        self.start = self.read + at;
        self.mode = match byte {
            b'\'' => Mode::Literal(match (self.ended, self.newline) {
                (Some(kind), Newline::Seen) => kind,
                _ => Literal::Plain,
            }),
            b'"' => {
                self.carry.clear();
                Mode::Quoted(Name::Exact)
            }
            b'-' => Mode::Minus,
            b'/' => Mode::Slash,
            _ => Mode::Dollar,
        };
        // A line comment does not part a literal from its continuation.
        if byte != b'-' {
            self.ended = None;
        }
        at + 1
    }

    /// One step inside a token that was open.
    fn within<S: Sink>(&mut self, piece: &[u8], at: usize, sink: &mut S) -> usize {
        match self.mode {
            Mode::Plain => at,
            Mode::Word => self.word(piece, at, sink),
            Mode::UnicodePrefix => self.unicode_prefix(piece, at, sink),
            Mode::Literal(kind) => self.literal(kind, piece, at, sink),
            Mode::LiteralEscape(kind) => {
                sink.inside(&piece[at..=at]);
                self.mode = Mode::Literal(kind);
                at + 1
            }
            Mode::LiteralQuote(kind) => {
                if piece[at] == b'\'' {
                    self.mode = Mode::Literal(kind);
                    return at + 1;
                }
                sink.literal(kind, self.start..self.read + at);
                self.ended = Some(kind);
                self.newline = Newline::Unseen;
                self.mode = Mode::Plain;
                at
            }
            Mode::Quoted(name) => self.quoted(name, piece, at),
            Mode::QuotedQuote(name) => {
                if piece[at] == b'"' {
                    self.carry.push(b"\"\"");
                    self.mode = Mode::Quoted(name);
                    return at + 1;
                }
                self.end_name(name, self.read + at, sink);
                self.mode = Mode::Plain;
                at
            }
            Mode::Minus => self.comment_or_mark(piece[at], b'-', Mode::LineComment, at, sink),
            Mode::Slash => {
                let comment = Mode::BlockComment { depth: 1, previous: 0 };
                self.comment_or_mark(piece[at], b'*', comment, at, sink)
            }
            Mode::Dollar => self.dollar(piece[at], at, sink),
            Mode::DollarTag => self.dollar_tag(piece, at, sink),
            Mode::Number => {
                self.number(piece, at, sink, |byte| byte.is_ascii_digit() || byte == b'.')
            }
            Mode::Parameter => self.number(piece, at, sink, |byte| byte.is_ascii_digit()),
            Mode::DollarBody { matched } => self.dollar_body(matched, piece, at, sink),
            Mode::LineComment => {
                match piece[at..].iter().position(|b| matches!(b, b'\n' | b'\r')) {
                    Some(length) => {
                        self.mode = Mode::Plain;
                        at + length
                    }
                    None => piece.len(),
                }
            }
            Mode::BlockComment { depth, previous } => {
                self.block_comment(depth, previous, piece, at)
            }
            Mode::Lost => piece.len(),
        }
    }

    /// Whether the word just read and `next` are the prefix of a literal, which is then open.
    #[inline]
    fn is_prefix(&mut self, word: &[u8], next: u8) -> bool {
        if word.len() != 1 || !matches!(next, b'\'' | b'&') {
            return false;
        }
        self.mode = match (word[0] | 0x20, next) {
            (b'e', b'\'') => Mode::Literal(Literal::Escape),
            (b'b' | b'x', b'\'') => Mode::Literal(Literal::Bits),
            (b'n', b'\'') => Mode::Literal(Literal::Plain),
            (b'u', b'&') => Mode::UnicodePrefix,
            _ => return false,
        };
        true
    }

    fn word<S: Sink>(&mut self, piece: &[u8], at: usize, sink: &mut S) -> usize {
        let rest = &piece[at..];
        let length = rest.iter().position(|&b| !continues_word(b)).unwrap_or(rest.len());
        self.carry.push(&rest[..length]);
        let end = at + length;
        if end == piece.len() {
            return end;
        }
        let carry = self.carry;
        if self.is_prefix(carry.bytes(), piece[end]) {
            return end + 1;
        }
        sink.word(carry.bytes(), self.start..self.read + end);
        self.mode = Mode::Plain;
        end
    }

    fn unicode_prefix<S: Sink>(&mut self, piece: &[u8], at: usize, sink: &mut S) -> usize {
        match piece[at] {
            b'\'' => self.mode = Mode::Literal(Literal::Unicode),
            b'"' => {
                self.carry.clear();
                self.mode = Mode::Quoted(Name::Unicode);
            }
            _ => {
                let ampersand = self.read + at - 1;
                sink.word(b"u", self.start..ampersand);
                sink.mark(b'&', ampersand);
                self.mode = Mode::Plain;
                return at;
            }
        }
        at + 1
    }
}
