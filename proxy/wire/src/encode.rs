//! Encoders: each function appends a message of pgimbal's own making to a buffer.
//!
//! Owns their bytes. The [crate's page](crate) says which of them `pgwire`'s types encode.

use bytes::BytesMut;
use pgwire::messages::Message;
use pgwire::messages::data::{DataRow, FieldDescription, RowDescription};
use pgwire::messages::response::CommandComplete;

use crate::startup::{Parameters, ProtocolVersion};
use crate::tag::{backend, frontend};

/// Type OID of `text`.
const TEXT_OID: u32 = 25;
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

/// The transaction status of a session, as ReadyForQuery reports it. In pool mode `transaction` a
/// server connection can be given back only at [`Self::Idle`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransactionStatus {
    /// `I`: the session is not in a transaction block.
    Idle,
    /// `T`: the session is in a transaction block.
    InTransaction,
    /// `E`: the session is in a failed transaction block, in which only statements that end it or
    /// return to a savepoint are accepted; others fail with 25P02.
    Failed,
}

impl TransactionStatus {
    /// Reads the status byte of a ReadyForQuery; `None` for a byte other than `I`, `T` and `E`.
    #[must_use]
    pub const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            b'I' => Some(Self::Idle),
            b'T' => Some(Self::InTransaction),
            b'E' => Some(Self::Failed),
            _ => None,
        }
    }

    /// The status byte that ReadyForQuery carries: `I`, `T` or `E`.
    #[must_use]
    pub const fn as_byte(self) -> u8 {
        match self {
            Self::Idle => b'I',
            Self::InTransaction => b'T',
            Self::Failed => b'E',
        }
    }
}

/// The kind of object that a Describe or Close message names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameKind {
    /// `S`: a prepared statement.
    Statement,
    /// `P`: a portal.
    Portal,
}

/// Appends a message with the given tag; `write` appends its body, and the length field is filled
/// in afterwards. `write` may only append: what `out` held before must stay. The body must be
/// shorter than 4 GiB, and is to stay within [`MAX_MESSAGE_LEN`](crate::frame::MAX_MESSAGE_LEN) to
/// be accepted.
pub fn message(out: &mut Vec<u8>, tag: u8, write: impl FnOnce(&mut Vec<u8>)) {
    out.push(tag);
    untagged(out, write);
}

fn untagged(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    out.extend_from_slice(&[0; 4]);
    write(out);
    let length = (out.len() - at) as u32;
    out[at..at + 4].copy_from_slice(&length.to_be_bytes());
}

pub(crate) fn cstr(out: &mut Vec<u8>, text: &[u8]) {
    out.extend_from_slice(text);
    out.push(0);
}

/// Appends a message of one of `pgwire`'s types. A message that `pgwire` refuses to encode (above 1
/// GiB) is left out as a whole.
pub fn push<M: Message>(out: &mut Vec<u8>, message: &M) {
    let start = out.len();
    let mut buf = BytesMut::with_capacity(message.message_length() + 1);
    // pgwire refuses only messages above 1 GiB; half a message must not leave.
    match message.encode(&mut buf) {
        Ok(()) => out.extend_from_slice(&buf),
        Err(_) => out.truncate(start),
    }
}

/// Appends a Parse. `name` is empty for the unnamed statement; `text` must have no zero byte.
/// `param_types` is sent as it is: a count of 2 bytes, then 4 bytes for each type OID.
pub fn parse(out: &mut Vec<u8>, name: &[u8], text: &[u8], param_types: &[u8]) {
    message(out, frontend::PARSE, |out| {
        cstr(out, name);
        cstr(out, text);
        out.extend_from_slice(param_types);
    });
}

/// Appends the first part of a Bind: the header and the two names, each empty for the unnamed
/// object. Exactly `rest_len` bytes, the part of the body after the names, must follow on the wire
/// before any other message: it is how a client's Bind is passed on with other names and its values
/// untouched. The names must have no zero byte.
pub fn bind_head(out: &mut Vec<u8>, portal: &[u8], statement: &[u8], rest_len: u32) {
    let names = (portal.len() + statement.len() + 2) as u32;
    out.push(frontend::BIND);
    out.extend_from_slice(&(4 + names + rest_len).to_be_bytes());
    cstr(out, portal);
    cstr(out, statement);
}

