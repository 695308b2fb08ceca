//! The statement under way: what its tokens have said so far.

use super::access::{AccessKind, Direction};
use super::calls::{CallContext, Last, LastNames};
use super::classified::Step;
use super::config::ConfigName;
use super::draft::Draft;
use super::encoding::StandardStrings;
use super::flags::{ANY_SETTING, Flags};
use super::inside::{Inside, Read};
use super::keyword::Lead;
use super::kinds::Kinds;
use super::known::Known;
use super::marks::Marks;
use super::token::{Literal, Name};

/// What has been seen of a statement.
#[derive(Debug, Clone, Default)]
pub(super) struct Statement {
    pub(super) lead: Lead,
    /// What EXPLAIN explains, or what stands in the parentheses that begin the statement, or the
    /// source of COPY.
    pub(super) explained: Option<Lead>,
    /// That of a COPY, once it is told.
    direction: Option<Direction>,
    start: usize,
    /// Saturates: only the first few are counted.
    pub(super) tokens: u8,
    pub(super) depth: u32,
    pub(super) previous: Seen,
    pub(super) before: Seen,
    pub(super) raises: Kinds,
    pub(super) local: bool,
    pub(super) marks: Marks,
    pub(super) names_statements: bool,
    pub(super) flags: Flags,
    /// The depth inside the `set_config(` that is open.
    pub(super) config_depth: u32,
    pub(super) config_name: ConfigName,
    literal: Option<Box<Inside>>,
    /// Only where all calls count.
    pub(super) names: Option<Box<LastNames>>,
}

/// A token, as far as a later one may depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Seen {
    #[default]
    Other,
    Comma,
    Dot,
    /// `)` or `]`.
    Close,
    /// A semicolon that does not end the statement.
    Semicolon,
    Literal,
    Word,
    /// A word that the server may fold to any.
    Uncertain,
    Known(Known),
}

impl Statement {
    /// Before the first token of the next.
    #[inline]
    pub(super) fn clear(&mut self) {
        let names = self.names.take();
        *self = Statement { names, ..Statement::default() };
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.tokens == 0
    }

    #[inline]
    pub(super) fn begin(&mut self, lead: Lead, start: usize) {
        self.lead = lead;
        self.start = start;
        match lead {
            Lead::Select | Lead::None => {}
            Lead::Begin | Lead::Start => self.marks.insert(Marks::BEGINS),
            Lead::Commit | Lead::End | Lead::Rollback | Lead::Abort => {
                self.marks.insert(Marks::MAY_COMMIT);
            }
            Lead::Execute | Lead::Prepare | Lead::Deallocate => self.names_statements = true,
            lead if lead.changes_schema() => {
                self.marks.insert(Marks::SCHEMA);
                if lead.commits_on_its_way() {
                    self.marks.insert(Marks::COMMITS_ON_ITS_WAY);
                }
            }
            _ => {}
        }
    }

    #[inline]
    pub(super) fn push(&mut self, seen: Seen) {
        if self.flags.meets(Flags::ATTENTIVE) {
            self.attend(seen);
        }
        self.before = self.previous;
        self.previous = seen;
        self.tokens = self.tokens.saturating_add(1);
    }

    /// A token that an earlier one waits for.
    #[cold]
    fn attend(&mut self, seen: Seen) {
        if self.flags.has(Flags::CONFIG) {
            self.argument(seen);
        }
        if self.tokens == 2 && self.flags.has(Flags::PERHAPS_LOCAL) {
            self.third_of_set(seen);
        }
        if self.flags.has(Flags::JOINED) {
            self.check_query(None);
        }
        if self.flags.has(Flags::LANGUAGE) && seen != Seen::Known(Known::Language) {
            self.language(seen == Seen::Known(Known::Plpgsql));
        }
    }

    /// The third token of SET LOCAL, TRANSACTION or CONSTRAINTS: a name says that it was no name.
    fn third_of_set(&mut self, seen: Seen) {
        let names = matches!(seen, Seen::Word | Seen::Uncertain | Seen::Known(_));
        if names && seen != Seen::Known(Known::To) {
            self.flags.note(Flags::SET_LOCAL);
        }
    }

    #[inline]
    pub(super) fn ends_at_semicolon(&self) -> bool {
        self.depth == 0 && !self.flags.has(Flags::BODY)
    }

    /// The first word behind EXPLAIN and its options.
    pub(super) fn explained(&mut self, word: &[u8]) {
        if self.explained.is_some() || self.depth != 0 {
            return;
        }
        match Lead::of(word) {
            // ANALYZE and VERBOSE.
            Lead::Schema | Lead::Vacuum | Lead::Unknown => return,
            Lead::Execute => self.runs_a_statement(),
            Lead::Create => {
                self.marks.insert(Marks::SCHEMA);
                self.flags.note(Flags::NOTED);
            }
            _ => {}
        }
        self.explained = Some(Lead::of(word));
    }

