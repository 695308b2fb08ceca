//! What a SQL text is, classified once from its bytes.

use super::access::Access;
use super::kinds::Kinds;
use super::marks::Marks;

/// A name of a statement, savepoint or cursor, or a value: bytes as the client sent them, names
/// lower-cased unless they were quoted, doubled quotes made single. No NUL at the end.
pub type Bytes = Box<[u8]>;

/// What a text would do to its session, as far as its words show: the result of classifying the SQL
/// of one Query or Parse message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Classified {
    /// The text's statements, in their order; [`Steps::Unreadable`] if they cannot be told.
    pub steps: Steps,
    /// What the text does to transactions and to the schema, whichever of its statements does it.
    pub marks: Marks,
    /// Whether the text reads or writes rows, as far as its words say.
    pub access: Access,
    /// None of the text's statements leaves anything in its session, or may, by its words. What
    /// functions outside of `pg_catalog` leave, which [`Calls::Functions`](super::Calls) looks for,
    /// does not count. `false` also for statements about transactions, savepoints and prepared
    /// statements, for DECLARE, RESET and DISCARD, and for an unreadable text.
    pub leaves_nothing: bool,
    /// The text names a prepared statement in SQL: EXECUTE, PREPARE or DEALLOCATE stands in it as a
    /// keyword, also behind EXPLAIN or AS, or in the code of a DO block. True for an unreadable
    /// text.
    pub names_statements: bool,
}

/// The statements of a text, in order, in the least memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Steps {
    /// No statement: the text has only white space, comments and semicolons.
    None,
    /// One or more statements, all of which are [`Step::PLAIN`]: nothing to note, and not told
    /// apart. No allocation.
    Plain,
    /// One statement, which is not plain: nothing else stands in the text.
    One(Step),
    /// Several statements, of which one at least is not plain. The server answers each with one
    /// CommandComplete, unless one before it fails.
    Several(Box<[Step]>),
    /// It cannot be told what the text does, or how many statements it has: it may do anything. So
    /// it is for a text whose quotes or characters cannot be read, that two possible readings
    /// classify differently, or that has more than some 1024 statements, not all of them plain.
    Unreadable,
}

/// One statement of a text: its form, and what it may leave in its session when it is run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The statement's form: which SQL command it is, with its operands where the command is
    /// followed.
    pub form: Form,
    /// The kinds of state that the statement may leave in the session besides what `form` says;
    /// empty if it leaves nothing more.
    pub raises: Kinds,
    /// The statement changes, or may change, settings until the end of its transaction (SET LOCAL,
    /// `set_config(…, true)`), in ways that `form` does not say.
    pub local: bool,
}

/// The form of a statement: which SQL command it is, and its operands where they are followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Form {
    /// SELECT, INSERT, SHOW, SET TRANSACTION, NOTIFY and all others whose effects on the session
    /// end with their transaction.
    Plain,
    /// Any other statement that is not followed (DDL, DO, LOAD, CLOSE, a FETCH or MOVE that may
    /// leave something, …), or a followed one whose exact form is not known: see `raises`.
    Other,
    /// FETCH or MOVE, which runs what a portal or cursor of this transaction was declared for.
    Fetch,
    /// DECLARE of a cursor; the step's `raises` holds what its query may leave when it is fetched.
    Declare,
    /// BEGIN or START TRANSACTION, with any options: it begins a transaction block.
    Begin,
    /// COMMIT or END, with AND CHAIN or without. In a failed transaction it is answered by
    /// ROLLBACK.
    Commit(Chain),
    /// ROLLBACK or ABORT of the whole transaction, with AND CHAIN or without: settings that it
    /// changed are undone.
    Rollback(Chain),
    /// PREPARE TRANSACTION: the transaction ends for its session; in a failed one it is answered by
    /// ROLLBACK.
    PrepareTransaction,
    /// SAVEPOINT, with the savepoint's name: settings that are changed after it may be undone.
    Savepoint(Bytes),
    /// ROLLBACK TO SAVEPOINT, with the savepoint's name: settings that were changed since are
    /// undone.
    RollbackTo(Bytes),
    /// RELEASE SAVEPOINT, with the savepoint's name: what was changed since stays.
    Release(Bytes),
    /// SET in any spelling, or `SELECT [pg_catalog.]set_config(…)[, set_config(…)…]` and nothing
    /// else: the settings that are set, in their order, and how.
    Set(Box<[Assignment]>, SetBy),
    /// RESET of one setting, or SET … TO DEFAULT: the setting's name in lower case, and until when
    /// it holds.
    Reset(Bytes, Scope),
    /// RESET ALL: the settings of the session go back to the values that it began with.
    ResetAll,
    /// DISCARD ALL: the whole session state is dropped, prepared statements included.
    DiscardAll,
    /// DISCARD TEMP, PLANS or SEQUENCES: it takes session state away, but no settings or
    /// statements.
    Discard,
    /// SQL PREPARE, with the statement's name, cut as PostgreSQL cuts it (63 bytes).
    Prepare(Bytes),
    /// SQL EXECUTE by itself (not behind EXPLAIN or AS), with the statement's name.
    Execute(Bytes),
    /// DEALLOCATE of one prepared statement, with its name, cut as PostgreSQL cuts it (63 bytes).
    Deallocate(Bytes),
    /// DEALLOCATE ALL: all prepared statements of the session are dropped, those of Parse too.
    DeallocateAll,
    /// `SELECT [pg_catalog.]pg_advisory_unlock_all()` and nothing else: it releases the
    /// session-level advisory locks.
    UnlockAll,
    /// COPY, in either direction (FROM or TO); see [`Classified::access`].
    Copy,
    /// LISTEN, with the channel's name, cut as PostgreSQL cuts it (63 bytes); `raises` has
    /// [`Kinds::CHANNELS`], for a session whose channels are not on a shared connection.
    Listen(Bytes),
    /// UNLISTEN of one channel, with its name, cut as PostgreSQL cuts it (63 bytes).
    Unlisten(Bytes),
    /// UNLISTEN *: of all channels.
    UnlistenAll,
}

