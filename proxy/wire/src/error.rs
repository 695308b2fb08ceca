//! ErrorResponse and NoticeResponse: SQLSTATEs, severities, and the fields that pgimbal reads and
//! writes.
//!
//! This module owns how an error is sent and knows nothing of why one was raised. Source: "Error
//! and Notice Message Fields" of the protocol's chapter.

use pgwire::messages::response::{ErrorResponse, NoticeResponse};
use thiserror::Error;

use crate::encode::push;
use crate::tag::backend;

/// A SQLSTATE: an error code of five digits and upper-case letters, from the SQL standard or
/// PostgreSQL's appendix "PostgreSQL Error Codes".
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SqlState([u8; 5]);

/// The names are those of PostgreSQL's `errcodes.txt`, some shortened.
impl SqlState {
    /// 00000, `successful_completion`: sent with the console's notices that are no warnings.
    pub const SUCCESSFUL_COMPLETION: Self = Self(*b"00000");
    /// 01000, `warning`: sent with the console's warnings.
    pub const WARNING: Self = Self(*b"01000");
    /// 08001, `sqlclient_unable_to_establish_sqlconnection`: no server connection could be opened,
    /// and no other code fits.
    pub const CANNOT_CONNECT: Self = Self(*b"08001");
    /// 08006, `connection_failure`: a client's connection failed, or the client took too long to
    /// log in or does not read.
    pub const CONNECTION_FAILURE: Self = Self(*b"08006");
    /// 08007, `transaction_resolution_unknown`: the server connection was lost, and whether the
    /// statement took effect is not known.
    pub const TRANSACTION_RESOLUTION_UNKNOWN: Self = Self(*b"08007");
    /// 08P01, `protocol_violation`: a client breaks the protocol, or a server does while a
    /// connection to it is opened.
    pub const PROTOCOL_VIOLATION: Self = Self(*b"08P01");
    /// 0A000, `feature_not_supported`: sent for what pgimbal does not offer. From a server with a
    /// stale plan: the schema has changed.
    pub const FEATURE_NOT_SUPPORTED: Self = Self(*b"0A000");
    /// 22021, `character_not_in_repertoire`: a console command is not UTF-8. From a server: as
    /// [`Self::UNTRANSLATABLE_CHARACTER`].
    pub const CHARACTER_NOT_IN_REPERTOIRE: Self = Self(*b"22021");
    /// 22P05, `untranslatable_character`: a server that sends it has refused a text and kept the
    /// unnamed statement that the text was to replace.
    pub const UNTRANSLATABLE_CHARACTER: Self = Self(*b"22P05");
    /// 22023, `invalid_parameter_value`: `pgimbal.route` is set to no known value, or SHOW NODES is
    /// asked wrongly.
    pub const INVALID_PARAMETER_VALUE: Self = Self(*b"22023");
    /// 25001, `active_sql_transaction`: sent by a server when lost work is run again, it leaves
    /// unknown what the work did the first time.
    pub const ACTIVE_SQL_TRANSACTION: Self = Self(*b"25001");
    /// 25006, `read_only_sql_transaction`: from a cluster's primary: it is probed. When lost work
    /// is run again: what the work did the first time stays unknown.
    pub const READ_ONLY_SQL_TRANSACTION: Self = Self(*b"25006");
    /// 25P02, `in_failed_sql_transaction`: answers a command in a transaction that has failed.
    pub const IN_FAILED_SQL_TRANSACTION: Self = Self(*b"25P02");
    /// 25P03, `idle_in_transaction_session_timeout`: a client is dismissed by
    /// `idle_transaction_timeout`.
    pub const IDLE_IN_TRANSACTION_SESSION_TIMEOUT: Self = Self(*b"25P03");
    /// 25P04, `transaction_timeout`: a client is dismissed by `transaction_timeout`.
    pub const TRANSACTION_TIMEOUT: Self = Self(*b"25P04");
    /// 26000, `invalid_sql_statement_name`: sent by the console. From a server: a statement of
    /// pgimbal's own is gone.
    pub const INVALID_SQL_STATEMENT_NAME: Self = Self(*b"26000");
    /// 28000, `invalid_authorization_specification`: a login lacks a user, TLS or channel binding,
    /// or is misconfigured at pgimbal. From a server: it refuses pgimbal's login, which is tried the
    /// other way (TLS or plain) where `sslmode` allows both.
    pub const INVALID_AUTHORIZATION: Self = Self(*b"28000");
    /// 28P01, `invalid_password`: a client's password is wrong, or none works at the server. From a
    /// server: it refuses pgimbal's login.
    pub const INVALID_PASSWORD: Self = Self(*b"28P01");
    /// 3D000, `invalid_catalog_name`: the database is not served. From a server: the configured
    /// database is missing.
    pub const INVALID_CATALOG_NAME: Self = Self(*b"3D000");
    /// 42601, `syntax_error`: a console command or the startup parameter `options` cannot be read.
    pub const SYNTAX_ERROR: Self = Self(*b"42601");
    /// 42602, `invalid_name`: a server that sends it for a session's setting has dropped the
    /// setting, and so does pgimbal.
    pub const INVALID_NAME: Self = Self(*b"42602");
    /// 42622, `name_too_long`: a login names a user or database in more than 63 bytes.
    pub const NAME_TOO_LONG: Self = Self(*b"42622");
    /// 42704, `undefined_object`: a setting `pgimbal.*` is unknown, or a node, cluster or user that
    /// the console is told.
    pub const UNDEFINED_OBJECT: Self = Self(*b"42704");
    /// 42P05, `duplicate_prepared_statement`: the console has a prepared statement of that name.
    pub const DUPLICATE_PSTATEMENT: Self = Self(*b"42P05");
    /// 2D000, `invalid_transaction_termination`: sent by a server when lost work is run again,
    /// it leaves unknown what the work did the first time.
    pub const INVALID_TRANSACTION_TERMINATION: Self = Self(*b"2D000");
    /// 40001, `serialization_failure`: a transaction was lost with its server, where
    /// `lost_transaction_error` asks for this.
    pub const SERIALIZATION_FAILURE: Self = Self(*b"40001");
    /// 42501, `insufficient_privilege`: the console is denied. From a server: pgimbal's question,
    /// or the database, is not for this role.
    pub const INSUFFICIENT_PRIVILEGE: Self = Self(*b"42501");
    /// 53300, `too_many_connections`: `max_client_conn` is reached, or no server connection was to
    /// be had in time.
    pub const TOO_MANY_CONNECTIONS: Self = Self(*b"53300");
    /// 53400, `configuration_limit_exceeded`: no pinned session became free in time, or a console
    /// session keeps too much.
    pub const CONFIGURATION_LIMIT_EXCEEDED: Self = Self(*b"53400");
    /// 54000, `program_limit_exceeded`: a client starts with more or larger settings than are kept.
    pub const PROGRAM_LIMIT_EXCEEDED: Self = Self(*b"54000");
    /// 55P02, `cant_change_runtime_param`: a client starts with a setting that only the server sets.
    pub const CANT_CHANGE_RUNTIME_PARAM: Self = Self(*b"55P02");
    /// 57014, `query_canceled`: a client has cancelled a request that waited for a server
    /// connection.
    pub const QUERY_CANCELED: Self = Self(*b"57014");
    /// 57P01, `admin_shutdown`: pgimbal stops, a client is killed or its transaction lost. From a
    /// server: it goes down.
    pub const ADMIN_SHUTDOWN: Self = Self(*b"57P01");
    /// 57P02, `crash_shutdown`: a server that sends it goes down, or accepts no connections now.
    pub const CRASH_SHUTDOWN: Self = Self(*b"57P02");
    /// 57P03, `cannot_connect_now`: no server can be used, or no password checked, for now. From a
    /// server: it accepts no connections now.
    pub const CANNOT_CONNECT_NOW: Self = Self(*b"57P03");
    /// 57P05, `idle_session_timeout`: a client is dismissed by `client_idle_timeout`.
    pub const IDLE_SESSION_TIMEOUT: Self = Self(*b"57P05");
    /// 58030, `io_error`: the console's revocation of a password could not be kept in `state_dir`.
    pub const IO_ERROR: Self = Self(*b"58030");
    /// F0000, `config_file_error`: the console's RELOAD was refused; nothing was changed.
    pub const CONFIG_FILE_ERROR: Self = Self(*b"F0000");
    /// XX000, `internal_error`: stands for an authentication error whose code is malformed.
    pub const INTERNAL_ERROR: Self = Self(*b"XX000");
}

