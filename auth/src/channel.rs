//! What a login knows of the connection below it.

/// The connection that a login runs over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channel<'a> {
    /// No TLS.
    Plain,
    /// TLS; `end_point` is the hash of the server's certificate (RFC 5929,
    /// `tls-server-end-point`), where its signature algorithm has one.
    Tls {
        /// The hash, to which SCRAM-SHA-256-PLUS binds.
        end_point: Option<&'a [u8]>,
    },
}

impl<'a> Channel<'a> {
    /// What SCRAM can be bound to.
    #[must_use]
    pub const fn end_point(self) -> Option<&'a [u8]> {
        match self {
            Self::Plain => None,
            Self::Tls { end_point } => end_point,
        }
    }
}
