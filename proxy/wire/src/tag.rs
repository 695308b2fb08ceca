//! The type bytes ("tags") with which the messages of the protocol begin.
//!
//! Source: PostgreSQL documentation, chapter "Frontend/Backend Protocol", "Message Formats"
//! (protocol 3.0 and 3.2). SSLRequest, GSSENCRequest, CancelRequest and StartupMessage have no tag,
//! see [`crate::startup`].

/// Tags of the messages that a frontend (client) sends.
pub mod frontend {
    /// Bind: makes a portal from a prepared statement and parameter values; answered by
    /// BindComplete.
    pub const BIND: u8 = b'B';
    /// Close: ends a portal or a prepared statement; answered by CloseComplete, also when there is
    /// no such object.
    pub const CLOSE: u8 = b'C';
    /// CopyData: a chunk of the data of a `COPY FROM STDIN`.
    pub const COPY_DATA: u8 = b'd';
    /// CopyDone: ends the data of a `COPY FROM STDIN` successfully.
    pub const COPY_DONE: u8 = b'c';
    /// CopyFail: ends a `COPY FROM STDIN` with an error whose text the client gives; answered by an
    /// ErrorResponse.
    pub const COPY_FAIL: u8 = b'f';
    /// Describe: asks for the parameters and columns of a prepared statement, or the columns of a
    /// portal.
    pub const DESCRIBE: u8 = b'D';
    /// Execute: runs a portal, up to a limit of rows (0 for all of them).
    pub const EXECUTE: u8 = b'E';
    /// Flush: asks the server to send the replies that it has buffered. It has no reply of its own.
    pub const FLUSH: u8 = b'H';
    /// FunctionCall: calls a function by its OID; answered by FunctionCallResponse and
    /// ReadyForQuery. PostgreSQL's documentation calls it a legacy feature.
    pub const FUNCTION_CALL: u8 = b'F';
    /// Parse: makes a prepared statement from a statement text; an empty name is the unnamed
    /// statement, which the next such Parse replaces.
    pub const PARSE: u8 = b'P';
    /// PasswordMessage, SASLInitialResponse, SASLResponse and GSSResponse, which share this tag and
    /// are told apart by the server's request before them.
    pub const PASSWORD: u8 = b'p';
    /// Query: runs a text of the simple query protocol, which may hold several statements.
    pub const QUERY: u8 = b'Q';
    /// Sync: ends a segment of the extended query protocol; answered by ReadyForQuery.
    pub const SYNC: u8 = b'S';
    /// Terminate: ends the connection; it has no reply.
    pub const TERMINATE: u8 = b'X';
}

/// Tags of the messages that a backend (server) sends.
pub mod backend {
    /// Every Authentication message; an `Int32` in the body says which, 0 for AuthenticationOk.
    pub const AUTHENTICATION: u8 = b'R';
    /// BackendKeyData: the process id and the secret key that a CancelRequest must name; sent once,
    /// at the end of a login.
    pub const BACKEND_KEY_DATA: u8 = b'K';
    /// BindComplete: the reply to a Bind that succeeded.
    pub const BIND_COMPLETE: u8 = b'2';
    /// CloseComplete: the reply to a Close.
    pub const CLOSE_COMPLETE: u8 = b'3';
    /// CommandComplete: a statement ended; the body is its command tag, such as `INSERT 0 1`.
    pub const COMMAND_COMPLETE: u8 = b'C';
    /// CopyData: a chunk of the data of a `COPY TO STDOUT`.
    pub const COPY_DATA: u8 = b'd';
    /// CopyDone: ends the data of a `COPY TO STDOUT`.
    pub const COPY_DONE: u8 = b'c';
    /// CopyInResponse: the server is ready to read the data of a `COPY FROM STDIN`.
    pub const COPY_IN_RESPONSE: u8 = b'G';
    /// CopyOutResponse: the data of a `COPY TO STDOUT` follows.
    pub const COPY_OUT_RESPONSE: u8 = b'H';
    /// CopyBothResponse: CopyData flows in both directions, as in streaming replication.
    pub const COPY_BOTH_RESPONSE: u8 = b'W';
    /// DataRow: one row of a result, after its RowDescription (or, in the extended query protocol,
    /// after the Execute alone).
    pub const DATA_ROW: u8 = b'D';
    /// EmptyQueryResponse: stands for CommandComplete after an empty query text.
    pub const EMPTY_QUERY_RESPONSE: u8 = b'I';
    /// ErrorResponse: an error, see [`crate::error`]. In the extended query protocol the server
    /// skips what follows up to the next Sync.
    pub const ERROR_RESPONSE: u8 = b'E';
    /// FunctionCallResponse: the result of a FunctionCall.
    pub const FUNCTION_CALL_RESPONSE: u8 = b'V';
    /// NegotiateProtocolVersion: the newest minor protocol version that the server speaks, and the
    /// names of the protocol options that it does not know. Sent at most once, before the login.
    pub const NEGOTIATE_PROTOCOL_VERSION: u8 = b'v';
    /// NoData: stands for RowDescription, as the reply to a Describe, when a statement returns no
    /// rows.
    pub const NO_DATA: u8 = b'n';
    /// NoticeResponse: a warning or a notice, with the fields of an ErrorResponse. It may come at
    /// any time and ends nothing.
    pub const NOTICE_RESPONSE: u8 = b'N';
    /// NotificationResponse: a `NOTIFY` on a channel that the session listens to. It may come at
    /// any time.
    pub const NOTIFICATION_RESPONSE: u8 = b'A';
    /// ParameterDescription: the type OIDs of a prepared statement's parameters; the first reply to
    /// a Describe of a statement.
    pub const PARAMETER_DESCRIPTION: u8 = b't';
    /// ParameterStatus: the value of a setting that the server reports (`GUC_REPORT`). It may come
    /// at any time.
    pub const PARAMETER_STATUS: u8 = b'S';
    /// ParseComplete: the reply to a Parse that succeeded.
    pub const PARSE_COMPLETE: u8 = b'1';
    /// PortalSuspended: an Execute reached its limit of rows; another Execute continues.
    pub const PORTAL_SUSPENDED: u8 = b's';
    /// ReadyForQuery: the server waits for the next command; the body is one byte, the transaction
    /// status ([`crate::encode::TransactionStatus`]).
    pub const READY_FOR_QUERY: u8 = b'Z';
    /// RowDescription: names, types and formats of the columns of a result.
    pub const ROW_DESCRIPTION: u8 = b'T';
}
