//! The connection below a login, as far as authentication is concerned.

/// The connection that a login runs over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channel<'a> {
    /// A connection without TLS.
    Plain,
    /// A TLS connection.
    Tls {
        /// The hash of the server's certificate to which SCRAM-SHA-256-PLUS binds (RFC 5929,
        /// `tls-server-end-point`). `None` when the certificate's signature algorithm has no such
        /// hash.
        end_point: Option<&'a [u8]>,
    },
}

impl<'a> Channel<'a> {
    /// The channel binding data for SCRAM-SHA-256-PLUS; `None` when channel binding is not
    /// possible.
    #[must_use]
    pub const fn end_point(self) -> Option<&'a [u8]> {
        match self {
            Self::Plain => None,
            Self::Tls { end_point } => end_point,
        }
    }
}
