//! What a SQL text would do to the state of its session, judged from its bytes.
//!
//! It knows PostgreSQL's lexical rules and the forms of the few statements that matter; it never
//! decodes, and never parses SQL. What functions and procedures do inside themselves no text shows:
//! `nextval` before `lastval`, a `set_config` in a function's body.

mod body;
mod bytes;
mod encoding;
mod keyword;
mod lex;
mod parse;
mod reserved;
mod scanner;
mod sequence;
mod statement;
mod taint;
mod token;
mod value;
mod watch;

pub use encoding::{Encoding, Reading, StandardStrings};
pub use keyword::Lead;
pub use scanner::{Scanner, judge};
pub use sequence::{first_of, sequence};
pub use statement::{Chain, Characteristics, Discard, Hold, Scope, Statement, Statements, Verdict};
pub use taint::{Marks, Taint, Taints};

/// The longest text, in bytes, that is kept to see which single statement it is. A longer text can
/// still be any of those whose form shows in its beginning, but not a SET that is followed.
pub const KEPT: usize = 4096;

#[cfg(test)]
mod tests;
