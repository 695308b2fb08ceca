//! Whose fault an error is.

/// Who can mend what an error says; logs and metrics are grouped by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorSource {
    /// The client or its user.
    Client,
    /// The PostgreSQL server or the way to it.
    Server,
    /// Whoever runs pgimbal: its configuration does not fit.
    Operator,
    /// pgimbal itself.
    Internal,
}

impl ErrorSource {
    /// A word for labels and log fields.
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
