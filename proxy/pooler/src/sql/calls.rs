//! Whether a name with a parenthesis behind it calls a function that is not one of `pg_catalog`.
//! What is not surely something else counts as a call.

use super::token::Name;
use super::{catalog, reserved};

/// The last two names of a statement, and what they stand behind.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct LastNames {
    pub(super) last: Last,
    /// The one before it, wherever it stood.
    pub(super) before: Name,
    /// `last` is qualified by `pg_catalog`.
    pub(super) in_catalog: bool,
}

/// A name and its place.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Last {
    pub(super) name: Name,
    pub(super) is_quoted: bool,
    pub(super) place: CallContext,
}

/// What a name stands behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum CallContext {
    #[default]
    Other,
    /// `)` or `]`.
    Close,
    /// A dot behind a name.
    Qualified,
    /// A dot behind something else: `(row).name`.
    Field,
    /// A word which a name of a relation or an alias follows: INTO, TABLE, AS, …
    Introduced,
    /// Another word.
    Word,
}

impl Last {
    pub(super) fn is_catalog(&self) -> bool {
        self.name.is(b"pg_catalog", self.is_quoted)
    }

    /// Whether a name behind this word is that of a relation or an alias, and what stands in
    /// parentheses behind it a list of columns.
    pub(super) fn introduces(&self) -> bool {
        const WORDS: [&[u8]; 10] = [
            b"into",
            b"table",
            b"exists",
            b"references",
            b"as",
            b"with",
            b"recursive",
            b"ordinality",
            b"copy",
            b"view",
        ];
        !self.is_quoted && WORDS.iter().any(|word| self.name.is(word, false))
    }
}

impl LastNames {
    pub(super) fn is_join(&self) -> bool {
        let bare =
            matches!(self.last.place, CallContext::Word | CallContext::Close | CallContext::Other);
        bare && !self.last.is_quoted && self.last.name.is(b"join", false)
    }

    /// Whether the last name is no function, or one of `pg_catalog`.
    pub(super) fn is_harmless(&self) -> bool {
        let Last { name, is_quoted, place } = &self.last;
        match place {
            CallContext::Introduced => true,
            CallContext::Qualified => self.in_catalog,
            CallContext::Field => false,
            _ if name.is_cut() => false,
            _ if *is_quoted => catalog::has_function(name.bytes()),
            _ => {
                let lower = name.lower();
                reserved::takes_no_call(lower.bytes())
                    || catalog::has_function(lower.bytes())
                    || self.is_keyword(lower.bytes())
            }
        }
    }

    /// Whether a word that might name a function is a keyword here.
    pub(super) fn is_keyword(&self, word: &[u8]) -> bool {
        let before = self.before.lower();
        let behind = |words: &[&[u8]]| {
            matches!(self.last.place, CallContext::Word | CallContext::Introduced)
                && words.contains(&before.bytes())
        };
        match word {
            b"over" | b"filter" | b"include" => self.last.place == CallContext::Close,
            b"by" => behind(&[b"group", b"order", b"partition"]),
            b"rollup" | b"cube" => behind(&[b"by"]),
            b"sets" => behind(&[b"grouping"]),
            b"key" => behind(&[b"primary", b"foreign"]),
            b"conflict" => behind(&[b"on"]),
            b"varying" => behind(&[b"character", b"char", b"bit", b"nchar"]),
            b"set" => {
                self.last.place == CallContext::Close
                    || (self.last.place == CallContext::Word
                        && !reserved::is_quoted(before.bytes()))
            }
            _ => false,
        }
    }
}
