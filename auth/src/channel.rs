//! The connection below a login, as far as authentication is concerned.

/// The connection that a login runs over. For a client's login it is the connection to the client,
/// for a server's the one to the server. It decides whether SCRAM-SHA-256-PLUS is possible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channel<'a> {
    /// A connection without TLS: a Unix socket or plain TCP; channel binding is not possible.
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
    /// possible. `None` comes of a connection without TLS, or a certificate without such a hash.
    #[must_use]
    pub const fn end_point(self) -> Option<&'a [u8]> {
        match self {
            Self::Plain => None,
            Self::Tls { end_point } => end_point,
        }
    }
}
