//! A text of many statements, such as a file, cut into its statements.

use std::ops::Range;

use pgimbal_lexer::{Lexer, Literal, Reading, Sink};

/// Returns where the statements of a text are, each from its first token to its last. A `;` ends
/// one unless it stands in quotes, comments or parentheses; a quote left open goes on to the end.
#[must_use]
pub fn split(text: &[u8], reading: Reading) -> Vec<Range<usize>> {
    let mut splitter = Splitter::default();
    let mut lexer = Lexer::new(reading.strings);
    lexer.feed(text, &mut splitter);
    let is_open = lexer.is_in_quotes();
    lexer.finish(&mut splitter);
    if is_open || splitter.is_lost {
        splitter.token(text.len()..text.len());
    }
    splitter.end();
    splitter.found
}

#[derive(Default)]
struct Splitter {
    found: Vec<Range<usize>>,
    /// The statement that has begun.
    open: Option<Range<usize>>,
    /// Open parentheses.
    depth: usize,
    is_lost: bool,
}

impl Splitter {
    fn token(&mut self, span: Range<usize>) {
        let start = self.open.as_ref().map_or(span.start, |open| open.start);
        self.open = Some(start..span.end);
    }

    fn end(&mut self) {
        self.found.extend(self.open.take());
        self.depth = 0;
    }
}

impl Sink for Splitter {
    fn word(&mut self, _: &[u8], span: Range<usize>) {
        self.token(span);
    }

    fn quoted(&mut self, _: &[u8], span: Range<usize>) {
        self.token(span);
    }

    fn literal(&mut self, _: Literal, span: Range<usize>) {
        self.token(span);
    }

    fn number(&mut self, span: Range<usize>) {
        self.token(span);
    }

    fn mark(&mut self, byte: u8, at: usize) {
        match byte {
            b';' if self.depth == 0 => return self.end(),
            b'(' => self.depth += 1,
            b')' => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
        self.token(at..at + 1);
    }

    fn inside(&mut self, _: &[u8]) {}

    fn lost(&mut self) {
        self.is_lost = true;
    }
}

#[cfg(test)]
mod tests {
    use pgimbal_lexer::Reading;

    use super::split;

    #[test]
    fn a_semicolon_ends_a_statement_only_outside_of_quotes_and_parentheses() {
        for (text, expected) in [
            ("", &[][..]),
            (" ;; -- a;\n ; ", &[]),
            ("SELECT 1; SELECT 2", &["SELECT 1", "SELECT 2"]),
            ("/* a; */ SELECT ';' -- b\n;\n\nSELECT $$;$$;", &["SELECT ';'", "SELECT $$;$$"]),
            (
                "CREATE RULE r AS ON a DO (SELECT 1; SELECT 2); b",
                &["CREATE RULE r AS ON a DO (SELECT 1; SELECT 2)", "b"],
            ),
            ("SELECT 1; SELECT 'a; b", &["SELECT 1", "SELECT 'a; b"]),
        ] {
            let found = split(text.as_bytes(), Reading::default());
            let found: Vec<_> = found.into_iter().map(|span| &text[span]).collect();
            assert_eq!(found, expected, "{text}");
        }
    }
}