/// Appends a Describe of a prepared statement or portal; `name` is empty for the unnamed one. The
/// server replies with RowDescription or NoData, for a statement after a ParameterDescription.
pub fn describe(out: &mut Vec<u8>, kind: NameKind, name: &[u8]) {
    named(out, frontend::DESCRIBE, kind, name);
}

/// Appends a Close of a prepared statement or portal; `name` is empty for the unnamed one. The
/// server replies with CloseComplete, also when there is no such object.
pub fn close(out: &mut Vec<u8>, kind: NameKind, name: &[u8]) {
    named(out, frontend::CLOSE, kind, name);
}

fn named(out: &mut Vec<u8>, tag: u8, kind: NameKind, name: &[u8]) {
    message(out, tag, |out| {
        out.push(match kind {
            NameKind::Statement => b'S',
            NameKind::Portal => b'P',
        });
        cstr(out, name);
    });
}

/// Appends a Query, which the server answers with the results of its statements and one
/// ReadyForQuery. `text` may hold several statements and must have no zero byte.
pub fn query(out: &mut Vec<u8>, text: &[u8]) {
    message(out, frontend::QUERY, |out| cstr(out, text));
}

/// Appends a Sync, to which the server replies with ReadyForQuery.
pub fn sync(out: &mut Vec<u8>) {
    message(out, frontend::SYNC, |_| {});
}

/// Appends a Flush, after which the server sends its buffered replies. It ends no segment of the
/// extended query protocol and has no reply of its own.
pub fn flush(out: &mut Vec<u8>) {
    message(out, frontend::FLUSH, |_| {});
}

/// Appends a Terminate, after which the server closes the connection.
pub fn terminate(out: &mut Vec<u8>) {
    message(out, frontend::TERMINATE, |_| {});
}

/// Appends a CopyFail, which ends a `COPY FROM STDIN` whose client has gone: the server rolls the
/// COPY back and reports `reason` in its ErrorResponse. `reason` must have no zero byte.
pub fn copy_fail(out: &mut Vec<u8>, reason: &[u8]) {
    message(out, frontend::COPY_FAIL, |out| cstr(out, reason));
}

/// Appends a StartupMessage with these name and value pairs, neither of which may hold a zero byte.
/// The result must stay within [`MAX_STARTUP_LEN`](crate::startup::MAX_STARTUP_LEN), or the server
/// refuses it.
pub fn startup<'a>(
    out: &mut Vec<u8>,
    version: ProtocolVersion,
    parameters: impl IntoIterator<Item = (&'a [u8], &'a [u8])>,
) {
    untagged(out, |out| {
        out.extend_from_slice(&version.code().to_be_bytes());
        for (name, value) in parameters {
            cstr(out, name);
            cstr(out, value);
        }
        out.push(0);
    });
}

/// Appends an SSLRequest, 8 bytes, the first that is sent on a connection. The server answers with
/// a single byte: `S`, after which the TLS handshake begins, or `N`, when it has no TLS.
pub fn ssl_request(out: &mut Vec<u8>) {
    out.extend_from_slice(&SSL_REQUEST);
}

/// Appends a CancelRequest (protocol, "Canceling Requests in Progress") for the server process
/// `process_id`; `key` is the secret key from its BackendKeyData, 4 bytes in protocol 3.0, up to 256
/// since 3.2. It is sent on a connection of its own, in place of a StartupMessage. The server does
/// not answer; it closes the connection.
pub fn cancel_request(out: &mut Vec<u8>, process_id: u32, key: &[u8]) {
    untagged(out, |out| {
        out.extend_from_slice(&80_877_102_u32.to_be_bytes());
        out.extend_from_slice(&process_id.to_be_bytes());
        out.extend_from_slice(key);
    });
}

/// Appends a ParseComplete, the reply to a Parse that succeeded.
pub fn parse_complete(out: &mut Vec<u8>) {
    message(out, backend::PARSE_COMPLETE, |_| {});
}

/// Appends a CloseComplete, the reply to a Close, also to one of an object that does not exist.
pub fn close_complete(out: &mut Vec<u8>) {
    message(out, backend::CLOSE_COMPLETE, |_| {});
}

/// Appends a ReadyForQuery with this transaction status: the end of a login, and of the replies to
/// a Query, a FunctionCall or a Sync.
pub fn ready_for_query(out: &mut Vec<u8>, status: TransactionStatus) {
    message(out, backend::READY_FOR_QUERY, |out| out.push(status.as_byte()));
}

