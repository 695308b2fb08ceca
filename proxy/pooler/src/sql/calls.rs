//! Whether a name with a parenthesis behind it calls a function that is not one of `pg_catalog`.
//! What is not surely something else counts as a call.

use super::catalog;
use super::keyword::Lead;
use super::reserved;
use super::statement::{Flags, Seen, Statement};
use super::token::Name;

/// The last two names of a statement, and what they stand behind.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct LastNames {
    last: Last,
    /// The one before it, wherever it stood.
    before: Name,
    /// `last` is qualified by `pg_catalog`.
    in_catalog: bool,
}

/// A name and its place.
#[derive(Debug, Clone, Copy, Default)]
struct Last {
    name: Name,
    is_quoted: bool,
    place: CallContext,
}

/// What a name stands behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum CallContext {
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

impl Statement {
    pub(super) fn names_a_word(&mut self, word: &[u8]) {
        self.names(word, false);
    }

    pub(super) fn names_quoted(&mut self, content: &[u8]) {
        self.names(content, true);
    }

    /// A name, before it is pushed.
    fn names(&mut self, name: &[u8], is_quoted: bool) {
        if self.flags.has(Flags::JOINED) {
            self.check_query(Some(name));
        }
        let names = self.names.get_or_insert_default();
        let previous = names.last;
        let place = match self.previous {
            Seen::Dot if matches!(self.before, Seen::Word | Seen::Known(_)) => {
                CallContext::Qualified
            }
            Seen::Dot => CallContext::Field,
            Seen::Close => CallContext::Close,
            Seen::Word | Seen::Known(_) if previous.introduces() => CallContext::Introduced,
            Seen::Word | Seen::Known(_) => CallContext::Word,
            _ => CallContext::Other,
        };
        let qualified = place == CallContext::Qualified;
        names.in_catalog = qualified && previous.is_catalog();
        // A qualified name stands where its first part stands.
        let keeps = qualified && previous.place == CallContext::Introduced;
        names.before = previous.name;
        let place = if keeps { CallContext::Introduced } else { place };
        names.last = Last { name: Name::of(name), is_quoted, place };
        if place == CallContext::Field {
            self.calls_unknown();
        }
    }

    /// A parenthesis has been pushed.
    pub(super) fn call(&mut self) {
        let is_name = matches!(self.before, Seen::Word | Seen::Known(_) | Seen::Uncertain);
        if !is_name || (self.tokens == 2 && self.lead != Lead::Unknown) {
            return;
        }
        let names = self.names.get_or_insert_default();
        if names.is_join() {
            self.flags.note(Flags::JOINED);
        } else if !names.is_harmless() {
            self.calls_unknown();
        }
    }

    /// The token behind `JOIN (`, before it is pushed.
    pub(super) fn check_query(&mut self, word: Option<&[u8]>) {
        self.flags.clear(Flags::JOINED);
        let query = [Lead::Select, Lead::With, Lead::Values, Lead::Table];
        if !word.is_some_and(|word| query.contains(&Lead::of(word))) {
            self.calls_unknown();
        }
    }

    fn calls_unknown(&mut self) {
        self.flags.note(Flags::CALLS);
    }
}

impl Last {
    fn is_catalog(&self) -> bool {
        self.name.is(b"pg_catalog", self.is_quoted)
    }

    /// Whether a name behind this word is that of a relation or an alias, and what stands in
    /// parentheses behind it a list of columns.
    fn introduces(&self) -> bool {
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
    fn is_join(&self) -> bool {
        let bare =
            matches!(self.last.place, CallContext::Word | CallContext::Close | CallContext::Other);
        bare && !self.last.is_quoted && self.last.name.is(b"join", false)
    }

    /// Whether the last name is no function, or one of `pg_catalog`.
    fn is_harmless(&self) -> bool {
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
    fn is_keyword(&self, word: &[u8]) -> bool {
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