impl SqlState {
    /// Reads a code, such as field C of an ErrorResponse without its zero byte; `None` unless it is
    /// exactly five ASCII digits and upper-case letters. The code need not be one of the constants.
    #[must_use]
    pub fn new(code: &[u8]) -> Option<Self> {
        let code: [u8; 5] = code.try_into().ok()?;
        let valid = code.iter().all(|b| b.is_ascii_digit() || b.is_ascii_uppercase());
        valid.then_some(Self(code))
    }

    /// The code as text, such as `57P01`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or("XX000")
    }
}

impl std::fmt::Debug for SqlState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::fmt::Display for SqlState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The severity of an error (PANIC, FATAL, ERROR) or of a notice (the others), from the worst to
/// the least.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// PANIC: the server restarts all its sessions.
    Panic,
    /// FATAL: the connection ends.
    Fatal,
    /// ERROR: the statement failed, and its transaction with it.
    Error,
    /// WARNING, of a notice: something is likely wrong.
    Warning,
    /// NOTICE, of a notice: helpful information.
    Notice,
    /// INFO, of a notice: information that the user asked for.
    Info,
    /// LOG, of a notice: information for administrators.
    Log,
    /// DEBUG, of a notice: information for developers; stands for PostgreSQL's DEBUG1 to DEBUG5.
    Debug,
}

