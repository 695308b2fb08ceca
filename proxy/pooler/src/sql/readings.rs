//! What is known of how a text will be read, and which function calls in it count.

use super::Reading;

/// What is known, when a text arrives, of how it will be read when the server comes to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readings {
    /// By this reading only: the session's settings are known when the text is run.
    One(Reading),
    /// By any: something that may change the settings, and that the server has not yet answered,
    /// stands in front of the text. A text that is not the same under every reading is unreadable,
    /// and so is every text with a byte from 0x80.
    Any,
}

/// Which function calls in a text count as ones that may leave session state (settings, temporary
/// objects, locks) on the server connection. The pool's option `verify` chooses: `calls` means
/// [`Self::Functions`], `text` and `always` mean [`Self::Text`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Calls {
    /// Those of functions that are known to leave something in their session, by their names.
    #[default]
    Text,
    /// Besides them, every call of a function that is not one of `pg_catalog` in PostgreSQL 15, by
    /// its name: it may leave [`Kinds::ANYTHING`](super::Kinds::ANYTHING). Not seen is what no
    /// parentheses follow: `row.function`, operators, casts, triggers, views, policies.
    Functions,
}
