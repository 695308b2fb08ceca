//! Which of the forms that matter a text of one statement has. Whatever is not surely one of them
//! is none: the server will say what it is.

use std::borrow::Cow;
use std::ops::Range;

use super::encoding::Mask;
use super::lex::Lexer;
use super::token::{Literal, Sink};
use super::{Chain, Discard, Encoding, Hold, Reading, Statement};

mod set;

/// The form of `text`, which is `whole` or only the beginning of a longer one.
pub(super) fn statement(text: &[u8], whole: bool, reading: Reading) -> Option<Statement<'_>> {
    let mut cursor = Cursor::new(text, whole, reading);
    let lead = cursor.token()?;
    if lead.kind != Kind::Word {
        return None;
    }
    let mut lower = [0u8; 12];
    let lower = lower.get_mut(..lead.span.len())?;
    lower.copy_from_slice(&text[lead.span.clone()]);
    lower.make_ascii_lowercase();
    cursor.at += 1;
    match &*lower {
        b"set" => set::set(&mut cursor),
        b"select" => set::select(&mut cursor),
        b"reset" => set::reset(&mut cursor),
        b"prepare" => prepare(&mut cursor),
        b"execute" => Some(Statement::Execute { name: cursor.identifier()? }),
        b"declare" => declare(&mut cursor),
        _ => {
            let statement = match &*lower {
                b"commit" | b"end" => end(&mut cursor, |chain| Statement::Commit { chain }),
                b"rollback" | b"abort" => rollback(&mut cursor),
                b"savepoint" => Some(Statement::Savepoint { name: cursor.identifier()? }),
                b"release" => {
                    cursor.skip_if_more("savepoint");
                    Some(Statement::Release { name: cursor.identifier()? })
                }
                b"deallocate" => deallocate(&mut cursor),
                b"discard" => discard(&mut cursor),
                b"listen" => Some(Statement::Listen { channel: cursor.identifier()? }),
                b"unlisten" if cursor.mark(b'*') => Some(Statement::UnlistenAll),
                b"unlisten" => Some(Statement::Unlisten { channel: cursor.identifier()? }),
                b"close" if cursor.word("all") => Some(Statement::CloseAll),
                b"close" => Some(Statement::Close { name: cursor.identifier()? }),
                _ => None,
            };
            statement.filter(|_| cursor.is_at_end())
        }
    }
}

fn prepare<'t>(cursor: &mut Cursor<'t>) -> Option<Statement<'t>> {
    if cursor.peek_word("transaction") && matches!(cursor.kind_after(1), Some(Kind::Literal(_))) {
        return Some(Statement::PrepareTransaction);
    }
    Some(Statement::Prepare { name: cursor.identifier()? })
}

fn declare<'t>(cursor: &mut Cursor<'t>) -> Option<Statement<'t>> {
    let name = cursor.identifier()?;
    let mut hold = Hold::Transaction;
    // The options end at FOR; a cursor's query may say WITH as well.
    while !cursor.peek_word("for") {
        cursor.token()?;
        if cursor.word("with") && cursor.peek_word("hold") {
            hold = Hold::Session;
        }
        cursor.at += 1;
    }
    Some(Statement::Declare { name, hold })
}

fn end<'t>(
    cursor: &mut Cursor<'t>,
    statement: impl FnOnce(Chain) -> Statement<'t>,
) -> Option<Statement<'t>> {
    if cursor.word("prepared") {
        cursor.at += 1;
        return Some(statement(Chain::No));
    }
    let _ = cursor.word("work") || cursor.word("transaction");
    if !cursor.word("and") {
        return Some(statement(Chain::No));
    }
    let chain = if cursor.word("no") { Chain::No } else { Chain::Yes };
    cursor.word("chain").then(|| statement(chain))
}

fn rollback<'t>(cursor: &mut Cursor<'t>) -> Option<Statement<'t>> {
    let start = cursor.at;
    let _ = cursor.word("work") || cursor.word("transaction");
    if cursor.word("to") {
        cursor.skip_if_more("savepoint");
        return Some(Statement::RollbackTo { name: cursor.identifier()? });
    }
    cursor.at = start;
    end(cursor, |chain| Statement::Rollback { chain })
}

fn deallocate<'t>(cursor: &mut Cursor<'t>) -> Option<Statement<'t>> {
    cursor.skip_if_more("prepare");
    if cursor.word("all") {
        return Some(Statement::DeallocateAll);
    }
    Some(Statement::Deallocate { name: cursor.identifier()? })
}

fn discard<'t>(cursor: &mut Cursor<'t>) -> Option<Statement<'t>> {
    for (word, part) in [
        ("plans", Discard::Plans),
        ("sequences", Discard::Sequences),
        ("temp", Discard::Temporary),
        ("temporary", Discard::Temporary),
    ] {
        if cursor.word(word) {
            return Some(Statement::Discard(part));
        }
    }
    cursor.word("all").then_some(Statement::DiscardAll)
}

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

/// A place among the tokens of a text, its semicolons left out.
pub(super) struct Cursor<'t> {
    pub(super) text: &'t [u8],
    pub(super) reading: Reading,
    tokens: Vec<Token>,
    pub(super) at: usize,
    whole: bool,
}

impl<'t> Cursor<'t> {
    fn new(text: &'t [u8], whole: bool, reading: Reading) -> Cursor<'t> {
        let mut lexer = Lexer::new(reading.strings);
        let mut tokens = Collect { tokens: Vec::with_capacity(8) };
        if reading.encoding == Encoding::AsciiSafe {
            lexer.feed(text, &mut tokens);
        } else {
            let mut masked = text.to_vec();
            Mask::new(reading.encoding).apply(&mut masked);
            lexer.feed(&masked, &mut tokens);
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

    fn is_at_end(&self) -> bool {
        self.whole && self.at == self.tokens.len()
    }

    /// Whether the token `more` further on is this keyword.
    fn is_word_after(&self, more: usize, keyword: &str) -> bool {
        self.tokens.get(self.at + more).is_some_and(|token| {
            token.kind == Kind::Word
                && self.text[token.span.clone()].eq_ignore_ascii_case(keyword.as_bytes())
        })
    }

    fn peek_word(&self, keyword: &str) -> bool {
        self.is_word_after(0, keyword)
    }

    /// Goes past this keyword, if it is next.
    fn word(&mut self, keyword: &str) -> bool {
        let is = self.peek_word(keyword);
        self.at += usize::from(is);
        is
    }

    /// Goes past this mark, if it is next.
    pub(super) fn mark(&mut self, byte: u8) -> bool {
        let is = self.kind_after(0) == Some(Kind::Mark(byte));
        self.at += usize::from(is);
        is
    }

    /// Goes past an optional keyword, which alone would be a name.
    fn skip_if_more(&mut self, keyword: &str) {
        if self.at + 1 < self.tokens.len() {
            self.word(keyword);
        }
    }

    /// An identifier: lower-cased unless it is quoted.
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
        Some(name)
    }
}

/// `bytes` in lower case (ASCII only, as PostgreSQL does in multibyte encodings).
fn lower(bytes: &[u8]) -> Cow<'_, [u8]> {
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
        if byte != b';' {
            self.push(Kind::Mark(byte), at..at + 1);
        }
    }

    fn inside(&mut self, _: &[u8]) {}

    fn lost(&mut self) {}
}
