//! Errors of pgimbal's own, as clients are told them.

use std::sync::Arc;

use pgimbal_wire::error::Report;
use pgimbal_wire::frame::HEADER_LEN;

/// Encodes an error of the proxy as the body of an ErrorResponse (protocol chapter "Message
/// Formats"): its fields and the final NUL, without the tag and the length. The body is kept until
/// a client is told it; the severity that `report` has may be replaced then (ERROR or FATAL), while
/// SQLSTATE, message and hint stay. Nothing is counted here: that is done when the client is told.
#[must_use]
pub fn error_body(report: &Report<'_>) -> Arc<[u8]> {
    let mut message = Vec::new();
    report.encode_error(&mut message);
    message.get(HEADER_LEN..).unwrap_or_default().into()
}
