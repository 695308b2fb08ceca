//! How much of what a client sends is held, and of its texts remembered.

use super::turn::{ClientTurn, Step};
use crate::plan::Stop;
use crate::server::prepared::CLIENT_STATEMENTS_LIMIT;
use crate::sql::Classified;

/// Whether the client may have so many bytes more remembered: of a text, and of what is known
/// of it. Those in flight count until all of them are answered.
///
/// # Errors
/// [`Stop`] until they are, when they are too many.
pub(super) fn has_room_for(turn: &mut ClientTurn<'_>, bytes: usize) -> Result<bool, Stop> {
    let in_flight = bytes_in_flight(turn);
    if in_flight > 0 && in_flight + bytes > turn.pool.config().pool.max_client_statement_bytes {
        turn.await_replies()?;
    }
    Ok(may_keep(turn, bytes))
}

fn may_keep(turn: &ClientTurn<'_>, bytes: usize) -> bool {
    let known = turn.session.statements.as_ref().map_or(0, |names| names.bytes());
    known + bytes <= turn.pool.config().pool.max_client_statement_bytes
}

/// Whether a statement may be kept that was answered without a server.
pub(super) fn may_keep_unsent(turn: &ClientTurn<'_>, bytes: usize) -> bool {
    may_keep(turn, bytes) && !has_too_many_names(turn)
}

fn has_too_many_names(turn: &ClientTurn<'_>) -> bool {
    let names = turn.session.statements.as_ref();
    names.is_some_and(|names| names.len() >= CLIENT_STATEMENTS_LIMIT)
}

/// So many bytes more are in flight.
pub(super) fn note_in_flight(turn: &mut ClientTurn<'_>, bytes: usize) {
    let all = bytes_in_flight(turn) + bytes;
    turn.session.parsed_bytes = u32::try_from(all).unwrap_or(u32::MAX);
}

fn bytes_in_flight(turn: &ClientTurn<'_>) -> usize {
    match turn.server.as_deref() {
        Some(server) if !server.pending().is_empty() => turn.session.parsed_bytes as usize,
        _ => 0,
    }
}

/// Whether there is room for what is known of the text of a Parse, besides the `total` bytes of
/// the message.
///
/// # Errors
/// [`Stop`] until there is, when too much is in flight.
pub(super) fn has_room_to_know(
    turn: &mut ClientTurn<'_>,
    total: usize,
    classified: &Classified,
) -> Result<bool, Stop> {
    match classified.is_plain() {
        true => Ok(true),
        false => has_room_for(turn, total + classified.bytes()),
    }
}

/// Refuses a name more when the client has too many.
///
/// # Errors
/// [`Stop`], which ends the session.
pub(super) fn may_name_another(turn: &mut ClientTurn<'_>) -> Step {
    match has_too_many_names(turn) {
        true => Err(turn.violation("too many prepared statements")),
        false => Ok(()),
    }
}
