//! Statements about texts.
