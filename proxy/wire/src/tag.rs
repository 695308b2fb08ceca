//! Every message tag of the protocol, in one place.
//!
//! Source: PostgreSQL documentation, "Message Formats" (protocol 3.0 and 3.2).

/// Tags of messages that a frontend (client) sends.
pub mod frontend {
    /// Bind a portal to a prepared statement.
    pub const BIND: u8 = b'B';
    /// Close a portal or a prepared statement.
    pub const CLOSE: u8 = b'C';
    /// A chunk of COPY data.
    pub const COPY_DATA: u8 = b'd';
    /// The end of COPY data.
    pub const COPY_DONE: u8 = b'c';
    /// COPY ends with a failure of the client's side.
    pub const COPY_FAIL: u8 = b'f';
    /// Describe a portal or a prepared statement.
    pub const DESCRIBE: u8 = b'D';
    /// Execute a portal.
    pub const EXECUTE: u8 = b'E';
    /// Ask the server to send what it has buffered.
    pub const FLUSH: u8 = b'H';
    /// Call a function by OID.
    pub const FUNCTION_CALL: u8 = b'F';
    /// Parse a prepared statement.
    pub const PARSE: u8 = b'P';
    /// PasswordMessage, SASLInitialResponse, SASLResponse and GSSResponse share this tag.
    pub const PASSWORD: u8 = b'p';
    /// A simple query.
    pub const QUERY: u8 = b'Q';
    /// End of an extended-protocol segment.
    pub const SYNC: u8 = b'S';
    /// The client leaves.
    pub const TERMINATE: u8 = b'X';
}

/// Tags of messages that a backend (server) sends.
pub mod backend {
    /// Any authentication request, AuthenticationOk included.
    pub const AUTHENTICATION: u8 = b'R';
    /// Process id and secret key for cancel requests.
    pub const BACKEND_KEY_DATA: u8 = b'K';
    /// Bind succeeded.
    pub const BIND_COMPLETE: u8 = b'2';
    /// Close succeeded.
    pub const CLOSE_COMPLETE: u8 = b'3';
    /// A statement ended; carries the command tag.
    pub const COMMAND_COMPLETE: u8 = b'C';
    /// A chunk of COPY data.
    pub const COPY_DATA: u8 = b'd';
    /// The end of COPY data.
    pub const COPY_DONE: u8 = b'c';
    /// The server is ready to read COPY data.
    pub const COPY_IN_RESPONSE: u8 = b'G';
    /// The server is about to send COPY data.
    pub const COPY_OUT_RESPONSE: u8 = b'H';
    /// COPY in both directions (replication).
    pub const COPY_BOTH_RESPONSE: u8 = b'W';
    /// One row.
    pub const DATA_ROW: u8 = b'D';
    /// The answer to an empty query text.
    pub const EMPTY_QUERY_RESPONSE: u8 = b'I';
    /// An error.
    pub const ERROR_RESPONSE: u8 = b'E';
    /// The result of a function call.
    pub const FUNCTION_CALL_RESPONSE: u8 = b'V';
    /// The newest minor protocol version and the options that the server does not know.
    pub const NEGOTIATE_PROTOCOL_VERSION: u8 = b'v';
    /// No row description: the statement returns none.
    pub const NO_DATA: u8 = b'n';
    /// A notice.
    pub const NOTICE_RESPONSE: u8 = b'N';
    /// An asynchronous notification.
    pub const NOTIFICATION_RESPONSE: u8 = b'A';
    /// Types of a statement's parameters.
    pub const PARAMETER_DESCRIPTION: u8 = b't';
    /// A reported setting's value.
    pub const PARAMETER_STATUS: u8 = b'S';
    /// Parse succeeded.
    pub const PARSE_COMPLETE: u8 = b'1';
    /// Execute reached its row limit.
    pub const PORTAL_SUSPENDED: u8 = b's';
    /// The server waits for the next command; carries the transaction status.
    pub const READY_FOR_QUERY: u8 = b'Z';
    /// Columns of a result.
    pub const ROW_DESCRIPTION: u8 = b'T';
}
