//! Errors of pgimbal's own, as clients are told them.

use std::sync::Arc;

use pgimbal_wire::error::Report;
use pgimbal_wire::frame::HEADER_LEN;

/// An error as the body of an ErrorResponse, to be kept until it is told (its severity is set then).
#[must_use]
pub fn error_body(report: &Report<'_>) -> Arc<[u8]> {
    let mut message = Vec::new();
    report.encode_error(&mut message);
    message.get(HEADER_LEN..).unwrap_or_default().into()
}
