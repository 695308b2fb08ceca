//! From what the tokens of a statement have said to its [`Step`].

use super::classified::{Chain, Form, Step};
use super::encoding::Reading;
use super::flags::{ANY_SETTING, Flags};
use super::keyword::Lead;
use super::kinds::Kinds;
use super::parse::{self, Parsed};

/// A statement that has ended, as its tokens have told it.
#[derive(Debug, Clone)]
pub(super) struct Draft {
    pub(super) lead: Lead,
    /// Where its first token begins, and the semicolon behind it stands, in the text.
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) tokens: u8,
    pub(super) raises: Kinds,
    pub(super) local: bool,
    pub(super) flags: Flags,
}

impl Draft {
    /// A plain statement among others.
    pub(super) const PLAIN: Draft = Draft {
        lead: Lead::None,
        start: 0,
        end: 0,
        tokens: 0,
        raises: Kinds::NONE,
        local: false,
        flags: Flags::NONE,
    };

    /// The statement; `kept` is the beginning of the text.
    pub(super) fn step(&self, kept: &[u8], reading: Reading) -> Step {
        let raises = self.raises;
        let form = match self.lead {
            // What every transaction begins and ends with needs no second look.
            Lead::Begin | Lead::Start => Form::Begin,
            Lead::Commit | Lead::End if self.tokens == 1 => Form::Commit(Chain::No),
            Lead::Rollback | Lead::Abort if self.tokens == 1 => Form::Rollback(Chain::No),
            Lead::Copy => Form::Copy,
            Lead::Fetch | Lead::Move if raises.is_empty() => Form::Fetch,
            Lead::Declare => Form::Declare,
            _ if self.tokens == 0 => Form::Plain,
            _ if self.has_form() => return self.parsed(kept, reading),
            _ => Form::Other,
        };
        Step { form, raises, local: self.local }
    }

    /// Whether it leaves nothing but what functions outside of `pg_catalog` may that it calls.
    pub(super) fn only_calls(&self) -> bool {
        self.flags.has(Flags::ONLY_CALLS) && (self.lead == Lead::Select || !self.has_form())
    }

    /// Whether the statement's exact form matters.
    fn has_form(&self) -> bool {
        match self.lead {
            Lead::Select => self.flags.has(Flags::SET_CONFIG) || self.flags.has(Flags::UNLOCK_ALL),
            Lead::Abort
            | Lead::Commit
            | Lead::Deallocate
            | Lead::Discard
            | Lead::End
            | Lead::Execute
            | Lead::Listen
            | Lead::Prepare
            | Lead::Release
            | Lead::Reset
            | Lead::Rollback
            | Lead::Savepoint
            | Lead::Set
            | Lead::Unlisten => true,
            _ => false,
        }
    }

    fn parsed(&self, kept: &[u8], reading: Reading) -> Step {
        let text = kept.get(self.start..self.end.min(kept.len())).unwrap_or_default();
        let whole = self.end <= kept.len();
        let followed = |form| Step { form, raises: Kinds::NONE, local: false };
        match parse::statement(self.lead, text, whole, reading) {
            // Its arguments may do something besides.
            Some(Parsed::Form(Form::Execute(_))) if !self.is_quiet() => self.unfollowed(),
            Some(Parsed::Form(form @ Form::Execute(_))) => {
                Step { form, raises: Step::UNREADABLE.raises, local: true }
            }
            Some(Parsed::Form(form @ Form::Listen(_))) => {
                Step { form, raises: Kinds::CHANNELS, local: false }
            }
            Some(Parsed::Form(form)) => followed(form),
            Some(Parsed::Seed) => Step { form: Form::Other, raises: Kinds::SEED, local: false },
            // COMMIT PREPARED of another session's transaction.
            Some(Parsed::Nothing) => followed(Form::Other),
            None => self.unfollowed(),
        }
    }

    fn is_quiet(&self) -> bool {
        self.raises.is_empty() && !self.local && self.flags == Flags::NONE
    }

    /// What a statement may leave whose form is not known.
    fn unfollowed(&self) -> Step {
        let mut step = Step { form: Form::Other, raises: self.raises, local: self.local };
        step.raises.insert(match self.lead {
            Lead::Execute => return Step::UNREADABLE,
            Lead::Prepare if self.flags.has(Flags::TWO_PHASE) => ANY_SETTING,
            Lead::Prepare | Lead::Deallocate => Kinds::STATEMENTS,
            Lead::Discard => Kinds::ASKED,
            Lead::Abort
            | Lead::Commit
            | Lead::End
            | Lead::Release
            | Lead::Rollback
            | Lead::Savepoint => Kinds::SETTINGS.union(Kinds::ROLE),
            _ => Kinds::NONE,
        });
        step
    }
}
