//! What a known word means in the statement that it stands in.

use super::flags::Flags;
use super::keyword::Lead;
use super::kinds::Kinds;
use super::known::Known;
use super::marks::Marks;
use super::statement::{Seen, Statement};

impl Statement {
    /// A known word, before it is pushed; what later tokens see of it.
    pub(super) fn known(&mut self, known: Known) -> Seen {
        let previous = match self.previous {
            Seen::Known(previous) => Some(previous),
            _ => None,
        };
        match known {
            Known::Into if matches!(previous, Some(Known::Insert | Known::Merge)) => {
                return Seen::Word;
            }
            Known::Into => self.into(),
            Known::Temporary => self.temporary(previous),
            Known::Hold | Known::For => self.declares(known, previous),
            Known::Local | Known::Constraints | Known::Transaction | Known::To => {
                self.transaction_word(known);
            }
            Known::PgTemp if matches!(self.lead, Lead::Schema | Lead::Alter) => {
                self.raises.insert(Kinds::TEMPORARY);
            }
            // SET [SESSION] ROLE, SET "role" TO, SET SESSION SESSION AUTHORIZATION.
            Known::Role if self.tokens <= 3 => self.flags.note(Flags::ROLE),
            Known::Seed if self.tokens <= 2 => self.flags.note(Flags::SEED),
            Known::UnlockAll => self.flags.note(Flags::UNLOCK_ALL),
            Known::Update => self.flags.note(Flags::UPDATE),
            Known::PgSettings => self.flags.note(Flags::PG_SETTINGS),
            Known::Execute if previous == Some(Known::As) && self.creates() => {
                self.runs_a_statement();
            }
            Known::Extension | Known::Language => self.extension(known),
            Known::Concurrently | Known::NonTransactional => self.commits_on_its_way(known),
            Known::Routine | Known::Atomic | Known::End => self.routine(known, previous),
            // (77::bigint).pg_advisory_lock is a call.
            Known::Function(_) | Known::RunsText if self.previous == Seen::Dot => self.calls(known),
            _ => {}
        }
        Seen::Known(known)
    }

    /// What a call of a function leaves.
    pub(super) fn calls(&mut self, function: Known) {
        match function {
            Known::Function(kinds) => {
                self.raises.insert(kinds);
                self.flags.note(Flags::NOTED);
            }
            Known::RunsText => {
                self.raises.insert(Kinds::ANYTHING);
                self.local = true;
            }
            _ => {}
        }
    }

    /// A word that the server may fold to any other: it may be a function or `pg_settings`.
    pub(super) fn uncertain_word(&mut self) -> Seen {
        self.flags.note(Flags::PG_SETTINGS);
        if self.tokens <= 2 {
            self.flags.note(Flags::ROLE);
        }
        if self.previous == Seen::Dot {
            self.does_anything();
        }
        Seen::Uncertain
    }

    /// SELECT … INTO, which creates a table.
    fn into(&mut self) {
        if self.lead.is_plain() {
            self.flags.note(Flags::INTO);
            self.flags.note(Flags::NOTED);
            self.marks.insert(Marks::SCHEMA);
        }
    }

    fn temporary(&mut self, previous: Option<Known>) {
        use Known::{Create, Global, Into, Local, Replace};
        if matches!(previous, Some(Create | Replace | Local | Global | Into)) {
            self.raises.insert(Kinds::TEMPORARY);
        }
    }

    fn declares(&mut self, known: Known, previous: Option<Known>) {
        if self.lead != Lead::Declare || self.flags.has(Flags::QUERY) {
            return;
        }
        if known == Known::For {
            self.flags.note(Flags::QUERY);
        } else if previous == Some(Known::With) {
            self.raises.insert(Kinds::CURSORS);
        }
    }

    fn transaction_word(&mut self, known: Known) {
        match self.lead {
            Lead::Set if self.tokens == 1 && known != Known::To => {
                self.flags.note(Flags::PERHAPS_LOCAL);
            }
            Lead::Prepare if self.tokens == 1 && known == Known::Transaction => {
                self.marks.insert(Marks::MAY_COMMIT);
            }
            Lead::Rollback if self.tokens <= 2 && known == Known::To => {
                self.marks.remove(Marks::MAY_COMMIT);
            }
            _ => {}
        }
    }

    /// CREATE or ALTER EXTENSION, CREATE … LANGUAGE of whatever kind: scripts run.
    fn extension(&mut self, known: Known) {
        let changes = matches!(self.lead, Lead::Create | Lead::Alter);
        match known {
            Known::Extension if changes && self.tokens == 1 => self.raises.insert(Kinds::ANYTHING),
            Known::Language if self.lead == Lead::Do => self.flags.note(Flags::LANGUAGE),
            Known::Language
                if self.lead == Lead::Create
                    && self.tokens <= 5
                    && self.previous != Seen::Close =>
            {
                self.raises.insert(Kinds::ANYTHING);
            }
            _ => {}
        }
    }

    /// CREATE INDEX CONCURRENTLY, CREATE DATABASE, ALTER SYSTEM and their like.
    fn commits_on_its_way(&mut self, known: Known) {
        let does = matches!(self.lead, Lead::Create | Lead::Alter | Lead::Drop)
            && (known == Known::Concurrently || self.tokens == 1);
        if does {
            self.marks.insert(Marks::COMMITS_ON_ITS_WAY);
        }
    }

    /// The body of CREATE FUNCTION … BEGIN ATOMIC …; …; END has semicolons of its own. An END right
    /// behind one of them, or behind ATOMIC, is the body's; any other ends a CASE or is a label.
    fn routine(&mut self, known: Known, previous: Option<Known>) {
        if self.lead != Lead::Create || self.depth != 0 {
            return;
        }
        match known {
            Known::Routine if matches!(self.tokens, 1 | 3) => self.flags.note(Flags::ROUTINE),
            Known::Atomic if previous == Some(Known::Begin) && self.flags.has(Flags::ROUTINE) => {
                self.flags.note(Flags::BODY);
            }
            Known::End if self.previous == Seen::Semicolon || previous == Some(Known::Atomic) => {
                self.leave_body();
            }
            _ => {}
        }
    }
}
