//! What a SQL text would do to the state of its session, classified from its bytes.
//!
//! It knows PostgreSQL's lexical rules and the forms of the few statements that matter; it never
//! converts characters, and never parses SQL. What functions and procedures do inside themselves no
//! text shows: a `set_config` in a function's body, a trigger. A statement by its words only
//! *raises* kinds of state: it may have left them, and the server is asked.

mod access;
mod calls;
mod catalog;
mod class;
mod classified;
mod classifier;
mod commands;
mod config;
mod cursor;
mod draft;
mod flags;
mod inside;
mod keyword;
mod kinds;
mod known;
mod known_words;
mod leading;
mod marks;
mod names;
mod parse;
mod readings;
mod reserved;
mod scanner;
mod search;
mod statement;
mod value;
mod weight;

use pgimbal_lexer::{bytes, encoding, lex, token};

pub use access::{Access, AccessKind};
pub use class::StatementClass;
pub use classified::{
    Assignment, Bytes, Chain, Classified, Followed, Form, Operand, Scope, ScopeOperand, SetBy,
    Step, Steps,
};
pub use commands::{CommandWords, UnclosedQuote, commands};
pub use kinds::Kinds;
pub use leading::{set_by_comment, without_comments};
pub use marks::Marks;
pub use names::{cut_name, own_names, words};
pub use parse::{BlockAccess, BlockIsolation, BlockMode, block_mode};
pub use pgimbal_lexer::{Encoding, Reading, StandardStrings};
pub use readings::{Calls, Readings};
pub use scanner::{Scanner, classify};
pub use search::{has_word, prepared_query};
pub(crate) use value::identifiers;

/// How many of a text's first bytes (4096) are kept to see the exact forms of its statements, also
/// of a text that is at hand as a whole. Of a statement that begins or goes on beyond them only its
/// words count: a SET is then [`Form::Other`] with the kinds of state that its words raise.
pub const KEPT: usize = 4096;

#[cfg(test)]
mod tests;
