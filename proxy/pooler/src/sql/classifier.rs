//! Follows the tokens of a text and notes what each of its statements may do.

use std::ops::Range;

use super::access::{Access, AccessKind};
use super::classified::{Classified, Step, Steps};
use super::draft::Draft;
use super::encoding::{Encoding, Reading};
use super::keyword::Lead;
use super::known::Known;
use super::marks::Marks;
use super::readings::Calls;
use super::statement::{Seen, Statement};
use super::token::{Literal, Sink};

/// What has been seen of a text so far.
#[derive(Debug, Clone)]
pub(super) struct Classifier {
    reading: Reading,
    calls: Calls,
    /// Unquoted words with bytes from 0x80 may be folded to ASCII by the server.
    folds: bool,
    unreadable: bool,
    names_statements: bool,
    marks: Marks,
    access: AccessKind,
    /// How many plain statements stand in front of the first that is not plain.
    plain: usize,
    first: Option<Draft>,
    later: Vec<Draft>,
    statement: Statement,
}

impl Classifier {
    /// A text that has more statements, not all of them plain, is not taken apart.
    const MAX_STEPS: usize = 1024;

    pub(super) fn new(reading: Reading, calls: Calls) -> Classifier {
        Classifier {
            reading,
            calls,
            folds: false,
            unreadable: false,
            names_statements: false,
            marks: Marks::default(),
            access: AccessKind::Nothing,
            plain: 0,
            first: None,
            later: Vec::new(),
            statement: Statement::default(),
        }
    }

    /// The text has bytes from 0x80.
    pub(super) fn has_high_bytes(&mut self) {
        match self.reading.encoding {
            Encoding::Unreadable => self.unreadable = true,
            Encoding::Utf8 => {}
            _ => self.folds = true,
        }
    }

    /// The text has ended after `length` bytes, of which `kept` is the beginning. Nobody has looked
    /// for names of what escapes a READ ONLY transaction.
    #[inline]
    pub(super) fn finish(&mut self, kept: &[u8], length: usize) -> Classified {
        self.end_statement(length);
        if self.unreadable {
            return Classified::UNREADABLE;
        }
        let (steps, leaves_nothing) = match self.first.take() {
            None if self.plain == 0 => (Steps::None, true),
            None => (Steps::Plain, true),
            Some(first) => self.steps(first, kept),
        };
        Classified {
            steps,
            marks: self.marks,
            access: Access { kind: self.access, escapes: true },
            leaves_nothing,
            names_statements: self.names_statements,
        }
    }

    /// The statements, and whether none of them leaves anything by its words.
    fn steps(&mut self, first: Draft, kept: &[u8]) -> (Steps, bool) {
        let reading = self.reading;
        let mut leaves_nothing = true;
        let mut step = |draft: &Draft| {
            let step = draft.step(kept, reading);
            leaves_nothing &= step.leaves_nothing() || draft.only_calls();
            step
        };
        let first = step(&first);
        let later: Vec<Step> = self.later.iter().map(step).collect();
        if self.plain == 0 && later.is_empty() {
            let steps = if first.is_plain() { Steps::Plain } else { Steps::One(first) };
            return (steps, leaves_nothing);
        }
        let mut steps = Vec::with_capacity(self.plain + 1 + later.len());
        steps.resize(self.plain, Step::PLAIN);
        steps.push(first);
        steps.extend(later);
        let steps = match steps.iter().all(Step::is_plain) {
            true => Steps::Plain,
            false => Steps::Several(steps.into_boxed_slice()),
        };
        (steps, leaves_nothing)
    }

    #[inline]
    fn end_statement(&mut self, end: usize) {
        if self.statement.is_empty() {
            return;
        }
        let draft = self.statement.end(end);
        self.access = self.access.then(self.statement.access());
        self.marks.insert(self.statement.marks);
        self.names_statements |= self.statement.names_statements;
        match (draft, &self.first) {
            (None, None) => self.plain += 1,
            (Some(draft), None) if self.plain < Classifier::MAX_STEPS => self.first = Some(draft),
            (draft, Some(_)) if self.plain + self.later.len() < Classifier::MAX_STEPS => {
                self.later.push(draft.unwrap_or(Draft::PLAIN));
            }
            _ => self.unreadable = true,
        }
    }

    /// A token that is no word; it may begin a statement.
    #[inline]
    fn other(&mut self, seen: Seen, at: usize) {
        if self.statement.is_empty() {
            self.statement.begin(Lead::None, at);
        }
        self.statement.push(seen);
    }

    #[inline]
    fn known(&mut self, known: Option<Known>) -> Seen {
        match known {
            Some(known) => self.statement.known(known),
            None => Seen::Word,
        }
    }

    /// An unquoted word; what it is in this statement.
    #[inline]
    fn name(&mut self, name: &[u8], known: Option<Known>) -> Seen {
        let seen = self.known(known);
        if self.folds && known.is_none() && may_fold_to_ascii(name) {
            return self.statement.uncertain_word();
        }
        seen
    }
}

/// Whether the word has a dotted capital I, which is folded to `i` where the database is in LATIN5
/// or WIN1254 and its locale Turkish; no other letter becomes ASCII.
fn may_fold_to_ascii(word: &[u8]) -> bool {
    !word.is_ascii() && (word.contains(&0xdd) || word.windows(2).any(|pair| pair == b"\xc4\xb0"))
}

impl Sink for Classifier {
    #[inline]
    fn word(&mut self, word: &[u8], span: Range<usize>) {
        if self.statement.is_empty() {
            self.statement.begin(Lead::of(word), span.start);
        } else {
            match self.statement.lead {
                Lead::Explain => self.statement.explained(word),
                Lead::None | Lead::Copy => self.statement.opened(word),
                _ => {}
            }
        }
        let known = Known::of(word);
        let seen = self.name(word, known);
        if self.calls == Calls::Functions {
            self.statement.names_a_word(word);
        }
        self.statement.push(seen);
    }

    #[inline]
    fn quoted(&mut self, content: &[u8], span: Range<usize>) {
        let known = Known::of_quoted(content);
        let seen = self.known(known);
        if self.calls == Calls::Functions {
            self.statement.names_quoted(content);
        }
        self.other(seen, span.start);
    }

    fn literal(&mut self, kind: Literal, span: Range<usize>) {
        if self.statement.reads_literals() {
            self.statement.end_literal(kind, self.reading.strings);
        }
        self.other(Seen::Literal, span.start);
    }

    #[inline]
    fn number(&mut self, span: Range<usize>) {
        self.other(Seen::Other, span.start);
    }

    #[inline]
    fn mark(&mut self, byte: u8, at: usize) {
        match byte {
            b';' if self.statement.ends_at_semicolon() => {
                self.end_statement(at);
                self.statement.clear();
            }
            b';' => self.other(Seen::Semicolon, at),
            b'.' => {
                self.statement.dot();
                self.other(Seen::Dot, at);
            }
            b'(' => {
                self.other(Seen::Other, at);
                self.statement.open_parenthesis();
                if self.calls == Calls::Functions {
                    self.statement.call();
                }
            }
            b')' => {
                self.statement.close_parenthesis();
                self.other(Seen::Close, at);
            }
            b']' => self.other(Seen::Close, at),
            b',' => self.other(Seen::Comma, at),
            _ => self.other(Seen::Other, at),
        }
    }

    #[inline]
    fn inside(&mut self, piece: &[u8]) {
        if self.statement.reads_literals() {
            self.statement.inside(piece);
        }
    }

    fn lost(&mut self) {
        self.unreadable = true;
    }
}