/// How settings are set, which decides the tag of the CommandComplete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetBy {
    /// By SET: the tag of the CommandComplete is `SET`.
    Statement,
    /// By `pg_catalog.set_config`: the tag of the CommandComplete is `SELECT 1`.
    Function,
    /// By `set_config` without its schema: another function of the name may have been meant, so the
    /// server is asked whether there is one. The tag is `SELECT 1`.
    UnqualifiedFunction,
}

/// One setting that SET or a call of `set_config` sets: its name, its value and until when it
/// holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// The setting's name, in lower case if it is written in the text.
    pub name: Operand,
    /// The value as `set_config` would take it: lists are joined, quoted where the setting is a
    /// list of identifiers.
    pub value: Operand,
    /// Until when the value holds: the end of the session or of the transaction.
    pub scope: ScopeOperand,
}

/// A name or value of a setting, as SET or a call of `set_config` has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operand {
    /// The operand is written in the text, or a parameter that Bind has given: these bytes, without
    /// quotes and escapes.
    Text(Bytes),
    /// The operand is NULL: written in the text as an argument of `set_config`, or a parameter to
    /// which Bind has given NULL. As a value it resets the setting.
    Null,
    /// The operand is the parameter of this number, counted from 1 (`$1`, also `$1::text`): Bind
    /// has it.
    Parameter(u16),
}

/// Until when a setting holds: by SET or SET LOCAL, or by the third argument of `set_config`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScopeOperand {
    /// The scope is written in the text, as true, false or NULL (false), or by SET and SET LOCAL;
    /// or it is a parameter that Bind has given.
    Is(Scope),
    /// The scope is the parameter of this number, counted from 1: true is [`Scope::Local`], false
    /// is [`Scope::Session`]. Bind has it.
    Parameter(u16),
}

/// Until when a setting that SET or `set_config` sets holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Until the session ends, unless its transaction rolls back (SET, SET SESSION, or `set_config`
    /// with false).
    Session,
    /// Until the transaction ends (SET LOCAL, or `set_config` with true).
    Local,
}

/// Whether a statement is noted once the server has completed it, so that the proxy knows the
/// session's settings and prepared statements without asking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Followed {
    /// The statement is not noted: it changes no settings or prepared statements in a known way.
    No,
    /// Only where settings were changed in its transaction: the statement may undo or keep them.
    WithSettings,
    /// The statement is noted: it changes settings, or the client's prepared statements.
    Always,
}

/// Whether a statement that ends a transaction begins the next (AND CHAIN).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chain {
    /// No transaction is begun: AND CHAIN is not in the statement.
    No,
    /// AND CHAIN: a transaction with the same characteristics begins at once.
    Yes,
}

impl Step {
    /// A statement that leaves nothing in its session: of the form [`Form::Plain`], without kinds.
    pub const PLAIN: Step = Step { form: Form::Plain, raises: Kinds::NONE, local: false };

    /// A statement that may leave anything: every kind that can be asked about or that code may
    /// leave ([`Kinds::ASKED`] and [`Kinds::ANYTHING`], so all but [`Kinds::LOADED`]), and settings
    /// until the end of its transaction. An EXECUTE raises as much, until its statement is looked
    /// up.
    pub const UNREADABLE: Step =
        Step { form: Form::Other, raises: Kinds::ANYTHING.union(Kinds::ASKED), local: true };

    /// Whether it leaves nothing of its own, and is none of those that are followed.
    pub(super) fn leaves_nothing(&self) -> bool {
        self.raises.is_empty()
            && !self.local
            && matches!(
                self.form,
                Form::Plain
                    | Form::Other
                    | Form::Copy
                    | Form::Fetch
                    | Form::Unlisten(_)
                    | Form::UnlistenAll
            )
    }

