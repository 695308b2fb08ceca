//! Watches the tokens of a text go by and notes what its statements do.

use std::ops::Range;

use super::body::{Body, Finding};
use super::keyword::{Lead, Watched};
use super::token::{Literal, Sink};
use super::{Chain, Marks, Reading, Statement, Statements, Taint, Taints, Verdict, parse};

/// What has been seen of a text so far.
#[derive(Debug, Clone, Default)]
pub(super) struct Watch {
    /// How many statements began; [`LOST`] if the text cannot be followed.
    statements: u8,
    /// The first statement's keyword, and its tokens once it has ended.
    first: Lead,
    first_tokens: u8,
    taints: Taints,
    marks: Marks,
    /// The statement under way: its keyword, its tokens so far, its open parentheses.
    lead: Lead,
    tokens: u8,
    depth: u32,
    previous: Seen,
    before: Seen,
    /// What it does, as far as its later tokens do not say otherwise.
    pending: Taints,
    pending_marks: Marks,
    /// SET LOCAL, TRANSACTION or CONSTRAINTS so far, unless that is the name of a setting.
    set_kind: SetKind,
    /// The depth inside a `set_config(` that is open; 0 if none is.
    config_depth: u32,
    /// What its other tokens may turn into something, and the same of the last statement.
    named: Named,
    last_named: Named,
    body: Body,
}

/// The tokens that a later one may depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Seen {
    #[default]
    Other,
    Comma,
    Word(Watched),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum SetKind {
    #[default]
    Session,
    PerhapsTransaction,
}

/// Words of a statement that mean something together with others of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Named(u8);

/// A text that cannot be followed counts as many statements.
const LOST: u8 = u8::MAX;

