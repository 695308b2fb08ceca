//! A text of commands that are pgimbal's own, taken apart by SQL's lexical rules.

use std::ops::Range;

use super::StandardStrings;
use super::cursor::unquote;
use super::lex::Lexer;
use super::token::{Literal, Sink};

/// One command of a text, as its words; commands are those of pgimbal's console.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandWords<'t> {
    /// The command as it is written, from its first to its last word: without the semicolon.
    pub text: &'t str,
    /// The command's words as they are written: what stands together, between white space, comments
    /// and `=`. Quoted identifiers have lost their quotes; literals keep theirs. The case is that
    /// of the text. At least one word; `""` is a word without characters.
    pub words: Vec<String>,
}

/// The error for a text with a quote (`'`, `"` or `$$`) that does not end: nobody knows what its
/// commands are, so none of them is run. The console answers it with SQLSTATE 42601.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnclosedQuote;

/// Returns the commands in a text that was sent to pgimbal's console, in their order. Semicolons
/// part them; empty ones are left out, and a text without any gives an empty list. Quotes and
/// comments are read as SQL's, with `standard_conforming_strings` on. Whether such commands exist
/// is not checked.
///
/// # Errors
/// [`UnclosedQuote`] if a quote does not end. A comment that does not end is one all the same.
pub fn commands(text: &str) -> Result<Vec<CommandWords<'_>>, UnclosedQuote> {
    let mut lexer = Lexer::new(StandardStrings::On);
    let mut split = Split { text, commands: Vec::new(), begun: None, last: 0..0 };
    lexer.feed(text.as_bytes(), &mut split);
    if lexer.is_in_quotes() {
        return Err(UnclosedQuote);
    }
    lexer.finish(&mut split);
    split.end();
    Ok(split.commands)
}

struct Split<'t> {
    text: &'t str,
    commands: Vec<CommandWords<'t>>,
    /// Where the command under way begins, and its words.
    begun: Option<(usize, Vec<String>)>,
    /// The last token of it; empty where the next begins a word.
    last: Range<usize>,
}

impl Split<'_> {
    fn push(&mut self, token: &str, span: Range<usize>) {
        let (_, words) = self.begun.get_or_insert_with(|| (span.start, Vec::new()));
        match words.last_mut() {
            Some(word) if self.last.end == span.start && !self.last.is_empty() => {
                word.push_str(token);
            }
            _ => words.push(token.to_owned()),
        }
        self.last = span;
    }

    fn push_span(&mut self, span: Range<usize>) {
        let token = self.text.get(span.clone()).unwrap_or_default();
        self.push(token, span);
    }

    fn end(&mut self) {
        if let Some((start, words)) = self.begun.take() {
            let text = self.text.get(start..self.last.end).unwrap_or_default();
            self.commands.push(CommandWords { text, words });
        }
        self.last = 0..0;
    }
}

impl Sink for Split<'_> {
    fn word(&mut self, _: &[u8], span: Range<usize>) {
        self.push_span(span);
    }

    fn quoted(&mut self, _: &[u8], span: Range<usize>) {
        let inside = self.text.as_bytes().get(span.start + 1..span.end - 1).unwrap_or_default();
        let name = String::from_utf8_lossy(&unquote(inside, b'"')).into_owned();
        self.push(&name, span);
    }

    fn literal(&mut self, _: Literal, span: Range<usize>) {
        self.push_span(span);
    }

    fn number(&mut self, span: Range<usize>) {
        self.push_span(span);
    }

    fn mark(&mut self, byte: u8, at: usize) {
        match byte {
            b';' => self.end(),
            // The command goes on, with another word.
            b'=' if self.begun.is_some() => self.last = at + 1..at + 1,
            _ => self.push_span(at..at + 1),
        }
    }

    fn inside(&mut self, _: &[u8]) {}

    fn lost(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<Vec<String>> {
        commands(text).unwrap().into_iter().map(|command| command.words).collect()
    }

    #[test]
    fn commands_are_parted_as_sql_is() {
        for (text, expected) in [
            ("SHOW pools", &[&["SHOW", "pools"][..]][..]),
            ("a;; b -- c\r; d /* e /* f; */ g */ h;", &[&["a"], &["b"], &["d", "h"]]),
            ("", &[]),
            ("-- a", &[]),
            (" ;/* never ends", &[]),
            ("HOLD my-db.é", &[&["HOLD", "my-db.é"]]),
            ("KILL \"a; -- b\" ", &[&["KILL", "a; -- b"]]),
            ("KILL \"a\"\"b\"/**/c", &[&["KILL", "a\"b", "c"]]),
            ("RESUME \"\"", &[&["RESUME", ""]]),
            ("set a='x;y' ; set b = 1.5", &[&["set", "a", "'x;y'"], &["set", "b", "1.5"]]),
            ("select version()", &[&["select", "version()"]]),
        ] {
            assert_eq!(words(text), expected, "{text}");
        }
        assert_eq!(commands(" a  b ;c").unwrap()[0].text, "a  b");
        for text in ["KILL \"a", "KILL 'a", "KILL $$a", "KILL e'a\\'"] {
            assert_eq!(commands(text), Err(UnclosedQuote), "{text}");
        }
    }
}