    /// Whether the statement equals [`Self::PLAIN`]: it leaves nothing in its session, and needs no
    /// attention when it is run.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        *self == Step::PLAIN
    }
}

impl Classified {
    /// The classification of a text of plain statements only: no marks, and no name of a prepared
    /// statement. Whether they read or write rows is unknown.
    pub const PLAIN: Classified = Classified {
        steps: Steps::Plain,
        marks: Marks::NONE,
        access: Access::UNKNOWN,
        leaves_nothing: true,
        names_statements: false,
    };

    /// The classification of a text that cannot be read at all: it may do anything. It has all
    /// marks, no statements that are told apart, and unknown access; its session is asked about
    /// afterwards.
    pub const UNREADABLE: Classified = Classified {
        steps: Steps::Unreadable,
        marks: Marks::ALL,
        access: Access::UNKNOWN,
        leaves_nothing: false,
        names_statements: true,
    };

    /// Returns the statements that are told apart, in their order. Empty if there are none, if all
    /// are plain, or if the text is unreadable.
    #[must_use]
    pub fn steps(&self) -> &[Step] {
        match &self.steps {
            Steps::None | Steps::Plain | Steps::Unreadable => &[],
            Steps::One(step) => std::slice::from_ref(step),
            Steps::Several(steps) => steps,
        }
    }

    /// Whether one of the text's statements may run functions: all but those that begin a
    /// transaction, undo it or a part of it, release a savepoint, set or reset a setting (not by
    /// `set_config`), or prepare what is not run yet. COMMIT may, by deferred triggers. True for an
    /// unreadable text and one of plain statements, `false` for one without statements. Where the
    /// option `verify` is `always`, a text that may run code raises [`Kinds::ANYTHING`].
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

    /// Returns the kinds of state that all statements together may leave, besides what their forms
    /// say; for an unreadable text all that [`Step::UNREADABLE`] has, empty for a text of plain
    /// statements or without any. What is set until the end of a transaction ([`Step::local`]) is
    /// not in it.
    #[must_use]
    pub fn raises(&self) -> Kinds {
        match &self.steps {
            Steps::None | Steps::Plain => Kinds::NONE,
            Steps::Unreadable => Step::UNREADABLE.raises,
            _ => self.steps().iter().fold(Kinds::NONE, |all, step| all.union(step.raises)),
        }
    }

    /// Returns the form of the text's only statement; `None` if it has none or several, if it is
    /// plain, or if the text is unreadable.
    #[must_use]
    pub fn only(&self) -> Option<&Form> {
        match &self.steps {
            Steps::One(step) => Some(&step.form),
            _ => None,
        }
    }

    /// Returns the form of the text's first statement: [`Form::Plain`] if all statements are plain.
    /// `None` if the text has no statement, or is unreadable.
    #[must_use]
    pub fn first(&self) -> Option<&Form> {
        match &self.steps {
            Steps::None | Steps::Unreadable => None,
            Steps::Plain => Some(&Form::Plain),
            _ => self.steps().first().map(|step| &step.form),
        }
    }

    /// Whether nothing has to be known of the text when it is run: all its statements are plain, it
    /// has no marks, and it names no prepared statement. True also for a text without statements;
    /// `false` for an unreadable one. Whether it reads or writes rows does not count.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        matches!(self.steps, Steps::None | Steps::Plain)
            && self.marks == Marks::NONE
            && !self.names_statements
    }

    /// Whether all that the text does is to begin or end transactions and savepoints, or to read
    /// and write rows: each statement is plain, COPY or one of those, and raises no kind of state.
    /// True for a text without statements, `false` for an unreadable one.
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
    /// Returns whether such a statement is noted once the server has answered it with
    /// CommandComplete: always if it sets or resets settings, makes or drops prepared statements
    /// (DISCARD ALL too), or is LISTEN or UNLISTEN; only where settings were changed if it ends a
    /// transaction or is about a savepoint; never otherwise. What it leaves besides
    /// ([`Step::raises`]) is asked about all the same.
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
            | Form::DeallocateAll
            | Form::Listen(_)
            | Form::Unlisten(_)
            | Form::UnlistenAll => Followed::Always,
        }
    }

    /// Whether a CommandComplete with this tag (without its NUL; protocol chapter "Message
    /// Formats") may be the answer to such a statement. [`Form::Plain`], [`Form::Other`] and
    /// [`Form::Execute`] take any. The caller has to take `false` for a sign that something else
    /// has run than was read, which may have left [`Kinds::ANYTHING`].
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
            Form::Listen(_) => tag == b"LISTEN",
            Form::Unlisten(_) | Form::UnlistenAll => tag == b"UNLISTEN",
        }
    }
}