impl Severity {
    /// The word that is sent in the fields S and V, never localized.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Panic => "PANIC",
            Self::Fatal => "FATAL",
            Self::Error => "ERROR",
            Self::Warning => "WARNING",
            Self::Notice => "NOTICE",
            Self::Info => "INFO",
            Self::Log => "LOG",
            Self::Debug => "DEBUG",
        }
    }

    fn from_bytes(word: &[u8]) -> Option<Self> {
        Some(match word {
            b"PANIC" => Self::Panic,
            b"FATAL" => Self::Fatal,
            b"ERROR" => Self::Error,
            b"WARNING" => Self::Warning,
            b"NOTICE" => Self::Notice,
            b"INFO" => Self::Info,
            b"LOG" => Self::Log,
            _ if word.starts_with(b"DEBUG") => Self::Debug,
            _ => return None,
        })
    }
}

/// The fields of an ErrorResponse or NoticeResponse of a server, borrowed from its body. Texts are
/// bytes in the client encoding of the server's session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorFields<'a> {
    /// Severity: field V, or S from a server that sends no V. `Error` when neither is a known word.
    pub severity: Severity,
    /// SQLSTATE: field C, without which the message is malformed.
    pub code: SqlState,
    /// Primary message: field M; empty when it is missing or has not arrived.
    pub message: &'a [u8],
    /// Detail: field D; `None` when it is missing.
    pub detail: Option<&'a [u8]>,
    /// Hint: field H; `None` when it is missing.
    pub hint: Option<&'a [u8]>,
}

/// An error message of a server that has no valid SQLSTATE in field C, which the protocol demands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("malformed error message from the server")]
pub struct MalformedError;

impl<'a> ErrorFields<'a> {
    /// Reads the fields in `body`. A prefix of a body will do as long as it holds the code, because
    /// PostgreSQL sends severity and code first.
    ///
    /// # Errors
    /// [`MalformedError`] when there is no valid SQLSTATE in field C.
    pub fn parse(body: &'a [u8]) -> Result<Self, MalformedError> {
        let (mut local, mut plain, mut code) = (None, None, None);
        let (mut message, mut detail, mut hint) = (&b""[..], None, None);
        for (kind, value) in fields(body) {
            match kind {
                b'S' => local = Severity::from_bytes(value),
                b'V' => plain = Severity::from_bytes(value),
                b'C' => code = SqlState::new(value),
                b'M' => message = value,
                b'D' => detail = Some(value),
                b'H' => hint = Some(value),
                _ => {}
            }
        }
        let severity = plain.or(local).unwrap_or(Severity::Error);
        let code = code.ok_or(MalformedError)?;
        Ok(Self { severity, code, message, detail, hint })
    }
}

/// Iterates over the fields of an error's body as `(kind, value)`, up to the end or the first field
/// that is incomplete, which is left out. Kinds are the letters of "Error and Notice Message
/// Fields"; unknown and repeated ones are included, in the order sent. Empty for an empty body.
pub fn fields(body: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    let mut rest = body;
    std::iter::from_fn(move || {
        let (kind, tail) = rest.split_first().filter(|(kind, _)| **kind != 0)?;
        let end = tail.iter().position(|byte| *byte == 0)?;
        rest = &tail[end + 1..];
        Some((*kind, &tail[..end]))
    })
}

/// Appends an ErrorResponse, header included, with the fields of `body` (a server's ErrorResponse)
/// and `severity` in its fields S and V; all other fields stay, and one that is incomplete is left
/// out. A client is told so why its server connection failed: as ERROR when the client's session
/// continues, as FATAL when it ends.
pub fn with_severity(body: &[u8], severity: Severity, out: &mut Vec<u8>) {
    let word = severity.as_str().as_bytes();
    crate::encode::message(out, backend::ERROR_RESPONSE, |out| {
        for (kind, value) in fields(body) {
            out.push(kind);
            out.extend_from_slice(if matches!(kind, b'S' | b'V') { word } else { value });
            out.push(0);
        }
        out.push(0);
    });
}

