//! The side that causes an error.

/// The side that can remove the cause of an error; logs and metrics are grouped by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorSource {
    /// The client's program or the person who uses it.
    Client,
    /// The PostgreSQL server, or the network to it.
    Server,
    /// The operator of pgimbal, whose configuration does not fit.
    Operator,
    /// pgimbal itself: a bug.
    Internal,
}

impl ErrorSource {
    /// The word for metric labels and log fields: `client`, `server`, `operator` or `pgimbal`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
            Self::Operator => "operator",
            Self::Internal => "pgimbal",
        }
    }
}
