//! From a text, whole or in pieces, to what it is.

use super::KEPT;
use super::access::{Access, AccessKind, names_escape};
use super::classified::{Chain, Classified, Form, Step, Steps};
use super::classifier::Classifier;
use super::encoding::{Encoding, Mask, Reading, StandardStrings};
use super::kinds::Kinds;
use super::lex::Lexer;
use super::marks::Marks;
use super::readings::{Calls, Readings};

/// Classifies a text that is at hand as a whole (without the NUL that ends it on the wire): that of
/// a Query or Parse, before it is sent. A text that cannot be read, or means different things under
/// the possible readings, is [`Steps::Unreadable`]; there are no errors. An empty text is
/// [`Steps::None`]. Under [`Readings::Any`] every text with a byte from 0x80 is unreadable, and one
/// with a backslash is read twice.
#[must_use]
pub fn classify(text: &[u8], readings: Readings, calls: Calls) -> Classified {
    // Every transaction begins and ends with one of these.
    if text.len() <= 8
        && let Some(frequent) = frequent(text)
    {
        return frequent;
    }
    match readings {
        Readings::One(reading) => classify_one(text, reading, calls),
        // One of the encodings that are possible cannot be read.
        Readings::Any if !text.is_ascii() => Classified::UNREADABLE,
        Readings::Any if !text.contains(&b'\\') => classify_one(text, STANDARD, calls),
        Readings::Any => {
            either(classify_one(text, STANDARD, calls), classify_one(text, ESCAPING, calls))
        }
    }
}

const STANDARD: Reading = Reading { strings: StandardStrings::On, encoding: Encoding::AsciiSafe };
const ESCAPING: Reading = Reading { strings: StandardStrings::Off, encoding: Encoding::AsciiSafe };

fn classify_one(text: &[u8], reading: Reading, calls: Calls) -> Classified {
    let mut pass = Pass::new(reading, calls);
    pass.feed(text);
    let mut found = pass.finish(&text[..text.len().min(KEPT)], text.len());
    if found.steps != Steps::Unreadable {
        found.access.escapes = names_escape(text);
    }
    found
}

/// What the whole text is, if it is one of the shortest that there are.
fn frequent(text: &[u8]) -> Option<Classified> {
    let is = |word: &[u8]| text.eq_ignore_ascii_case(word);
    let (form, mark) = if is(b"begin") {
        (Form::Begin, Marks::BEGINS)
    } else if is(b"commit") {
        (Form::Commit(Chain::No), Marks::MAY_COMMIT)
    } else if is(b"rollback") {
        (Form::Rollback(Chain::No), Marks::MAY_COMMIT)
    } else {
        return None;
    };
    let steps = Steps::One(Step { form, raises: Kinds::NONE, local: false });
    let access = Access { kind: AccessKind::Unknown, escapes: false };
    Some(Classified { steps, marks: mark, access, leaves_nothing: false, names_statements: false })
}

/// What holds if a text may be read either way.
fn either(one: Classified, other: Classified) -> Classified {
    if one == other {
        return one;
    }
    let mut marks = one.marks;
    marks.insert(other.marks);
    let names_statements = one.names_statements || other.names_statements;
    let escapes = one.access.escapes || other.access.escapes;
    let kind = match one.access.kind == other.access.kind {
        true => one.access.kind,
        false => AccessKind::Unknown,
    };
    let access = Access { kind, escapes };
    let steps = Steps::Unreadable;
    Classified { steps, marks, access, leaves_nothing: false, names_statements }
}

/// Classifies a text that arrives in pieces: that of a Query or Parse message too long to be held.
/// It keeps at most [`KEPT`] bytes of the text. [`Self::feed`] takes the pieces, then
/// [`Self::finish`] gives the classification: by then the server has the text, so that nothing of
/// it can be refused any more.
#[derive(Debug, Clone)]
pub struct Scanner {
    pass: Pass,
    /// The pass with the other `standard_conforming_strings`, where both are possible.
    other: Option<Box<Pass>>,
    kept: Vec<u8>,
    length: usize,
    is_ascii: bool,
}

impl Scanner {
    /// Makes a scanner before the first byte of a text, for these readings; `calls` says which
    /// function calls count. Under [`Readings::Any`] each piece is read twice, with
    /// `standard_conforming_strings` on and off.
    #[must_use]
    pub fn new(readings: Readings, calls: Calls) -> Scanner {
        let (pass, other) = match readings {
            Readings::One(reading) => (Pass::new(reading, calls), None),
            Readings::Any => {
                (Pass::new(STANDARD, calls), Some(Box::new(Pass::new(ESCAPING, calls))))
            }
        };
        Scanner { pass, other, kept: Vec::new(), length: 0, is_ascii: true }
    }

    /// Reads the next piece of the text (without the NUL that ends it on the wire); of any length,
    /// and cut anywhere.
    pub fn feed(&mut self, piece: &[u8]) {
        let room = KEPT - self.kept.len();
        self.kept.extend_from_slice(&piece[..piece.len().min(room)]);
        self.length += piece.len();
        self.is_ascii = self.is_ascii && piece.is_ascii();
        self.pass.feed(piece);
        if let Some(other) = &mut self.other {
            other.feed(piece);
        }
    }

    /// How many bytes of the text it holds.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.kept.len()
    }

    /// Ends the text, and returns its classification, as [`classify`] does. Called once, behind the
    /// last piece; the scanner is of no use afterwards. Because the text is not at hand as a whole,
    /// [`Access::escapes`] is always true.
    pub fn finish(&mut self) -> Classified {
        let found = self.pass.finish(&self.kept, self.length);
        match &mut self.other {
            None => found,
            Some(_) if !self.is_ascii => Classified::UNREADABLE,
            Some(other) => either(found, other.finish(&self.kept, self.length)),
        }
    }
}

/// A text under one reading.
#[derive(Debug, Clone)]
struct Pass {
    lexer: Lexer,
    classifier: Classifier,
    mask: Option<Mask>,
}

impl Pass {
    fn new(reading: Reading, calls: Calls) -> Pass {
        Pass {
            lexer: Lexer::new(reading.strings),
            classifier: Classifier::new(reading, calls),
            mask: reading.encoding.has_pairs().then(|| Mask::new(reading.encoding)),
        }
    }

    #[inline]
    fn feed(&mut self, piece: &[u8]) {
        if !piece.is_ascii() {
            self.classifier.has_high_bytes();
        }
        let Some(mask) = &mut self.mask else {
            return self.lexer.feed(piece, &mut self.classifier);
        };
        let mut masked = [0; 512];
        for piece in piece.chunks(masked.len()) {
            let masked = &mut masked[..piece.len()];
            masked.copy_from_slice(piece);
            mask.apply(masked);
            self.lexer.feed(masked, &mut self.classifier);
        }
    }

    #[inline]
    fn finish(&mut self, kept: &[u8], length: usize) -> Classified {
        self.lexer.finish(&mut self.classifier);
        self.classifier.finish(kept, length)
    }
}