/// An error or notice that pgimbal itself raises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report<'a> {
    /// Severity; an error or a notice, to match the encoder that is used.
    pub severity: Severity,
    /// SQLSTATE: field C of the message.
    pub code: SqlState,
    /// Primary message: says what happened, without a full stop.
    pub message: &'a str,
    /// Detail: further facts; `None` for none.
    pub detail: Option<&'a str>,
    /// Hint: what the reader can do next; `None` for none.
    pub hint: Option<&'a str>,
}

impl<'a> Report<'a> {
    /// Makes a FATAL error without detail and hint. The caller must close the connection after it.
    #[must_use]
    pub const fn fatal(code: SqlState, message: &'a str) -> Self {
        Self { severity: Severity::Fatal, code, message, detail: None, hint: None }
    }

    /// Makes an ERROR without detail and hint: the statement fails, and the session stays.
    #[must_use]
    pub const fn error(code: SqlState, message: &'a str) -> Self {
        Self { severity: Severity::Error, code, message, detail: None, hint: None }
    }

    /// Sets the detail, field D, in place of one that was set before.
    #[must_use]
    pub const fn detail(mut self, detail: &'a str) -> Self {
        self.detail = Some(detail);
        self
    }

    /// Sets the hint, field H, in place of one that was set before.
    #[must_use]
    pub const fn hint(mut self, hint: &'a str) -> Self {
        self.hint = Some(hint);
        self
    }

    /// Appends the report as an ErrorResponse, header included; zero bytes in its texts are left
    /// out. After a FATAL the caller must close the connection: nothing here does.
    pub fn encode_error(&self, out: &mut Vec<u8>) {
        push(out, &ErrorResponse::new(self.fields()));
    }

    /// Appends the report as a NoticeResponse, header included; zero bytes in its texts are left
    /// out. It ends no statement, so the replies of the statement still follow.
    pub fn encode_notice(&self, out: &mut Vec<u8>) {
        push(out, &NoticeResponse::new(self.fields()));
    }

    fn fields(&self) -> Vec<(u8, String)> {
        // A zero byte would end the field early and shift what follows.
        let text = |s: &str| s.replace('\0', "");
        let mut fields = vec![
            (b'S', self.severity.as_str().to_owned()),
            (b'V', self.severity.as_str().to_owned()),
            (b'C', self.code.as_str().to_owned()),
            (b'M', text(self.message)),
        ];
        fields.extend(self.detail.map(|detail| (b'D', text(detail))));
        fields.extend(self.hint.map(|hint| (b'H', text(hint))));
        fields
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{self, HEADER_LEN};

    #[test]
    fn a_report_reads_back() {
        let mut out = Vec::new();
        let report = Report::fatal(SqlState::INVALID_PASSWORD, "no").detail("d\0d").hint("h");
        report.encode_error(&mut out);
        let header = frame::peek(&out).unwrap().unwrap();
        assert_eq!((header.tag, header.total as usize), (b'E', out.len()));
        let read = ErrorFields::parse(&out[HEADER_LEN..]).unwrap();
        assert_eq!(
            read,
            ErrorFields {
                severity: Severity::Fatal,
                code: SqlState::INVALID_PASSWORD,
                message: b"no",
                detail: Some(b"dd"),
                hint: Some(b"h"),
            }
        );
    }

    #[test]
    fn localized_severity_counts_only_without_v() {
        let read = ErrorFields::parse(b"SFEHLER\0VFATAL\0C57P01\0Mx\0\0").unwrap();
        assert_eq!((read.severity, read.code), (Severity::Fatal, SqlState::ADMIN_SHUTDOWN));
        assert_eq!(ErrorFields::parse(b"SFATAL\0C57P01\0\0").unwrap().severity, Severity::Fatal);
        assert_eq!(ErrorFields::parse(b"SFEHLER\0C57P01\0").unwrap().severity, Severity::Error);
        for body in [&b""[..], b"\0", b"Mx\0\0", b"C5701\0\0", b"C57p01\0\0", b"C57P01"] {
            assert_eq!(ErrorFields::parse(body), Err(MalformedError), "{body:?}");
        }
    }

    #[test]
    fn behaviour_6_a_fatal_becomes_an_error_and_keeps_its_other_fields() {
        let mut out = Vec::new();
        let body = b"SFATAL\0VFATAL\0C57P01\0Mterminating\xff\0Fpostgres.c\0\0";
        with_severity(body, Severity::Error, &mut out);
        assert_eq!(
            out[HEADER_LEN..],
            *b"SERROR\0VERROR\0C57P01\0Mterminating\xff\0Fpostgres.c\0\0"
        );
        assert_eq!(frame::peek(&out).unwrap().unwrap().total as usize, out.len());
    }
}
