//! The errors of dialling.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use pgimbal_auth::ErrorSource;
use pgimbal_auth::server_login::ServerLoginError;
use pgimbal_wire::error::{ErrorFields, Report, Severity, SqlState, with_severity};
use thiserror::Error;

use super::{Address, Target};
use crate::transport::Broken;

/// A server connection that could not be made. Clones are cheap, for all clients that wait for the
/// connection.
#[derive(Clone, Debug)]
pub struct DialError(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// The server as `host:port (address)`.
    server: String,
    fault: DialFault,
}

/// The reason for which a server connection could not be made; `Display` is its part of the message
/// for waiting clients.
#[derive(Debug, Error)]
pub enum DialFault {
    /// The host name has no address.
    #[error("the host name has no address")]
    NoAddress,
    /// The host name could not be resolved, for the resolver's reason.
    #[error("the host name cannot be resolved: {0}")]
    Resolve(io::Error),
    /// The socket could not be connected, for the operating system's reason.
    #[error("{0}")]
    Connect(io::Error),
    /// The target's connect timeout passed, which is this long (`server_connect_timeout`, or
    /// `probe_timeout` for a probe).
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// The connection failed before ReadyForQuery, for the operating system's reason.
    #[error("the connection failed during login: {0}")]
    Io(io::Error),
    /// The server closed the connection before ReadyForQuery.
    #[error("the server closed the connection during login")]
    Closed,
    /// The server has no TLS, and `sslmode` demands it; with `allow`, after it refused plain text.
    #[error("the server does not support TLS, but sslmode demands it")]
    TlsRefused,
    /// The TLS handshake failed, or the server's certificate was refused.
    #[error("TLS failed: {0}")]
    Tls(io::Error),
    /// `channel_binding` is `require`, and the server logs pgimbal in without channel binding.
    #[error(
        "the server does not offer SCRAM-SHA-256-PLUS, and channel_binding = \"require\" demands it"
    )]
    NoChannelBinding,
    /// Bytes followed the answer to an SSLRequest; an attacker in between may have sent them
    /// (CVE-2021-23222).
    #[error("received unencrypted data after the answer to an SSL request")]
    UnencryptedData,
    /// The server sent something that is not in the protocol, or more than pgimbal accepts; the
    /// text says what.
    #[error("the server does not speak PostgreSQL's protocol: {0}")]
    Protocol(&'static str),
    /// The server refused the login, with the body of its ErrorResponse.
    #[error("{}", server_text(.0, false))]
    Server(Box<[u8]>),
    /// The new connection led to a server that did not answer which node of its cluster it is, so
    /// that it is closed and not used; the text is the cause.
    #[error("the server does not say which node of its cluster it is: {0}")]
    WrongNode(String),
    /// No password of the role is known, because its source gives none.
    #[error("no password of role \"{role}\" is known: {source_error}")]
    UnknownPassword {
        /// Name of the role.
        role: Box<str>,
        /// The error of the password's source.
        source_error: String,
    },
    /// The server refuses every known password of the role.
    #[error(
        "no password of role \"{role}\" works there. {tried}{} {}",
        newer(source_error.as_deref()),
        server_text(refusal, true)
    )]
    NoPasswordWorks {
        /// Name of the role.
        role: Box<str>,
        /// The passwords that were tried, in words.
        tried: String,
        /// The body of the server's last ErrorResponse; empty when it is not known any more.
        refusal: Box<[u8]>,
        /// The error of the password's source; `None` when the source answered.
        source_error: Option<String>,
    },
    /// The authentication exchange failed on pgimbal's side: for example, the password is missing
    /// or does not fit, or the server asks for a method that `require_auth` does not allow.
    #[error(transparent)]
    Login(#[from] ServerLoginError),
}

