//! The errors of logins.

use std::io;

use pgimbal_auth::client_login::ClientLoginError;
use pgimbal_wire::error::{Report, SqlState};
use pgimbal_wire::frame::BadLength;
use pgimbal_wire::options::OptionsError;
use pgimbal_wire::startup::StartupError;
use thiserror::Error;

use crate::transport::Broken;

/// The reason for which a client's login failed. The client has been sent the error where the
/// protocol allows; `Display` is its message.
#[derive(Debug, Error)]
pub enum LoginError {
    /// The client closed the connection during the login.
    #[error("the client closed the connection during login")]
    Closed,
    /// The client closed the connection before its first byte, as health checks do; it is no
    /// failure.
    #[error("the connection ended without a word, as a health check's does")]
    ClosedAtOnce,
    /// The client's socket failed.
    #[error("the client's connection failed during login: {0}")]
    Io(io::Error),
    /// The TLS handshake with the client failed, or the client's certificate was refused. TLS
    /// itself has sent the alert; no ErrorResponse follows.
    #[error("TLS with the client failed: {0}")]
    Tls(io::Error),
    /// Bytes followed a request for encryption before the handshake; an attacker in between may
    /// have sent them (CVE-2021-23214). The text is `SSL` or `GSSAPI encryption`.
    #[error("received unencrypted data after {0} request")]
    UnencryptedData(&'static str),
    /// A connection to an address of `proxy_protocol` did not begin with a valid PROXY header; the
    /// text says what is wrong with it.
    #[error("expected a header of the PROXY protocol: {0}")]
    ProxyHeader(&'static str),
    /// The client began TLS directly without the ALPN protocol `postgresql`.
    #[error("received direct SSL connection request without ALPN protocol negotiation extension")]
    NoAlpn,
    /// The startup packet is malformed or asks for another major protocol version.
    #[error(transparent)]
    Startup(#[from] StartupError),
    /// No startup packet, or no PROXY header, arrived within `client_first_packet_timeout`. The
    /// connection is closed without an ErrorResponse.
    #[error("no startup packet came within client_first_packet_timeout")]
    StartupTimeout,
    /// A message during authentication has an invalid length, or is longer than allowed.
    #[error(transparent)]
    Length(BadLength),
    /// A message during authentication is no answer; its tag.
    #[error("expected password response, got message type 0x{0:02x}")]
    UnexpectedMessage(u8),
    /// An answer during authentication has fields that do not fit its length.
    #[error("malformed authentication message")]
    MalformedAnswer,
    /// The password or proof is wrong, or the authentication exchange failed.
    #[error(transparent)]
    Authentication(#[from] ClientLoginError),
    /// The source of the user's password gives none, so that the password cannot be checked now.
    #[error("the password of user \"{user}\" cannot be checked now: its source says \"{cause}\"")]
    Unavailable {
        /// The user's name.
        user: Box<str>,
        /// The kind of the source's error, as in metrics
        /// ([`pgimbal_auth::SourceError::result_label`]), or `no answer yet`.
        cause: &'static str,
    },
    /// The source of this user's password was not asked, because too many unknown passwords were
    /// shown from the client's address.
    #[error(
        "the password of user \"{0}\" cannot be checked now: too many that are not known were shown"
    )]
    SourceLimited(Box<str>),
    /// The client uses no TLS over TCP, and `client_tls.sslmode` is `require` or stricter.
    #[error("connection requires TLS")]
    TlsRequired,
    /// The startup packet has no user name.
    #[error("no PostgreSQL user name specified in startup packet")]
    NoUser,
    /// The name of the user or database exceeds 63 bytes; PostgreSQL would truncate it to another
    /// name. The text is `user` or `database`.
    #[error("the {0} name is longer than 63 bytes")]
    NameTooLong(&'static str),
    /// The client asks for a replication connection, which cannot be pooled.
    #[error("replication connections cannot be pooled")]
    Replication,
    /// The startup parameter `options` cannot be read.
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// The authenticated user named a database that is not in the configuration, which has no rule
    /// `*` for databases either; its name.
    #[error("database \"{0}\" does not exist")]
    UnknownDatabase(Box<str>),
    /// The authenticated user named the console as its database, and is neither in `admin_users`
    /// nor in `stats_users`; the user's name.
    #[error("user \"{0}\" is not allowed to use the console")]
    ConsoleDenied(Box<str>),
}

impl LoginError {
    /// The SQLSTATE of the error, for the FATAL ErrorResponse to the client and for the log.
    /// `Closed`, `ClosedAtOnce`, `Io`, `Tls` and `StartupTimeout` are told to no client: theirs is
    /// for the log only. An authentication error has its own code, or XX000 if that is no valid
    /// SQLSTATE.
    #[must_use]
    pub fn sqlstate(&self) -> SqlState {
        match self {
            Self::Closed | Self::ClosedAtOnce | Self::Io(_) | Self::StartupTimeout => {
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
            Self::Authentication(error) => {
                SqlState::new(error.sqlstate().as_bytes()).unwrap_or(SqlState::INTERNAL_ERROR)
            }
            Self::Unavailable { .. } | Self::SourceLimited(_) => SqlState::CANNOT_CONNECT_NOW,
            Self::TlsRequired | Self::NoUser => SqlState::INVALID_AUTHORIZATION,
            Self::NameTooLong(_) => SqlState::NAME_TOO_LONG,
            Self::Replication => SqlState::FEATURE_NOT_SUPPORTED,
            Self::Options(_) => SqlState::SYNTAX_ERROR,
            Self::UnknownDatabase(_) => SqlState::INVALID_CATALOG_NAME,
            Self::ConsoleDenied(_) => SqlState::INSUFFICIENT_PRIVILEGE,
        }
    }

    /// Whether the connection is closed without a message, as PostgreSQL does when the first packet
    /// has an invalid length, or never came: `true` for these two only. Output that is not sent yet
    /// is dropped then.
    #[must_use]
    pub const fn is_silent(&self) -> bool {
        matches!(self, Self::Startup(StartupError::Length) | Self::StartupTimeout)
    }

    /// The primary message of the ErrorResponse, the same text as `Display`.
    #[must_use]
    pub fn client_text(&self) -> String {
        self.to_string()
    }

    /// The hint of the ErrorResponse, what the client or operator can do; `None` where the message
    /// itself says it.
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
            Self::SourceLimited(_) => Some("Try again in a few seconds."),
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

    /// Appends the FATAL ErrorResponse; nothing when no message can reach the client.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        if matches!(
            self,
            Self::Closed | Self::ClosedAtOnce | Self::Io(_) | Self::Tls(_) | Self::StartupTimeout
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
            Broken::Closed => Self::Closed,
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
