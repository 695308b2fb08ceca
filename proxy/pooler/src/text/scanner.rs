//! From a text, whole or in pieces, to a verdict.

use super::encoding::Mask;
use super::lex::Lexer;
use super::watch::Watch;
use super::{Encoding, KEPT, Reading, Verdict};

/// Judges a text that is at hand as a whole (without the NUL that ends it on the wire).
pub fn judge(text: &[u8], reading: Reading) -> Verdict<'_> {
    let mut lexer = Lexer::new(reading.strings);
    let mut watch = Watch::default();
    if reading.encoding == Encoding::AsciiSafe {
        lexer.feed(text, &mut watch);
    } else {
        let mut mask = Mask::new(reading.encoding);
        feed_masked(&mut lexer, &mut watch, &mut mask, text);
    }
    lexer.finish(&mut watch);
    let whole = text.len() <= KEPT;
    watch.verdict(&text[..text.len().min(KEPT)], whole, reading)
}

/// Judges a text that arrives in pieces. Holds at most [`KEPT`] bytes of it.
#[derive(Debug, Clone)]
pub struct Scanner {
    reading: Reading,
    lexer: Lexer,
    watch: Watch,
    mask: Mask,
    kept: Vec<u8>,
    length: usize,
}

impl Scanner {
    /// A scanner before the first byte of a text.
    pub fn new(reading: Reading) -> Scanner {
        Scanner {
            reading,
            lexer: Lexer::new(reading.strings),
            watch: Watch::default(),
            mask: Mask::new(reading.encoding),
            kept: Vec::new(),
            length: 0,
        }
    }

    /// Reads the next piece (without the NUL that ends the text on the wire).
    pub fn feed(&mut self, piece: &[u8]) {
        let room = KEPT - self.kept.len();
        if self.length == self.kept.len() {
            self.kept.extend_from_slice(&piece[..piece.len().min(room)]);
        }
        self.length += piece.len();
        if self.mask.is_needed() {
            feed_masked(&mut self.lexer, &mut self.watch, &mut self.mask, piece);
        } else {
            self.lexer.feed(piece, &mut self.watch);
        }
    }

    /// The text has ended: what it would do.
    pub fn finish(&mut self) -> Verdict<'_> {
        self.lexer.finish(&mut self.watch);
        let whole = self.length == self.kept.len();
        self.watch.verdict(&self.kept, whole, self.reading)
    }
}

/// Feeds a text of an encoding in which ASCII bytes may be parts of longer characters.
fn feed_masked(lexer: &mut Lexer, watch: &mut Watch, mask: &mut Mask, text: &[u8]) {
    let mut masked = [0; 512];
    for piece in text.chunks(masked.len()) {
        let masked = &mut masked[..piece.len()];
        masked.copy_from_slice(piece);
        mask.apply(masked);
        lexer.feed(masked, watch);
    }
}