    /// A word behind parentheses that begin the statement, or in a COPY.
    pub(super) fn opened(&mut self, word: &[u8]) {
        let copies = self.lead == Lead::Copy;
        let tokens = u32::from(self.tokens) - u32::from(copies);
        if self.depth > 0 {
            if tokens == self.depth {
                self.explained = Some(Lead::of(word));
            }
        } else if copies && self.direction.is_none() {
            self.direction = match () {
                () if word.eq_ignore_ascii_case(b"to") => Some(Direction::Out),
                () if word.eq_ignore_ascii_case(b"from") => Some(Direction::In),
                () => None,
            };
        }
    }

    /// What the statement, which has ended, does with rows.
    #[inline]
    pub(super) fn access(&self) -> AccessKind {
        match (self.lead, self.explained) {
            (Lead::None, Some(lead)) => AccessKind::of(lead),
            (Lead::Copy, Some(lead)) => match AccessKind::of(lead) {
                AccessKind::Reads | AccessKind::BeginsAsRead => AccessKind::CopiesOut,
                other => other,
            },
            (Lead::Copy, None) => match self.direction {
                Some(Direction::Out) => AccessKind::CopiesOut,
                Some(Direction::In) => AccessKind::Writes,
                None => AccessKind::Unknown,
            },
            (lead, _) => AccessKind::of(lead),
        }
    }

    /// EXECUTE behind EXPLAIN or AS.
    pub(super) fn runs_a_statement(&mut self) {
        self.names_statements = true;
        self.does_anything();
    }

    pub(super) fn does_anything(&mut self) {
        self.raises.insert(Step::UNREADABLE.raises);
        self.local = true;
    }

    pub(super) fn creates(&self) -> bool {
        self.lead == Lead::Create || self.explained == Some(Lead::Create)
    }

    /// The language of a DO block.
    pub(super) fn language(&mut self, is_plpgsql: bool) {
        self.flags.clear(Flags::LANGUAGE);
        if !is_plpgsql {
            self.raises.insert(Kinds::LOADED);
        }
    }

    pub(super) fn dot(&mut self) {
        if matches!(self.lead, Lead::Set | Lead::Reset) && self.tokens <= 4 {
            self.flags.note(Flags::DOTTED);
        }
        let temporary = self.previous == Seen::Known(Known::PgTemp);
        if temporary && (self.creates() || self.flags.has(Flags::INTO)) {
            self.raises.insert(Kinds::TEMPORARY);
        }
    }

    /// After the parenthesis itself was pushed.
    pub(super) fn open_parenthesis(&mut self) {
        self.depth = self.depth.saturating_add(1);
        match self.before {
            Seen::Known(Known::SetConfig) => self.open_config(),
            Seen::Known(known) => self.calls(known),
            Seen::Uncertain => self.does_anything(),
            _ => {}
        }
    }

    /// The parenthesis closes before it is pushed.
    pub(super) fn close_parenthesis(&mut self) {
        if self.flags.has(Flags::CONFIG) && self.depth == self.config_depth {
            self.end_config();
        }
        self.depth = self.depth.saturating_sub(1);
    }

    /// Whether the inside of literals matters: a name of `set_config`, or the code of DO.
    #[inline]
    pub(super) fn reads_literals(&self) -> bool {
        self.flags.has(Flags::CONFIG) || self.lead == Lead::Do || self.is_gid()
    }

    /// Whether a literal would be that of PREPARE TRANSACTION.
    fn is_gid(&self) -> bool {
        self.lead == Lead::Prepare && self.tokens == 2
    }

    pub(super) fn inside(&mut self, piece: &[u8]) {
        self.literal.get_or_insert_default().read(piece);
    }

    pub(super) fn end_literal(&mut self, kind: Literal, strings: StandardStrings) {
        let literal = self.literal.get_or_insert_default().end();
        let is_exact = match kind {
            Literal::Dollar => true,
            Literal::Plain if strings == StandardStrings::On => true,
            Literal::Plain | Literal::Escape => !literal.has_backslash,
            Literal::Bits | Literal::Unicode => false,
        };
        match self.lead {
            Lead::Do => {
                self.names_statements |= literal.names_statements || !is_exact;
                if self.flags.has(Flags::LANGUAGE) {
                    self.language(is_exact && literal.is(b"plpgsql"));
                }
            }
            // PREPARE TRANSACTION 'gid', where PREPARE transaction AS … would be a name.
            Lead::Prepare if self.is_gid() && self.previous == Seen::Known(Known::Transaction) => {
                self.flags.note(Flags::TWO_PHASE);
                self.names_statements = false;
            }
            _ => {}
        }
        if self.flags.has(Flags::CONFIG) {
            self.name_of_config(&literal, is_exact);
        }
    }

