//! PostgreSQL's lexical rules, for everybody in pgimbal who looks at a SQL text: which bytes belong
//! together as a word, a literal, a comment. A text may arrive in pieces, and characters are never
//! converted. It does no IO.

pub mod bytes;
pub mod encoding;
pub mod lex;
pub mod token;

pub use encoding::{Encoding, Mask, Reading, StandardStrings};
pub use lex::Lexer;
pub use token::{Literal, Name, Sink};