impl Watch {
    /// The text has ended; `kept` is its beginning, and `whole` says whether that is all of it.
    #[inline]
    pub(super) fn verdict<'t>(
        &mut self,
        kept: &'t [u8],
        whole: bool,
        reading: Reading,
    ) -> Verdict<'t> {
        self.end_statement();
        let statements = match self.statements {
            0 => Statements::Zero,
            1 => Statements::One(self.single(kept, whole, reading)),
            _ => Statements::Many,
        };
        Verdict { statements, taints: self.taints, marks: self.marks, lead: self.first }
    }

    /// Which statement a text's only one is. What taints only beside others is taken back.
    fn single<'t>(&mut self, kept: &'t [u8], whole: bool, reading: Reading) -> Statement<'t> {
        let is_select = self.first == Lead::Select;
        let sets_config = is_select && self.taints.contains(Taint::SetConfig);
        let unlocks = is_select && self.last_named.has(Named::UNLOCK_ALL);
        match self.first {
            // What every transaction begins and ends with needs no second look.
            Lead::Begin | Lead::Start => return Statement::Begin,
            Lead::Copy => return Statement::Copy,
            Lead::Commit | Lead::End if self.first_tokens == 1 => {
                return Statement::Commit { chain: Chain::No };
            }
            Lead::Rollback | Lead::Abort if self.first_tokens == 1 => {
                return Statement::Rollback { chain: Chain::No };
            }
            lead if lead.has_form() || sets_config || unlocks => {}
            _ => return Statement::Other,
        }
        let found = parse::statement(kept, whole, reading);
        let sets = self.taints.contains(Taint::SetInLongerText);
        self.taints.remove(Taint::SetInLongerText);
        match &found {
            Some(Statement::Set { .. }) if sets_config => self.taints.remove(Taint::SetConfig),
            Some(Statement::Deallocate { .. } | Statement::DeallocateAll) => {
                self.taints.remove(Taint::DeallocateInLongerText);
            }
            Some(_) => self.taints.remove(Taint::RoleUntracked),
            None if sets => self.taints.insert(Taint::SetUnread),
            None => {}
        }
        found.unwrap_or(Statement::Other)
    }

    /// The first token of a statement.
    #[inline]
    fn begin_statement(&mut self, lead: Lead) {
        self.statements = self.statements.saturating_add(1);
        if self.statements == 1 {
            self.first = lead;
        }
        self.lead = lead;
        match lead {
            Lead::Select | Lead::Other => {}
            Lead::Begin | Lead::Start => self.pending_marks.insert(Marks::BEGINS),
            Lead::Commit | Lead::End | Lead::Rollback | Lead::Abort => {
                self.pending_marks.insert(Marks::MAY_COMMIT);
            }
            Lead::Savepoint | Lead::Release => self.pending_marks.insert(Marks::SAVEPOINTS),
            Lead::Set | Lead::Reset => self.pending.insert(Taint::SetInLongerText),
            Lead::Prepare => self.pending.insert(Taint::SqlPrepare),
            Lead::Deallocate => self.pending.insert(Taint::DeallocateInLongerText),
            Lead::Listen => self.pending.insert(Taint::Listen),
            Lead::Load => self.pending.insert(Taint::Load),
            lead if lead.changes_schema() => self.pending_marks.insert(Marks::SCHEMA),
            _ => {}
        }
    }

    #[inline]
    fn end_statement(&mut self) {
        if self.tokens == 0 {
            return;
        }
        // An UPDATE of the view pg_settings is a set_config.
        let updates_view = self.named.has(Named::UPDATE) && self.named.has(Named::PG_SETTINGS);
        if self.config_depth != 0 || updates_view {
            self.pending.insert(Taint::SetConfig);
        }
        if self.named.has(Named::ROLE) && self.pending.contains(Taint::SetInLongerText) {
            self.pending.insert(Taint::RoleUntracked);
        }
        if self.statements == 1 {
            self.first_tokens = self.tokens;
        }
        self.taints = self.taints.union(self.pending);
        self.marks.insert(self.pending_marks);
        self.pending = Taints::NONE;
        self.pending_marks = Marks::default();
        self.lead = Lead::None;
        self.tokens = 0;
        self.depth = 0;
        self.previous = Seen::Other;
        self.before = Seen::Other;
        self.set_kind = SetKind::Session;
        self.config_depth = 0;
        self.last_named = std::mem::take(&mut self.named);
    }

    #[inline]
    fn push(&mut self, seen: Seen) {
        self.before = self.previous;
        self.previous = seen;
        self.tokens = self.tokens.saturating_add(1);
    }

    /// A token that is no word; `starts` a statement if none is under way.
    #[inline]
    fn other(&mut self, seen: Seen) {
        if self.tokens == 0 {
            self.begin_statement(Lead::Other);
        }
        self.push(seen);
    }

    /// A watched word inside a statement, or leading one: what the words before it make of it.
    fn watched(&mut self, word: Watched) -> Seen {
        let previous = match self.previous {
            Seen::Word(previous) => Some(previous),
            _ => None,
        };
        match word {
            Watched::Temporary => {
                let creates = matches!(
                    previous,
                    Some(
                        Watched::Create
                            | Watched::Replace
                            | Watched::Local
                            | Watched::Global
                            | Watched::Into
                    )
                );
                if creates {
                    self.pending.insert(Taint::TemporaryTable);
                }
            }
            Watched::Into if matches!(previous, Some(Watched::Insert | Watched::Merge)) => {
                return Seen::Other;
            }
            Watched::Hold if self.lead == Lead::Declare && previous == Some(Watched::With) => {
                self.pending.insert(Taint::HoldCursor);
            }
            Watched::Local | Watched::Constraints | Watched::Transaction if self.tokens == 1 => {
                match self.lead {
                    Lead::Set => self.set_kind = SetKind::PerhapsTransaction,
                    Lead::Prepare if word == Watched::Transaction => {
                        self.pending_marks.insert(Marks::MAY_COMMIT);
                    }
                    _ => {}
                }
            }
            Watched::To if self.lead == Lead::Rollback && self.tokens <= 2 => {
                self.pending_marks.remove(Marks::MAY_COMMIT);
                self.pending_marks.insert(Marks::SAVEPOINTS);
            }
            Watched::PgTemp if self.lead == Lead::Set && self.previous != Seen::Comma => {
                self.pending.insert(Taint::TemporaryTable);
            }
            // SET [SESSION] ROLE, SET "role" TO, SET SESSION SESSION AUTHORIZATION.
            Watched::Role if self.tokens <= 3 => self.named.note(Named::ROLE),
            Watched::UnlockAll => self.named.note(Named::UNLOCK_ALL),
            Watched::Update => self.named.note(Named::UPDATE),
            Watched::PgSettings => self.named.note(Named::PG_SETTINGS),
            _ => {}
        }
        Seen::Word(word)
    }

    /// The third token of SET LOCAL, TRANSACTION or CONSTRAINTS: a name says that it was no name.
    fn third_of_set(&mut self, word: Option<Watched>) {
        if self.set_kind == SetKind::PerhapsTransaction && word != Some(Watched::To) {
            self.pending.remove(Taint::SetInLongerText);
        }
    }

    /// Whether literals may be code that runs now, or a search path.
    #[inline]
    fn reads_literals(&self) -> bool {
        matches!(self.lead, Lead::Do | Lead::Set) || self.config_depth != 0
    }

    fn found(&mut self, finding: Finding) {
        match (finding, self.lead) {
            (Finding::Nothing, _) => {}
            (_, Lead::Do) => self.pending.insert(Taint::DoBlock),
            // In front of a search path it is where relations are created.
            (Finding::TemporarySchema, _) => self.pending.insert(Taint::TemporaryTable),
            (Finding::Leaves, _) => {}
        }
    }

    fn open_parenthesis(&mut self) {
        self.depth = self.depth.saturating_add(1);
        match self.previous {
            Seen::Word(Watched::AdvisoryLock) => self.pending.insert(Taint::AdvisoryLock),
            Seen::Word(Watched::SessionFunction) => self.pending.insert(Taint::SessionFunction),
            Seen::Word(Watched::SetConfig) if self.config_depth != 0 => {
                self.pending.insert(Taint::SetConfig);
            }
            Seen::Word(Watched::SetConfig) => self.config_depth = self.depth,
            _ => {}
        }
    }

    fn close_parenthesis(&mut self) {
        if self.config_depth != 0 && self.depth == self.config_depth {
            let local = (self.before, self.previous) == (Seen::Comma, Seen::Word(Watched::True));
            if !local {
                self.pending.insert(Taint::SetConfig);
            }
            self.config_depth = 0;
        }
        self.depth = self.depth.saturating_sub(1);
    }
}

