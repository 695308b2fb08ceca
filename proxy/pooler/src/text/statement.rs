//! The forms that a text of exactly one statement may have, as far as they matter to a session.

use std::borrow::Cow;

use super::Lead;

/// The single statement of a text. Names are lower-cased unless quoted, as PostgreSQL does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Statement<'t> {
    /// BEGIN or START TRANSACTION, whatever modes follow.
    Begin,
    /// COMMIT or END, or COMMIT PREPARED.
    Commit {
        /// Whether `AND CHAIN` begins the next transaction at once.
        chain: Chain,
    },
    /// PREPARE TRANSACTION: the transaction leaves this session.
    PrepareTransaction,
    /// ROLLBACK or ABORT, or ROLLBACK PREPARED.
    Rollback {
        /// Whether `AND CHAIN` begins the next transaction at once.
        chain: Chain,
    },
    /// SAVEPOINT.
    Savepoint {
        /// Its name.
        name: Cow<'t, [u8]>,
    },
    /// ROLLBACK TO.
    RollbackTo {
        /// The savepoint's name.
        name: Cow<'t, [u8]>,
    },
    /// RELEASE.
    Release {
        /// The savepoint's name.
        name: Cow<'t, [u8]>,
    },
    /// SET in any of its spellings (also SET TIME ZONE, NAMES, SCHEMA, ROLE, SESSION
    /// AUTHORIZATION, XML OPTION), or `SELECT set_config('name', 'value', true|false)`.
    Set {
        /// The setting, always in lower case: such names do not depend on case.
        name: Cow<'t, [u8]>,
        /// The value as `set_config` would take it: lists are joined, quoted where the setting
        /// is a list of identifiers.
        value: Vec<u8>,
        /// Until when it holds.
        scope: Scope,
    },
    /// SET SESSION CHARACTERISTICS AS TRANSACTION: settings named `default_transaction_…`.
    SetCharacteristics(Characteristics),
    /// SET TRANSACTION, SET CONSTRAINTS, SET `transaction_isolation` and the like: gone with the
    /// transaction.
    SetTransaction,
    /// RESET of one setting, or SET … TO DEFAULT.
    Reset {
        /// The setting, in lower case.
        name: Cow<'t, [u8]>,
        /// Until when it holds (SET LOCAL … TO DEFAULT).
        scope: Scope,
    },
    /// RESET ALL. It leaves `role` and `session_authorization` alone.
    ResetAll,
    /// DISCARD ALL.
    DiscardAll,
    /// DISCARD of a part.
    Discard(Discard),
    /// DEALLOCATE of one statement.
    Deallocate {
        /// The statement's name.
        name: Cow<'t, [u8]>,
    },
    /// DEALLOCATE ALL.
    DeallocateAll,
    /// SQL PREPARE.
    Prepare {
        /// The statement's name.
        name: Cow<'t, [u8]>,
    },
    /// SQL EXECUTE.
    Execute {
        /// The statement's name.
        name: Cow<'t, [u8]>,
    },
    /// LISTEN.
    Listen {
        /// The channel.
        channel: Cow<'t, [u8]>,
    },
    /// UNLISTEN of one channel.
    Unlisten {
        /// The channel.
        channel: Cow<'t, [u8]>,
    },
    /// UNLISTEN *.
    UnlistenAll,
    /// DECLARE CURSOR.
    Declare {
        /// The cursor's name.
        name: Cow<'t, [u8]>,
        /// How long the cursor lives.
        hold: Hold,
    },
    /// CLOSE of one cursor.
    Close {
        /// The cursor's name.
        name: Cow<'t, [u8]>,
    },
    /// CLOSE ALL.
    CloseAll,
    /// `SELECT pg_advisory_unlock_all()`, and nothing else.
    UnlockAll,
    /// COPY, in either direction.
    Copy,
    /// Any other.
    Other,
}

/// Until when a SET holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Until the session ends, unless its transaction rolls back.
    Session,
    /// Until the transaction ends.
    Local,
}

/// Whether a transaction's end begins the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chain {
    /// It does not.
    No,
    /// AND CHAIN.
    Yes,
}

/// How long a cursor lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// Until its transaction ends.
    Transaction,
    /// WITH HOLD: until it is closed.
    Session,
}

/// What DISCARD drops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Discard {
    /// Cached plans.
    Plans,
    /// Cached sequence values.
    Sequences,
    /// Temporary tables.
    Temporary,
}

/// What SET SESSION CHARACTERISTICS names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Characteristics {
    pub(super) isolation: Option<&'static str>,
    pub(super) read_only: Option<&'static str>,
    pub(super) deferrable: Option<&'static str>,
}

impl Characteristics {
    /// The settings and values that it stands for.
    pub fn settings(self) -> impl Iterator<Item = (&'static str, &'static str)> {
        [
            ("default_transaction_isolation", self.isolation),
            ("default_transaction_read_only", self.read_only),
            ("default_transaction_deferrable", self.deferrable),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
    }
}

/// How many statements a text holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Statements<'t> {
    /// None: empty, or only comments and semicolons.
    Zero,
    /// Exactly one.
    One(Statement<'t>),
    /// Several, or a text that could not be followed.
    Many,
}

/// What a text would do to its session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict<'t> {
    /// How many statements there are, and which if there is one.
    pub statements: Statements<'t>,
    /// Why its session would have to keep its server connection.
    pub taints: super::Taints,
    /// What it does to transactions and to the schema.
    pub marks: super::Marks,
    /// The keyword of the first statement.
    pub lead: Lead,
}