impl DialFault {
    /// The fault for an ErrorResponse with this body; a malformed body is a protocol violation.
    pub(super) fn refused(body: &[u8]) -> Self {
        match ErrorFields::parse(body) {
            Ok(_) => Self::Server(body.into()),
            Err(_) => Self::Protocol("its error message is malformed"),
        }
    }
}

impl DialError {
    pub(super) fn new(target: &Target, address: Option<&Address>, fault: DialFault) -> Self {
        let mut server = format!("{}:{}", target.host, target.port);
        if let Some(address) = address.map(Address::to_string).filter(|address| *address != server)
        {
            server = format!("{server} ({address})");
        }
        Self(Arc::new(Inner { server, fault }))
    }

    /// Makes an error that is about no particular address.
    pub(crate) fn of(target: &Target, fault: DialFault) -> Self {
        Self::new(target, None, fault)
    }

    pub(crate) fn wrong_node(target: &Target, address: &Address, why: String) -> Self {
        Self::new(target, Some(address), DialFault::WrongNode(why))
    }

    /// The server has let pgimbal in, and then did not answer its question.
    pub(crate) fn no_answer(target: &Target, address: &Address) -> Self {
        Self::new(target, Some(address), DialFault::Closed)
    }

    /// Whether the server cannot be reached or accepts no connections now (57P03, 57P01, 57P02), so
    /// that another node of its cluster may serve instead. `false` for faults that another node
    /// would have too: of TLS, of the password or of the configuration.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        match &self.0.fault {
            DialFault::Server(_) => matches!(
                self.sqlstate(),
                SqlState::CANNOT_CONNECT_NOW | SqlState::ADMIN_SHUTDOWN | SqlState::CRASH_SHUTDOWN
            ),
            DialFault::NoAddress
            | DialFault::Resolve(_)
            | DialFault::Connect(_)
            | DialFault::Timeout(_)
            | DialFault::Io(_)
            | DialFault::Closed
            | DialFault::WrongNode(_) => true,
            _ => false,
        }
    }

    /// The reason for which the connection could not be made.
    #[must_use]
    pub fn fault(&self) -> &DialFault {
        &self.0.fault
    }

    /// The body of the server's ErrorResponse; `None` when the failure is not the server's refusal,
    /// and for [`DialFault::NoPasswordWorks`], which has pgimbal's own message.
    #[must_use]
    pub fn server_message(&self) -> Option<&[u8]> {
        match &self.0.fault {
            DialFault::Server(body) => Some(body),
            _ => None,
        }
    }

    /// SQLSTATE of the error that waiting clients are sent: the server's own, or pgimbal's when the
    /// server sent none. That is 08P01 for a breach of the protocol, 57P03 while a password's
    /// source fails, 28P01 when no password works although it answers, and 08001 for the rest.
    #[must_use]
    pub fn sqlstate(&self) -> SqlState {
        match &self.0.fault {
            DialFault::Server(body) => {
                ErrorFields::parse(body).map_or(SqlState::PROTOCOL_VIOLATION, |fields| fields.code)
            }
            DialFault::Login(error) => {
                SqlState::new(error.sqlstate().as_bytes()).unwrap_or(SqlState::INTERNAL_ERROR)
            }
            DialFault::UnencryptedData | DialFault::Protocol(_) => SqlState::PROTOCOL_VIOLATION,
            DialFault::UnknownPassword { .. }
            | DialFault::NoPasswordWorks { source_error: Some(_), .. } => {
                SqlState::CANNOT_CONNECT_NOW
            }
            DialFault::NoPasswordWorks { .. } => SqlState::INVALID_PASSWORD,
            _ => SqlState::CANNOT_CONNECT,
        }
    }

    /// The message that waiting clients are sent when the server sent no ErrorResponse; the same
    /// text as `Display`, with the server's host, port and address.
    #[must_use]
    pub fn client_text(&self) -> String {
        self.to_string()
    }

    /// The message followed by its SQLSTATE in parentheses, unless the message contains it already.
    #[must_use]
    pub fn with_sqlstate(&self) -> String {
        let (text, code) = (self.to_string(), self.sqlstate());
        let said = format!("({})", code.as_str());
        if text.contains(&said) { text } else { format!("{text} {said}") }
    }

    /// The next step for the reader, a sentence for the HINT of the ErrorResponse and for
    /// `pgimbal check`; `None` when the server's own message is passed on or nothing is known.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match &self.0.fault {
            DialFault::NoAddress | DialFault::Resolve(_) => {
                Some("Check the database's host in pgimbal's configuration.")
            }
            DialFault::Connect(_) | DialFault::Timeout(_) => {
                Some("Is the server running there and does it accept connections from pgimbal?")
            }
            DialFault::TlsRefused => {
                Some("Enable ssl on the server, or choose another sslmode in server_tls.")
            }
            DialFault::NoChannelBinding => Some(
                "Is it PostgreSQL 11 or later, and the role's password stored as SCRAM? Somebody \
                 in between cannot offer it either.",
            ),
            DialFault::Tls(_) => Some("Check server_tls, above all sslmode and ca_file."),
            DialFault::UnknownPassword { .. } => {
                Some("SHOW CREDENTIALS on the console and `pgimbal check` tell what to fix.")
            }
            DialFault::NoPasswordWorks { .. } => Some(
                "Somebody else may have changed the password, its source may lag, or the role's \
                 VALID UNTIL has passed; SHOW CREDENTIALS and pgimbal's log tell more.",
            ),
            // It says itself what to do.
            DialFault::Login(
                ServerLoginError::CleartextRefused | ServerLoginError::MethodRefused(_),
            ) => None,
            DialFault::Login(error) if error.error_source() == ErrorSource::Operator => {
                Some("Give the role a password that fits in pgimbal's configuration.")
            }
            _ => None,
        }
    }

    /// Appends the ErrorResponse for a client that waited: the server's own fields with this
    /// severity, or pgimbal's message with its hint.
    pub fn encode(&self, severity: Severity, out: &mut Vec<u8>) {
        if let Some(body) = self.server_message() {
            return with_severity(body, severity, out);
        }
        let text = self.client_text();
        let report =
            Report { severity, code: self.sqlstate(), message: &text, detail: None, hint: None };
        self.hint().map_or(report, |hint| report.hint(hint)).encode_error(out);
    }

    /// Whether the other addresses of the host need not be tried: after an ErrorResponse other than
    /// 57P03, and a failed authentication exchange.
    pub(super) fn is_final(&self) -> bool {
        match &self.0.fault {
            // Not accepting now: another address may be another node.
            DialFault::Server(_) => self.sqlstate() != SqlState::CANNOT_CONNECT_NOW,
            DialFault::Login(_) => true,
            _ => false,
        }
    }
}

impl fmt::Display for DialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot connect to server {}: {}", self.0.server, self.0.fault)
    }
}

impl std::error::Error for DialError {}

impl From<Broken> for DialFault {
    fn from(broken: Broken) -> Self {
        match broken {
            Broken::Closed => Self::Closed,
            Broken::Io(error) => Self::Io(error),
            Broken::Length(_) => Self::Protocol("invalid message length"),
        }
    }
}

/// The end of a text that says why there is no newer password.
fn newer(source_error: Option<&str>) -> String {
    source_error.map_or_else(String::new, |says| format!(" A newer one cannot be read: {says}."))
}

/// The server's message, with its SQLSTATE only where the error as a whole may have another.
fn server_text(body: &[u8], with_code: bool) -> String {
    ErrorFields::parse(body).map_or_else(
        |_| "the server sent a malformed error".to_owned(),
        |fields| {
            let text = String::from_utf8_lossy(fields.message);
            let severity = fields.severity.as_str();
            match with_code {
                true => format!("{severity}: {text} ({})", fields.code),
                false => format!("{severity}: {text}"),
            }
        },
    )
}
