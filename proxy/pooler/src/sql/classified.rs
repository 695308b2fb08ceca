//! What a SQL text is, classified once from its bytes.

use super::access::Access;
use super::kinds::Kinds;
use super::marks::Marks;

/// A name of a statement, savepoint or cursor, or a value: bytes as the client sent them, names
/// lower-cased unless they were quoted, doubled quotes made single.
pub type Bytes = Box<[u8]>;

/// What a text would do to its session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Classified {
    /// Its statements.
    pub steps: Steps,
    /// What it does to transactions and to the schema, whichever of its statements does it.
    pub marks: Marks,
    /// Whether it reads or writes rows.
    pub access: Access,
    /// None of its statements leaves anything in its session, or may, by its words. What
    /// functions outside of `pg_catalog` leave, which [`Calls::Functions`](super::Calls) looks
    /// for, does not count.
    pub leaves_nothing: bool,
    /// It names a prepared statement in SQL: EXECUTE, PREPARE or DEALLOCATE stands in it as a
    /// keyword, also behind EXPLAIN or AS, or in the code of a DO block.
    pub names_statements: bool,
}

/// The statements of a text, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Steps {
    /// None: only white space, comments and semicolons.
    None,
    /// One or more, all of which are [`Step::PLAIN`]: nothing to note. No allocation.
    Plain,
    /// One that is not plain.
    One(Step),
    /// Several, of which one at least is not plain. The server answers each with one
    /// CommandComplete, unless one before it fails.
    Several(Box<[Step]>),
    /// It cannot be told what the text does, or how many statements it has: it may do anything.
    Unreadable,
}

/// One statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Its form, if that is one that is followed.
    pub form: Form,
    /// What it may leave in the session besides what `form` says.
    pub raises: Kinds,
    /// It changes, or may change, settings until the end of its transaction (SET LOCAL,
    /// `set_config(…, true)`), in ways that `form` does not say.
    pub local: bool,
}

/// The form of a statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Form {
    /// SELECT, INSERT, SHOW, SET TRANSACTION, NOTIFY and all that ends with its transaction.
    Plain,
    /// Any other that is not followed (DDL, DO, LISTEN, UNLISTEN, LOAD, FETCH, MOVE, CLOSE, …), or
    /// a followed one whose exact form is not known: see `raises`.
    Other,
    /// FETCH or MOVE, which runs what a portal or cursor of this transaction was declared for.
    Fetch,
    /// DECLARE; `raises` holds what its query may leave when it is fetched.
    Declare,
    /// BEGIN or START TRANSACTION.
    Begin,
    /// COMMIT or END.
    Commit(Chain),
    /// ROLLBACK or ABORT.
    Rollback(Chain),
    /// PREPARE TRANSACTION.
    PrepareTransaction,
    /// SAVEPOINT.
    Savepoint(Bytes),
    /// ROLLBACK TO.
    RollbackTo(Bytes),
    /// RELEASE.
    Release(Bytes),
    /// SET in any spelling, or `SELECT [pg_catalog.]set_config(…)[, set_config(…)…]` and nothing
    /// else.
    Set(Box<[Assignment]>, SetBy),
    /// RESET of one setting, SET … TO DEFAULT; the name in lower case.
    Reset(Bytes, Scope),
    /// RESET ALL.
    ResetAll,
    /// DISCARD ALL.
    DiscardAll,
    /// DISCARD TEMP, PLANS or SEQUENCES.
    Discard,
    /// SQL PREPARE; the name, cut as PostgreSQL cuts it.
    Prepare(Bytes),
    /// SQL EXECUTE by itself (not behind EXPLAIN or AS).
    Execute(Bytes),
    /// DEALLOCATE of one statement.
    Deallocate(Bytes),
    /// DEALLOCATE ALL.
    DeallocateAll,
    /// `SELECT [pg_catalog.]pg_advisory_unlock_all()` and nothing else.
    UnlockAll,
    /// COPY, in either direction.
    Copy,
}

/// How settings are set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetBy {
    /// SET: the tag is `SET`.
    Statement,
    /// `pg_catalog.set_config`: the tag is `SELECT 1`.
    Function,
    /// `set_config` without its schema: another function of the name may have been meant.
    UnqualifiedFunction,
}

