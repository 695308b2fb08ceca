//! Names of prepared statements in texts.

use std::borrow::Cow;
use std::ops::Range;

use super::bytes::continues_word;
use super::cursor::unquote;
use super::encoding::{Mask, Reading};
use super::lex::Lexer;
use super::token::{Literal, Sink};

/// PostgreSQL's `NAMEDATALEN` without the NUL.
const LONGEST: usize = 63;

/// Cuts a name (folded to lower case, without quotes) as PostgreSQL does (`NAMEDATALEN`): to 63
/// bytes of the database's encoding, at a character. `None` if the name is not ASCII, unless client
/// and database both have UTF8 (`utf8`): where it is cut, and what it is folded to, depends on an
/// encoding and a locale that are not known. Also `None` if it is no valid UTF-8.
#[must_use]
pub fn cut_name(name: &[u8], utf8: bool) -> Option<&[u8]> {
    if name.is_ascii() {
        return Some(&name[..name.len().min(LONGEST)]);
    }
    if !utf8 {
        return None;
    }
    let name = std::str::from_utf8(name).ok()?;
    let cut = (0..=LONGEST.min(name.len())).rev().find(|&at| name.is_char_boundary(at))?;
    Some(&name.as_bytes()[..cut])
}

/// Calls `visit` with every word of a text that could be the name of a prepared statement,
/// wherever it stands: also in literals, dollar quotes, comments, and in quotes inside them. Words
/// come in lower case and, where that differs, as they are; the content of double quotes as it is.
/// All are cut at 63 bytes, at a character if the name is UTF-8. They come in the order of the
/// text, the same word as often as it stands there; what is in double quotes comes also word by
/// word.
pub fn words(text: &[u8], mut visit: impl FnMut(&[u8])) {
    let mut at = 0;
    while at < text.len() {
        let byte = text[at];
        if byte == b'"' {
            quoted(&text[at + 1..], &mut visit);
        }
        if !continues_word(byte) {
            at += 1;
            continue;
        }
        let rest = &text[at..];
        let length = rest.iter().position(|&b| !continues_word(b)).unwrap_or(rest.len());
        run(&rest[..length], &mut visit);
        at += length;
    }
}

/// A run of letters, digits and `$`, of which each `$` may be a part of a word or of a quote's tag.
fn run(run: &[u8], visit: &mut impl FnMut(&[u8])) {
    let mut start = 0;
    while start < run.len() {
        if run[start] == b'$' || run[start].is_ascii_digit() {
            start += 1;
            continue;
        }
        let word = &run[start..];
        let ends = word.iter().enumerate().filter(|(_, byte)| **byte == b'$').map(|(end, _)| end);
        for end in ends.take_while(|&end| end <= LONGEST).chain([word.len()]) {
            visit_word(&word[..end], visit);
        }
        // The next may begin behind a `$`.
        match word.iter().position(|&byte| byte == b'$') {
            Some(dollar) => start += dollar + 1,
            None => return,
        }
    }
}

fn visit_word(word: &[u8], visit: &mut impl FnMut(&[u8])) {
    let word = cut(word);
    if word.iter().any(u8::is_ascii_uppercase) {
        visit(&word.to_ascii_lowercase());
    }
    visit(word);
}

/// What stands behind a double quote that may open a name. Where quotes pair differently inside
/// a literal, some of what is visited is no name.
fn quoted(text: &[u8], visit: &mut impl FnMut(&[u8])) {
    // A name of 63 quotes has 126 of them.
    let near = &text[..text.len().min(4 * LONGEST)];
    let mut end = 0;
    while end < near.len() {
        if near[end] == b'"' {
            if near.get(end + 1) != Some(&b'"') {
                break;
            }
            end += 1;
        }
        end += 1;
    }
    visit(cut(&unquote(&near[..end.min(near.len())], b'"')));
}

fn cut(word: &[u8]) -> &[u8] {
    cut_name(word, true).unwrap_or(&word[..word.len().min(LONGEST)])
}

/// Returns where the names of prepared statements stand that begin with `prefix`, as byte ranges of
/// the text, quotes included: identifiers right behind EXECUTE, PREPARE or DEALLOCATE, outside
/// literals and comments. In the order of the text, each place once; empty if there is none. A name
/// without quotes is compared in lower case, one in quotes as it is. With pgimbal's own prefix it
/// finds the names that are rewritten, so that a client cannot reach pgimbal's statements.
#[must_use]
pub fn own_names(text: &[u8], reading: Reading, prefix: &[u8]) -> Vec<Range<usize>> {
    let mut lexer = Lexer::new(reading.strings);
    let mut find = Find { prefix, follows: false, found: Vec::new() };
    if reading.encoding.has_pairs() {
        let mut masked = text.to_vec();
        Mask::new(reading.encoding).apply(&mut masked);
        lexer.feed(&masked, &mut find);
    } else {
        lexer.feed(text, &mut find);
    }
    lexer.finish(&mut find);
    find.found
}

struct Find<'p> {
    prefix: &'p [u8],
    /// The last token was one of the keywords.
    follows: bool,
    found: Vec<Range<usize>>,
}

impl Find<'_> {
    fn name(&mut self, name: &[u8], span: Range<usize>) {
        if self.follows && name.starts_with(self.prefix) {
            self.found.push(span);
        }
        self.follows = false;
    }
}

impl Sink for Find<'_> {
    fn word(&mut self, word: &[u8], span: Range<usize>) {
        let lower = word.to_ascii_lowercase();
        self.name(&lower, span);
        self.follows = matches!(&lower[..], b"execute" | b"prepare" | b"deallocate");
    }

    fn quoted(&mut self, content: &[u8], span: Range<usize>) {
        let content: Cow<'_, [u8]> = unquote(content, b'"');
        self.name(&content, span);
    }

    fn literal(&mut self, _: Literal, _: Range<usize>) {
        self.follows = false;
    }

    fn number(&mut self, _: Range<usize>) {
        self.follows = false;
    }

    fn mark(&mut self, _: u8, _: usize) {
        self.follows = false;
    }

    fn inside(&mut self, _: &[u8]) {}

    fn lost(&mut self) {}
}
