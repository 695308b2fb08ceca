//! What is decided of a text, and why.

use std::fmt;
use std::sync::Arc;

/// Whether a replica may serve a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Every statement of the text only reads.
    Read,
    /// The primary has to serve it.
    NotRead(Reason),
}

impl Decision {
    /// Whether it is [`Self::Read`].
    #[must_use]
    pub fn is_read(&self) -> bool {
        matches!(self, Self::Read)
    }

    /// The word for metrics: `read`, or that of the reason.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::NotRead(reason) => reason.as_str(),
        }
    }
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read => f.write_str("it only reads"),
            Self::NotRead(reason) => reason.fmt(f),
        }
    }
}

/// Declares the reasons: the variant, its word for metrics, and its sentence, in which `{}` stands
/// for the name that the variant has.
macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident $(($named:ident))? = $word:literal, $text:literal;)*) => {
        /// Why a text is no read. A name is cut to PostgreSQL's 63 bytes.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum Reason {
            $($(#[$doc])* $name $((reasons!(@type $named)))?,)*
            /// Of several statements, the one of this number (from 1) is no read.
            OneOfSeveral(u32, Arc<Reason>),
        }

        impl Reason {
            /// The words for metrics of all reasons.
            pub const WORDS: &'static [&'static str] = &[$($word),*];

            /// The word for metrics. Of several statements it is that of the one that is no read.
            #[must_use]
            pub fn as_str(&self) -> &'static str {
                match self {
                    $(Self::$name $((reasons!(@any $named)))? => $word,)*
                    Self::OneOfSeveral(_, reason) => reason.as_str(),
                }
            }
        }

        impl fmt::Display for Reason {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(Self::$name $(($named))? => write!(f, $text $(, $named)?),)*
                    Self::OneOfSeveral(number, reason) => write!(f, "statement {number}: {reason}"),
                }
            }
        }
    };
    (@type $named:ident) => { Arc<str> };
    (@any $named:ident) => { _ };
}

reasons! {
    /// It is longer than `max_statement_bytes`, or than what is ever parsed.
    TooLong = "too_long", "it is too long to be looked at";
    /// It has characters whose encoding the grammar does not read: only UTF8 and plain ASCII.
    Encoding = "encoding", "it has characters that are not in UTF8";
    /// `standard_conforming_strings` is off, and it has a backslash.
    Backslash = "backslash", "it has a backslash, and standard_conforming_strings is off";
    /// The lexer cannot follow it: `U&"…"`, a NUL byte, a dollar quote with a long tag.
    Unfollowed = "unfollowed", "it has quotes that are not followed";
    /// The grammar refuses it, or it is nested too deeply.
    NotParsed = "not_parsed", "PostgreSQL's grammar does not accept it, or it is nested too deeply";
    /// A standby refused it before (25006), or it lost a conflict with recovery.
    Refused = "refused", "a replica has refused it before";
    /// It has no statement.
    Empty = "empty", "it has no statement";
    /// A statement that is not one of those that read.
    Statement = "statement", "it is not SELECT, VALUES, TABLE, SHOW, EXPLAIN or COPY TO STDOUT";
    /// EXPLAIN with the option ANALYZE, whatever its value.
    ExplainAnalyze = "explain_analyze", "EXPLAIN ANALYZE runs the statement";
    /// FOR UPDATE, FOR SHARE and the like.
    LockingClause = "locking_clause", "it locks rows (FOR UPDATE, FOR SHARE)";
    /// SELECT INTO.
    Into = "into", "SELECT INTO makes a table";
    /// INSERT, UPDATE, DELETE or MERGE inside WITH.
    DataModifyingCte = "data_modifying_cte", "a statement inside WITH changes rows";
    /// `nextval` and what depends on it.
    SequenceFunction(name) = "sequence_function", "the function {}() is one of sequences";
    /// A function that is volatile under one of its signatures.
    VolatileFunction(name) = "volatile_function", "the function {}() is volatile";
    /// The catalog has no function of this name: it is newer, or the call is a cast to a type.
    UnknownFunction(name) = "unknown_function", "the function {}() is not in the catalog that was read";
    /// The catalog has not been read.
    CatalogUnread(name) = "catalog_unread", "the function {}() is not known before the catalog is read";
    /// A function that tells of the server that runs it.
    ServerFunction(name) = "server_function", "the function {}() tells of the server that runs it";
    /// A function that runs SQL which it is given as a text.
    RunsText(name) = "runs_text", "the function {}() runs SQL that it is given as a text";
    /// An operator whose function is no read.
    VolatileOperator(name) = "volatile_operator", "the operator {} calls a volatile function";
    /// A type whose check, input or cast calls a function that is no read.
    VolatileType(name) = "volatile_type", "the type {} calls a volatile function";
    /// A name of a temporary schema.
    TemporaryTable(name) = "temporary_table", "{} is a temporary table";
    /// A relation that is unlogged somewhere in the database.
    UnloggedTable(name) = "unlogged_table", "{} is unlogged, which replicas do not have";
    /// A foreign table.
    ForeignTable(name) = "foreign_table", "{} is a foreign table";
    /// A sequence, whose value runs ahead on a standby.
    Sequence(name) = "sequence", "{} is a sequence, whose value differs on a replica";
    /// A view that calls a function which is no read, or reads a relation that is none; or a table
    /// with such children.
    View(name) = "view", "{} calls or reads what a replica does not serve";
    /// A table with a row security policy that calls a function which is no read.
    Policy(name) = "policy", "a policy of {} calls what a replica does not serve";
    /// A view that shows the state of the server that runs it.
    ServerView(name) = "server_view", "{} shows the server that runs it";
    /// SHOW of a setting that may differ between servers.
    ServerSetting(name) = "server_setting", "the setting {} may differ between servers";
    /// COPY to a file or a program.
    CopyToFile = "copy_to_file", "COPY writes to a file or program of the server";
    /// COPY FROM.
    CopyFrom = "copy_from", "COPY FROM writes";
    /// A part of a statement that is not known to read.
    Construct = "construct", "it has a part that is not known to read only";
}