/// One setting that is set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// Its name, in lower case if it is written in the text.
    pub name: Operand,
    /// Its value as `set_config` would take it: lists are joined, quoted where the setting is a
    /// list of identifiers.
    pub value: Operand,
    /// Until when it holds.
    pub scope: ScopeOperand,
}

/// A name or value of a call of `set_config`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operand {
    /// Written in the text.
    Text(Bytes),
    /// NULL.
    Null,
    /// The parameter of this number, counted from 1 (`$1`, also `$1::text`).
    Parameter(u16),
}

/// The third argument of `set_config`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScopeOperand {
    /// Written in the text; SET says it too.
    Is(Scope),
    /// The parameter of this number, counted from 1: true is [`Scope::Local`].
    Parameter(u16),
}

/// Until when a SET holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Until the session ends, unless its transaction rolls back.
    Session,
    /// Until the transaction ends.
    Local,
}

/// Whether the books follow a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Followed {
    /// Nothing of it is written down.
    No,
    /// Where settings were changed in its transaction: it may undo or keep them.
    WithSettings,
    /// It changes them, or the client's statements.
    Always,
}

/// Whether a transaction's end begins the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chain {
    /// It does not.
    No,
    /// AND CHAIN.
    Yes,
}

impl Step {
    /// A statement that leaves nothing.
    pub const PLAIN: Step = Step { form: Form::Plain, raises: Kinds::NONE, local: false };

    /// One that may leave anything.
    pub const UNREADABLE: Step =
        Step { form: Form::Other, raises: Kinds::ANYTHING.union(Kinds::ASKED), local: true };

    /// Whether it leaves nothing of its own, and is none of those that are followed.
    pub(super) fn leaves_nothing(&self) -> bool {
        self.raises.is_empty()
            && !self.local
            && matches!(self.form, Form::Plain | Form::Other | Form::Copy | Form::Fetch)
    }

    /// Whether it leaves nothing.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        *self == Step::PLAIN
    }
}

impl Classified {
    /// A text that only reads or writes rows.
    pub const PLAIN: Classified = Classified {
        steps: Steps::Plain,
        marks: Marks::NONE,
        access: Access::UNKNOWN,
        leaves_nothing: true,
        names_statements: false,
    };

    /// A text that cannot be read at all: it may do anything.
    pub const UNREADABLE: Classified = Classified {
        steps: Steps::Unreadable,
        marks: Marks::ALL,
        access: Access::UNKNOWN,
        leaves_nothing: false,
        names_statements: true,
    };

    /// The statements, as far as they are told apart.
    #[must_use]
    pub fn steps(&self) -> &[Step] {
        match &self.steps {
            Steps::None | Steps::Plain | Steps::Unreadable => &[],
            Steps::One(step) => std::slice::from_ref(step),
            Steps::Several(steps) => steps,
        }
    }

    /// Whether one of its statements may run functions: all but those that begin a transaction,
    /// undo a part of it, set a setting, or prepare what is not run yet.
    #[must_use]
    pub fn may_run_code(&self) -> bool {
        let runs_none = |step: &Step| {
            matches!(
                step.form,
                Form::Begin
                    | Form::Prepare(_)
                    | Form::Savepoint(_)
                    | Form::RollbackTo(_)
                    | Form::Release(_)
                    | Form::Rollback(_)
                    | Form::Set(_, SetBy::Statement)
                    | Form::Reset(..)
                    | Form::ResetAll
            )
        };
        match &self.steps {
            Steps::None => false,
            Steps::Plain | Steps::Unreadable => true,
            Steps::One(_) | Steps::Several(_) => !self.steps().iter().all(runs_none),
        }
    }

    /// What all its statements together may leave.
    #[must_use]
    pub fn raises(&self) -> Kinds {
        match &self.steps {
            Steps::None | Steps::Plain => Kinds::NONE,
            Steps::Unreadable => Step::UNREADABLE.raises,
            _ => self.steps().iter().fold(Kinds::NONE, |all, step| all.union(step.raises)),
        }
    }

