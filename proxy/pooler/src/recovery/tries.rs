//! How often a segment has been run again, and what is proven of its first run.

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

/// What has become of a segment so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tries {
    pub(super) count: u8,
    /// A server has proven that nothing was kept of the first try; the others ran READ ONLY.
    pub(crate) rolled_back: bool,
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
