//! What is proven of a statement that was in flight when its server connection broke, over all the
//! times that it is run again.

use pgimbal_wire::error::{Report, SqlState};

/// Whether a session's segment is being run again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rerun {
    /// No.
    No,
    /// As soon as it has a server connection.
    Due(Tries),
    /// It is running.
    Running(Tries),
}

/// What is known of a statement whose server connection broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// It has not taken effect.
    RolledBack,
    /// It may have, or not.
    Unknown,
}

/// What has become of a segment so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tries {
    count: u8,
    /// Of the first try; the others ran READ ONLY.
    proof: Proof,
}

impl Tries {
    /// It was not run again yet; this is known of its first run.
    pub(crate) const fn none(proof: Proof) -> Self {
        Self { count: 0, proof }
    }

    /// How often it was run again.
    pub(crate) const fn count(self) -> u8 {
        self.count
    }

    /// It is run again once more.
    pub(crate) const fn one_more(self) -> Self {
        Self { count: self.count + 1, ..self }
    }

    /// What is known of its first run.
    pub(crate) const fn proof(self) -> Proof {
        self.proof
    }
}

impl Rerun {
    /// What has become of the segment so far; `None` while it runs for the first time.
    pub(crate) const fn tries(self) -> Option<Tries> {
        match self {
            Self::No => None,
            Self::Due(tries) | Self::Running(tries) => Some(tries),
        }
    }
}

/// What a client is told when nobody can know whether its statement took effect.
#[must_use]
pub const fn outcome_unknown() -> Report<'static> {
    Report::error(
        SqlState::TRANSACTION_RESOLUTION_UNKNOWN,
        "the server connection was lost; whether the statement took effect is not known",
    )
    .hint("Look whether it took effect before you repeat it.")
}

/// What a client is told of a statement that is known to have had no effect.
#[must_use]
pub const fn rolled_back(code: SqlState) -> Report<'static> {
    Report::error(code, "the server connection was lost, and what it ran is rolled back")
        .hint("Run the transaction again; it gets another server connection.")
}
