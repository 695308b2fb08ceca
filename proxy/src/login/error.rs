//! Why a client did not get in.

use std::io;

use pgimbal_auth::ErrorSource;
use pgimbal_auth::client_login::ClientLoginError;
use pgimbal_wire::error::{Report, SqlState};
use pgimbal_wire::frame::BadLength;
use pgimbal_wire::options::OptionsError;
use pgimbal_wire::startup::StartupError;
use thiserror::Error;

use crate::transport::Broken;

/// A client that did not get in. It has been told, where it could be.
#[derive(Debug, Error)]
pub enum LoginError {
    /// It closed the connection; mostly a probe of a load balancer.
    #[error("the client closed the connection during login")]
    Gone,
    /// It closed the connection before its first byte: a health check, which is nobody's failure.
    #[error("the connection ended without a word, as a health check's does")]
    NothingSaid,
    /// Its socket failed.
    #[error("the client's connection failed during login: {0}")]
    Io(io::Error),
    /// The TLS handshake failed.
    #[error("TLS with the client failed: {0}")]
    Tls(io::Error),
    /// Bytes followed a request for encryption before the handshake: somebody in between may have
    /// put them there (CVE-2021-23214).
    #[error("received unencrypted data after {0} request")]
    UnencryptedData(&'static str),
    /// A listener of proxy_protocol, and no header of it.
    #[error("expected a header of the PROXY protocol: {0}")]
    ProxyHeader(&'static str),
    /// TLS without a request, and without saying that PostgreSQL is meant.
    #[error("received direct SSL connection request without ALPN protocol negotiation extension")]
    NoAlpn,
    /// A first packet that is malformed or of another major version.
    #[error(transparent)]
    Startup(#[from] StartupError),
    /// Nothing that asks for something came in time.
    #[error("no startup packet came within client_first_packet_timeout")]
    Silent,
    /// A message during authentication with a length that cannot be true.
    #[error(transparent)]
    Length(BadLength),
    /// A message during authentication that is no answer.
    #[error("expected password response, got message type 0x{0:02x}")]
    UnexpectedMessage(u8),
    /// An answer whose fields do not fit its length.
    #[error("malformed authentication message")]
    MalformedAnswer,
    /// The proof failed.
    #[error(transparent)]
    Proof(#[from] ClientLoginError),
    /// Passwords are not known that should be.
    #[error("the password of user \"{user}\" cannot be checked now: its source says \"{cause}\"")]
    Unavailable {
        /// The user.
        user: Box<str>,
        /// What the source says, as a word.
        cause: &'static str,
    },
    /// The source of the password was not asked: who comes from there has asked too often.
    #[error(
        "the password of user \"{0}\" cannot be checked now: too many that are not known were shown"
    )]
    Unasked(Box<str>),
    /// Plain text where TLS is demanded.
    #[error("connection requires TLS")]
    TlsRequired,
    /// No user name.
    #[error("no PostgreSQL user name specified in startup packet")]
    NoUser,
    /// A name that PostgreSQL would cut, and then take for another.
    #[error("the {0} name is longer than 63 bytes")]
    NameTooLong(&'static str),
    /// A walsender connection.
    #[error("replication connections cannot be pooled")]
    Replication,
    /// The `options` parameter.
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// An authenticated user named a database that is not served.
    #[error("database \"{0}\" does not exist")]
    UnknownDatabase(Box<str>),
    /// An authenticated user who is not listed for the console.
    #[error("user \"{0}\" is not allowed to use the console")]
    ConsoleDenied(Box<str>),
}

impl LoginError {
    /// SQLSTATE of the FATAL that the client got.
    #[must_use]
    pub fn sqlstate(&self) -> SqlState {
        match self {
            Self::Gone | Self::NothingSaid | Self::Io(_) | Self::Silent => {
                SqlState::CONNECTION_FAILURE
            }
            Self::Startup(error) => error.sqlstate(),
            Self::Tls(_)
            | Self::UnencryptedData(_)
            | Self::NoAlpn
            | Self::Length(_)
            | Self::UnexpectedMessage(_)
            | Self::ProxyHeader(_)
            | Self::MalformedAnswer => SqlState::PROTOCOL_VIOLATION,
            Self::Proof(error) => {
                SqlState::new(error.sqlstate().as_bytes()).unwrap_or(SqlState::INTERNAL_ERROR)
            }
            Self::Unavailable { .. } | Self::Unasked(_) => SqlState::CANNOT_CONNECT_NOW,
            Self::TlsRequired | Self::NoUser => SqlState::INVALID_AUTHORIZATION,
            Self::NameTooLong(_) => SqlState::NAME_TOO_LONG,
            Self::Replication => SqlState::FEATURE_NOT_SUPPORTED,
            Self::Options(_) => SqlState::SYNTAX_ERROR,
            Self::UnknownDatabase(_) => SqlState::INVALID_CATALOG_NAME,
            Self::ConsoleDenied(_) => SqlState::INSUFFICIENT_PRIVILEGE,
        }
    }

    /// Whether the connection is closed without a word: the first packet says nothing of
    /// PostgreSQL's protocol (or says Terminate already), or never came.
    #[must_use]
    pub const fn is_silent(&self) -> bool {
        matches!(self, Self::Startup(StartupError::Length) | Self::Silent)
    }

    /// What the client was told.
    #[must_use]
    pub fn client_text(&self) -> String {
        self.to_string()
    }

    /// The next step, where there is one.
    #[must_use]
    pub const fn hint(&self) -> Option<&'static str> {
        match self {
            Self::ProxyHeader(_) => Some(
                "This address is for a load balancer that sends one (proxy_protocol in pgimbal's \
                 configuration); clients have others.",
            ),
            Self::TlsRequired => Some("Connect with sslmode=require."),
            Self::Unavailable { .. } => {
                Some("Try again when Vault answers; SHOW CREDENTIALS on the console tells more.")
            }
            Self::Unasked(_) => Some("Try again in a few seconds."),
            Self::NoAlpn => {
                Some("Connect with libpq 17 or newer, or with sslnegotiation=postgres.")
            }
            Self::Replication => Some("Connect to the PostgreSQL server itself."),
            Self::UnknownDatabase(_) => Some("List the database in pgimbal's configuration."),
            Self::ConsoleDenied(_) => {
                Some("List the user in admin_users or stats_users of pgimbal's configuration.")
            }
            _ => None,
        }
    }

    /// Whose fault it is.
    #[must_use]
    pub const fn blame(&self) -> ErrorSource {
        match self {
            Self::Unavailable { .. } => ErrorSource::Operator,
            _ => ErrorSource::Client,
        }
    }

    /// Appends what the client is told; nothing when it is gone or no message can reach it.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        if matches!(
            self,
            Self::Gone | Self::NothingSaid | Self::Io(_) | Self::Tls(_) | Self::Silent
        ) {
            return;
        }
        let text = self.client_text();
        let report = Report::fatal(self.sqlstate(), &text);
        self.hint().map_or(report, |hint| report.hint(hint)).encode_error(out);
    }
}

impl From<Broken> for LoginError {
    fn from(broken: Broken) -> Self {
        match broken {
            Broken::Closed => Self::Gone,
            Broken::Io(error) => Self::Io(error),
            Broken::Length(bad) => Self::Length(bad),
        }
    }
}

impl From<io::Error> for LoginError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}