impl Sink for Watch {
    #[inline]
    fn word(&mut self, word: &[u8], _: Range<usize>) {
        let watched = Watched::of(word);
        if self.tokens == 0 {
            self.begin_statement(Lead::of(word));
        } else if self.tokens == 2 {
            self.third_of_set(watched);
        }
        let seen = match watched {
            Some(watched) => self.watched(watched),
            None => Seen::Other,
        };
        self.push(seen);
    }

    fn quoted(&mut self, content: &[u8], _: Range<usize>) {
        if self.tokens == 2 {
            self.third_of_set(None);
        }
        let seen = match Watched::of_quoted(content) {
            Some(watched) => self.watched(watched),
            None => Seen::Other,
        };
        self.other(seen);
    }

    fn literal(&mut self, _: Literal, _: Range<usize>) {
        // PREPARE TRANSACTION 'gid', where PREPARE transaction AS … would be a statement's name.
        let transaction = self.previous == Seen::Word(Watched::Transaction);
        if self.lead == Lead::Prepare && self.tokens == 2 && transaction {
            self.pending.remove(Taint::SqlPrepare);
        }
        if self.reads_literals() {
            let found = self.body.end();
            self.found(found);
        }
        self.other(Seen::Other);
    }

    #[inline]
    fn number(&mut self, _: Range<usize>) {
        self.other(Seen::Other);
    }

    #[inline]
    fn mark(&mut self, byte: u8, _: usize) {
        match byte {
            b';' if self.depth == 0 => return self.end_statement(),
            b'.' if self.previous == Seen::Word(Watched::PgTemp) => {
                self.pending.insert(Taint::TemporaryTable);
            }
            b'(' => self.open_parenthesis(),
            b')' => self.close_parenthesis(),
            b',' => return self.other(Seen::Comma),
            _ => {}
        }
        self.other(Seen::Other);
    }

    #[inline]
    fn inside(&mut self, piece: &[u8]) {
        if self.reads_literals() {
            let found = self.body.read(piece);
            self.found(found);
        }
    }

    fn lost(&mut self) {
        self.statements = LOST;
        self.taints.insert(Taint::Unjudged);
        self.marks.insert(Marks::MAY_COMMIT);
        self.marks.insert(Marks::BEGINS);
        self.marks.insert(Marks::SAVEPOINTS);
        self.marks.insert(Marks::SCHEMA);
    }
}

impl Named {
    const UPDATE: Named = Named(1);
    const PG_SETTINGS: Named = Named(2);
    const ROLE: Named = Named(4);
    const UNLOCK_ALL: Named = Named(8);

    fn note(&mut self, other: Named) {
        self.0 |= other.0;
    }

    fn has(self, other: Named) -> bool {
        self.0 & other.0 != 0
    }
}