    /// The statement has ended; `None` if it is plain.
    #[inline]
    pub(super) fn end(&mut self, end: usize) -> Option<Draft> {
        if self.flags.has(Flags::CONFIG) {
            self.raises.insert(ANY_SETTING);
            self.local = true;
        }
        // An UPDATE of the view pg_settings is a set_config.
        if self.flags.has(Flags::UPDATED_SETTINGS) {
            self.raises.insert(Kinds::SETTINGS.union(Kinds::ROLE));
        }
        let quiet = self.raises.is_empty() && !self.local && !self.flags.meets(Flags::SPECIAL);
        if self.lead.is_plain() && quiet {
            return None;
        }
        self.close();
        self.count_calls();
        Some(Draft {
            lead: self.lead,
            start: self.start,
            end,
            tokens: self.tokens,
            raises: self.raises,
            local: self.local,
            flags: self.flags,
        })
    }

    /// What the statement's first word says.
    fn close(&mut self) {
        match self.lead {
            Lead::Set | Lead::Reset => self.end_set(),
            Lead::Do | Lead::Call => self.does_anything(),
            Lead::Listen => self.raises.insert(Kinds::CHANNELS),
            Lead::Load => self.raises.insert(Kinds::LOADED),
            Lead::Prepare => {
                self.raises = Kinds::NONE;
                self.local = false;
            }
            _ => {}
        }
    }

    /// What functions outside of `pg_catalog` may leave that the statement calls.
    fn count_calls(&mut self) {
        let counts = !matches!(self.lead, Lead::Set | Lead::Reset | Lead::Prepare);
        if !counts || !self.flags.has(Flags::CALLS) {
            return;
        }
        if self.raises.is_empty() && !self.local {
            self.flags.note(Flags::ONLY_CALLS);
        }
        self.raises.insert(Kinds::ANYTHING);
        self.local = true;
    }

    fn end_set(&mut self) {
        self.raises = Kinds::NONE;
        self.local = self.flags.has(Flags::SET_LOCAL);
        if !self.local {
            self.raises.insert(Kinds::SETTINGS);
            if self.flags.has(Flags::ROLE) {
                self.raises.insert(Kinds::ROLE);
            }
            if self.flags.has(Flags::DOTTED) {
                self.raises.insert(Kinds::UNNAMED_SETTINGS);
            }
        }
        if self.flags.has(Flags::SEED) {
            self.raises.insert(Kinds::SEED);
        }
    }

    pub(super) fn leave_body(&mut self) {
        self.flags.clear(Flags::BODY);
    }

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

    /// The parenthesis behind `set_config` has opened.
    pub(super) fn open_config(&mut self) {
        if self.flags.has(Flags::CONFIG) {
            // One inside the arguments of another.
            self.raises.insert(ANY_SETTING);
            self.local = true;
            return;
        }
        self.flags.note(Flags::SET_CONFIG);
        self.flags.note(Flags::CONFIG);
        self.config_depth = self.depth;
        self.config_name = ConfigName::Expected;
    }

    /// A literal inside the arguments, before it is pushed.
    pub(super) fn name_of_config(&mut self, literal: &Read, is_exact: bool) {
        if self.config_name != ConfigName::Expected {
            return;
        }

        self.config_name = ConfigName::Literal(match () {
            () if !is_exact => ANY_SETTING,
            () if literal.is(b"seed") => Kinds::SEED,
            () if literal.is(b"role") || literal.is(b"session_authorization") => {
                Kinds::SETTINGS.union(Kinds::ROLE)
            }
            () if literal.has_dot => Kinds::SETTINGS.union(Kinds::UNNAMED_SETTINGS),
            () => Kinds::SETTINGS,
        });
    }

    pub(super) fn end_config(&mut self) {
        self.flags.clear(Flags::CONFIG);
        let last = (self.before, self.previous);
        let local = last == (Seen::Comma, Seen::Known(Known::True));
        let session = last == (Seen::Comma, Seen::Known(Known::False));
        self.local |= !session;
        let kinds = match self.config_name {
            ConfigName::Known(kinds) => kinds,
            _ => ANY_SETTING,
        };
        self.raises.insert(if local { kinds.and(Kinds::SEED) } else { kinds });
    }

    /// A token inside `set_config(…)`.
    pub(super) fn argument(&mut self, seen: Seen) {
        self.config_name = match (self.config_name, seen) {
            // end_literal has already said what it is.
            (ConfigName::Literal(_), Seen::Literal) if self.previous != Seen::Literal => return,
            (ConfigName::Literal(kinds), Seen::Comma) => ConfigName::Known(kinds),
            (ConfigName::Known(_), _) => return,
            _ => ConfigName::Known(ANY_SETTING),
        };
    }
}
