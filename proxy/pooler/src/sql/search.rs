//! Questions about a text that need no classification.

use std::ops::Range;

use super::encoding::Reading;
use super::lex::Lexer;
use super::names::words;
use super::token::{Literal, Sink};

/// Whether `word`, in lower case, occurs as a whole word in a text, in any case and wherever it
/// stands: also in literals, quotes and comments. `word` has no more than 63 bytes, where names are
/// cut; a longer one is never found. `false` for an empty text. A word that is found is no proof
/// that the text uses it: what it names is then looked at, or asked about, to be safe.
#[must_use]
pub fn has_word(text: &[u8], word: &[u8]) -> bool {
    let mut found = false;
    words(text, |other| found |= other == word);
    found
}

/// Returns the statement behind AS of a text that is one SQL PREPARE, with the white space in front
/// of it, up to the text's end; `None` if there is no AS outside parentheses, quotes and comments.
/// The first such AS counts; that the text is a PREPARE is not checked. Of `reading` only
/// `standard_conforming_strings` counts. It is classified for what EXECUTE of it may leave.
#[must_use]
pub fn prepared_query(text: &[u8], reading: Reading) -> Option<&[u8]> {
    let mut lexer = Lexer::new(reading.strings);
    let mut find = FindAs { depth: 0, end: None };
    lexer.feed(text, &mut find);
    lexer.finish(&mut find);
    text.get(find.end?..)
}

/// Looks for the first AS outside parentheses.
struct FindAs {
    depth: u32,
    end: Option<usize>,
}

impl Sink for FindAs {
    fn word(&mut self, word: &[u8], span: Range<usize>) {
        if self.depth == 0 && word.eq_ignore_ascii_case(b"as") {
            self.end.get_or_insert(span.end);
        }
    }

    fn quoted(&mut self, _: &[u8], _: Range<usize>) {}

    fn literal(&mut self, _: Literal, _: Range<usize>) {}

    fn number(&mut self, _: Range<usize>) {}

    fn mark(&mut self, byte: u8, _: usize) {
        match byte {
            b'(' => self.depth += 1,
            b')' => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
    }

    fn inside(&mut self, _: &[u8]) {}

    fn lost(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prepared_statement_stands_behind_the_first_as() {
        let reading = Reading::default();
        let query = |text| prepared_query(text, reading);
        assert_eq!(query(b"prepare p as select 1 as a"), Some(&b" select 1 as a"[..]));
        assert_eq!(query(b"PREPARE \"as\" (int, text) AS select $1"), Some(&b" select $1"[..]));
        assert_eq!(query(b"prepare p"), None);
    }

    #[test]
    fn a_word_is_found_wherever_it_stands_but_only_whole() {
        assert!(has_word(b"create EVENT trigger x", b"event"));
        assert!(has_word(b"\"$user\", \"pg_temp\"", b"pg_temp"));
        assert!(!has_word(b"select events", b"event"));
    }
}
