//! What is proven of a statement that was in flight when its server connection broke, over all the
//! times that it is run again.

use pgimbal_wire::error::{Report, SqlState};

/// Whether a session's segment (the messages up to a Sync, or a simple query) is being run again,
/// because the server connection broke under it. Only what reads is run again, inside a READ ONLY
/// transaction of the proxy's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rerun {
    /// The segment runs for the first time, or no segment runs.
    No,
    /// The segment is run again as soon as the session has a server connection.
    Due(Tries),
    /// The segment is running again on a server connection. If that breaks too, it may be due once
    /// more.
    Running(Tries),
}

/// What is proven of a statement whose server connection broke before its answer was complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// The statement has certainly not taken effect: the client is told the error of a lost
    /// transaction.
    RolledBack,
    /// The statement may have taken effect, or not: the client is told that the outcome is unknown
    /// (08007).
    Unknown,
}

/// How often a segment was run again (5 times at most), and what is proven of its first run. The
/// client is told by that if no run succeeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tries {
    count: u8,
    /// What is proven of the first run; the others ran READ ONLY.
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

/// The error (08007) for a client of whose statement nobody can know whether it took effect,
/// because its server connection broke ([`Proof::Unknown`]). Its severity is ERROR: the session
/// goes on.
#[must_use]
pub const fn outcome_unknown() -> Report<'static> {
    Report::error(
        SqlState::TRANSACTION_RESOLUTION_UNKNOWN,
        "the server connection was lost; whether the statement took effect is not known",
    )
    .hint("Look whether it took effect before you repeat it.")
}

/// The error for a client whose statement is known to have had no effect ([`Proof::RolledBack`]),
/// with the SQLSTATE `code`: 40001 where the cluster's `lost_transaction_error` says so, otherwise
/// 57P01. Its severity is ERROR; FATAL replaces it where the session ends.
#[must_use]
pub const fn rolled_back(code: SqlState) -> Report<'static> {
    Report::error(code, "the server connection was lost, and what it ran is rolled back")
        .hint("Run the transaction again; it gets another server connection.")
}