    /// The form of the text's only statement.
    #[must_use]
    pub fn only(&self) -> Option<&Form> {
        match &self.steps {
            Steps::One(step) => Some(&step.form),
            _ => None,
        }
    }

    /// The form of the text's first statement; `None` where that cannot be told.
    #[must_use]
    pub fn first(&self) -> Option<&Form> {
        match &self.steps {
            Steps::None | Steps::Unreadable => None,
            Steps::Plain => Some(&Form::Plain),
            _ => self.steps().first().map(|step| &step.form),
        }
    }

    /// Whether nothing has to be known of it when it is run.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        matches!(self.steps, Steps::None | Steps::Plain)
            && self.marks == Marks::NONE
            && !self.names_statements
    }

    /// Whether all that it does is to begin or end transactions and savepoints, or to read and
    /// write rows.
    #[must_use]
    pub fn only_ends_or_begins(&self) -> bool {
        let ends_or_begins = |step: &Step| {
            step.raises == Kinds::NONE
                && matches!(
                    step.form,
                    Form::Plain
                        | Form::Copy
                        | Form::Begin
                        | Form::Commit(_)
                        | Form::Rollback(_)
                        | Form::PrepareTransaction
                        | Form::Savepoint(_)
                        | Form::RollbackTo(_)
                        | Form::Release(_)
                )
        };
        self.steps != Steps::Unreadable && self.steps().iter().all(ends_or_begins)
    }
}

impl Form {
    /// Whether the books follow such a statement.
    #[must_use]
    pub const fn followed(&self) -> Followed {
        match self {
            Form::Plain
            | Form::Other
            | Form::Fetch
            | Form::Declare
            | Form::Begin
            | Form::Copy
            | Form::Discard
            | Form::UnlockAll
            | Form::Execute(_) => Followed::No,
            Form::Commit(_)
            | Form::Rollback(_)
            | Form::PrepareTransaction
            | Form::Savepoint(_)
            | Form::RollbackTo(_)
            | Form::Release(_) => Followed::WithSettings,
            Form::Set(..)
            | Form::Reset(..)
            | Form::ResetAll
            | Form::DiscardAll
            | Form::Prepare(_)
            | Form::Deallocate(_)
            | Form::DeallocateAll => Followed::Always,
        }
    }

    /// Whether a CommandComplete with this tag (without its NUL) may be the answer to such a
    /// statement. [`Form::Plain`] and [`Form::Other`] take any.
    #[must_use]
    pub fn expects(&self, tag: &[u8]) -> bool {
        match self {
            Form::Plain | Form::Other => true,
            Form::Fetch => tag.starts_with(b"FETCH ") || tag.starts_with(b"MOVE "),
            Form::Declare => tag == b"DECLARE CURSOR",
            Form::Begin => matches!(tag, b"BEGIN" | b"START TRANSACTION"),
            Form::Commit(_) => matches!(tag, b"COMMIT" | b"ROLLBACK"),
            Form::Rollback(_) | Form::RollbackTo(_) => tag == b"ROLLBACK",
            Form::PrepareTransaction => matches!(tag, b"PREPARE TRANSACTION" | b"ROLLBACK"),
            Form::Savepoint(_) => tag == b"SAVEPOINT",
            Form::Release(_) => tag == b"RELEASE",
            Form::Set(_, SetBy::Statement) => tag == b"SET",
            Form::Set(..) | Form::UnlockAll => tag == b"SELECT 1",
            // SET … TO DEFAULT says SET.
            Form::Reset(..) => matches!(tag, b"RESET" | b"SET"),
            Form::ResetAll => tag == b"RESET",
            Form::DiscardAll => tag == b"DISCARD ALL",
            Form::Discard => tag.starts_with(b"DISCARD "),
            Form::Prepare(_) => tag == b"PREPARE",
            // EXECUTE answers with the tag of what it runs.
            Form::Execute(_) => true,
            Form::Deallocate(_) => tag == b"DEALLOCATE",
            Form::DeallocateAll => tag == b"DEALLOCATE ALL",
            Form::Copy => tag.starts_with(b"COPY "),
        }
    }
}