/// Appends a ParameterStatus for the setting `name`; neither `name` nor `value` may hold a zero
/// byte. It is sent at the end of a login for each reported setting, and whenever one changes.
pub fn parameter_status(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    message(out, backend::PARAMETER_STATUS, |out| {
        cstr(out, name);
        cstr(out, value);
    });
}

/// Appends a BackendKeyData, with what the client must name in a CancelRequest; it is sent once, at
/// the end of a login. `key` has 4 bytes in protocol 3.0 and up to 256 in 3.2; the length is not
/// checked here.
pub fn backend_key_data(out: &mut Vec<u8>, process_id: u32, key: &[u8]) {
    message(out, backend::BACKEND_KEY_DATA, |out| {
        out.extend_from_slice(&process_id.to_be_bytes());
        out.extend_from_slice(key);
    });
}

/// Appends a NegotiateProtocolVersion: the version that the session speaks, and every protocol
/// option of `parameters` as unknown. The version is sent as the full number with its major part,
/// as PostgreSQL sends it and libpq reads it. It belongs before the first Authentication message,
/// when [`Negotiation::must_notify`](crate::startup::Negotiation::must_notify) is true.
pub fn negotiate_protocol_version(
    out: &mut Vec<u8>,
    version: ProtocolVersion,
    parameters: &Parameters<'_>,
) {
    message(out, backend::NEGOTIATE_PROTOCOL_VERSION, |out| {
        let count = parameters.protocol_options().count() as u32;
        out.extend_from_slice(&version.code().to_be_bytes());
        out.extend_from_slice(&count.to_be_bytes());
        parameters.protocol_options().for_each(|option| cstr(out, option));
    });
}

/// Appends a CommandComplete with the command tag `tag`, such as `SHOW`, which must have no zero
/// byte.
pub fn command_complete(out: &mut Vec<u8>, tag: &str) {
    push(out, &CommandComplete::new(tag.to_owned()));
}

/// Appends a RowDescription whose columns have these names, the type `text` and the text format.
/// None belongs to a table. Servers that tests play begin their results with it; [`text_row`]
/// appends the rows.
pub fn text_columns(out: &mut Vec<u8>, names: &[&str]) {
    let field = |name: &&str| FieldDescription::new((*name).to_owned(), 0, 0, TEXT_OID, -1, -1, 0);
    push(out, &RowDescription::new(names.iter().map(field).collect()));
}

/// Appends a DataRow of values in the text format, as many and in the same order as the names given
/// to [`text_columns`], which is not checked. `None` is NULL; an empty text is not.
pub fn text_row(out: &mut Vec<u8>, values: &[Option<&str>]) {
    let mut data = BytesMut::new();
    for value in values {
        let length = value.map_or(-1, |text| text.len() as i32);
        data.extend_from_slice(&length.to_be_bytes());
        data.extend_from_slice(value.unwrap_or_default().as_bytes());
    }
    push(out, &DataRow::new(data, values.len() as i16));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut out = Vec::new();
        write(&mut out);
        out
    }

    #[test]
    fn requests() {
        assert_eq!(made(sync), b"S\0\0\0\x04");
        assert_eq!(made(|o| query(o, b"x")), b"Q\0\0\0\x06x\0");
        assert_eq!(made(|o| close(o, NameKind::Statement, b"a")), b"C\0\0\0\x07Sa\0");
        assert_eq!(made(|o| bind_head(o, b"", b"s", 6)), b"B\0\0\0\x0d\0s\0");
        assert_eq!(made(|o| parse(o, b"s", b"q", b"\0\0")), b"P\0\0\0\x0as\0q\0\0\0");
        assert_eq!(made(|o| cancel_request(o, 1, b"abcd")).len(), 16);
    }

    #[test]
    fn replies() {
        assert_eq!(made(|o| ready_for_query(o, TransactionStatus::Failed)), b"Z\0\0\0\x05E");
        assert_eq!(made(|o| command_complete(o, "SHOW")), b"C\0\0\0\x09SHOW\0");
        assert_eq!(
            made(|o| text_row(o, &[Some("a"), None])),
            b"D\0\0\0\x0f\0\x02\0\0\0\x01a\xff\xff\xff\xff"
        );
        let columns = made(|o| text_columns(o, &["c"]));
        assert_eq!(columns[..9], *b"T\0\0\0\x1a\0\x01c\0");
    }

    #[test]
    fn status_bytes_read_back() {
        for byte in 0..=255 {
            let status = TransactionStatus::from_byte(byte);
            assert!(status.is_none_or(|status| status.as_byte() == byte));
        }
    }
}
