//! Texts of several statements whose effect on the session is known all the same.

use std::ops::Range;

use super::encoding::Mask;
use super::lex::Lexer;
use super::token::{Literal, Sink};
use super::{Encoding, KEPT, Marks, Reading, Statement, Statements, judge};

/// The statements of a longer text, in order, if each of them by itself is one that is followed
/// (such as the `…; UNLISTEN *; RESET ALL` of a driver's pool) or leaves nothing behind.
///
/// Since none of them is about transactions, all take effect or none does: they may be applied once
/// the whole text has succeeded, and its taints dropped. `None` if that cannot be said.
pub fn sequence(text: &[u8], reading: Reading) -> Option<Vec<Statement<'_>>> {
    if text.len() > KEPT {
        return None;
    }
    let semicolons = semicolons(text, reading);
    let ends = semicolons.into_iter().chain([text.len()]);
    let mut start = 0;
    let mut statements = Vec::new();
    for end in ends {
        let verdict = judge(&text[start..end], reading);
        let in_transaction = Marks::SCHEMA.union(verdict.marks) != Marks::SCHEMA;
        if !verdict.taints.is_empty() || in_transaction {
            return None;
        }
        match verdict.statements {
            Statements::Zero => {}
            // This one stays done if a later statement fails.
            Statements::One(Statement::Deallocate { .. } | Statement::DeallocateAll) => {
                return None;
            }
            Statements::One(statement) => statements.push(statement),
            Statements::Many => return None,
        }
        start = end + 1;
    }
    Some(statements)
}

/// The first statement of a text of several; `None` where that cannot be told.
pub fn first_of(text: &[u8], reading: Reading) -> Option<Statement<'_>> {
    let semicolons = semicolons(text, reading);
    let mut start = 0;
    for end in semicolons.into_iter().chain([text.len()]) {
        match judge(&text[start..end], reading).statements {
            Statements::Zero => start = end + 1,
            Statements::One(statement) => return Some(statement),
            Statements::Many => return None,
        }
    }
    None
}

/// Where the statements of a text end.
fn semicolons(text: &[u8], reading: Reading) -> Vec<usize> {
    let mut lexer = Lexer::new(reading.strings);
    let mut split = Split::default();
    if reading.encoding == Encoding::AsciiSafe {
        lexer.feed(text, &mut split);
    } else {
        let mut masked = text.to_vec();
        Mask::new(reading.encoding).apply(&mut masked);
        lexer.feed(&masked, &mut split);
    }
    lexer.finish(&mut split);
    split.semicolons
}

/// Where the semicolons between statements are.
#[derive(Default)]
struct Split {
    semicolons: Vec<usize>,
    depth: usize,
}

impl Sink for Split {
    fn word(&mut self, _: &[u8], _: Range<usize>) {}

    fn quoted(&mut self, _: &[u8], _: Range<usize>) {}

    fn literal(&mut self, _: Literal, _: Range<usize>) {}

    fn number(&mut self, _: Range<usize>) {}

    fn mark(&mut self, byte: u8, at: usize) {
        match byte {
            b'(' => self.depth += 1,
            b')' => self.depth = self.depth.saturating_sub(1),
            b';' if self.depth == 0 => self.semicolons.push(at),
            _ => {}
        }
    }

    fn inside(&mut self, _: &[u8]) {}

    fn lost(&mut self) {}
}
