//! The side that causes an error at a server's login.

/// The side that can remove the cause of an error; the SQLSTATE and the hint that clients are told
/// depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorSource {
    /// The PostgreSQL server, or the network to it.
    Server,
    /// The operator of pgimbal, whose configuration does not fit.
    Operator,
}
