//! A client's COPY data.

use pgimbal_wire::frame::Header;
use pgimbal_wire::tag::frontend;

use super::turn::{ClientTurn, Message, Step};
use crate::plan::Stop;
use crate::session::Link;

/// CopyData, CopyDone and CopyFail pass while a reply is pending that may be a COPY. Otherwise
/// they are late: the copy has failed, and PostgreSQL drops them too.
pub(super) fn copy(turn: &mut ClientTurn<'_>, header: Header) -> Step {
    let expected = matches!(turn.session.link, Link::Ready(_))
        && turn.server.as_deref().is_some_and(|server| !server.pending().is_empty());
    if !expected {
        turn.drop_message(header);
        return Ok(());
    }
    // CopyData is not looked into: it streams as it comes. The others are processed whole.
    if header.tag == frontend::COPY_DATA {
        let rest = &turn.buf[turn.at..];
        let body = &rest[pgimbal_wire::frame::HEADER_LEN..(header.total as usize).min(rest.len())];
        let message = Message { header, body, start: turn.at };
        turn.forward(message);
        return Ok(());
    }
    let message = turn.held(header, 0)?;
    turn.forward(message);
    let server = turn.server()?;
    if !server.end_copy_in() {
        server.pending_mut().copy_ended();
    }
    Ok(())
}

/// Sync and Flush while COPY data is expected: PostgreSQL ignores them, and a Sync that crosses
/// the copy's error on its way would be answered once too often.
pub(super) fn ignored_in_copy(turn: &mut ClientTurn<'_>, header: Header) -> Result<bool, Stop> {
    let copying = matches!(turn.session.link, Link::Ready(_)) && turn.server()?.copies_in();
    if copying {
        turn.drop_message(header);
    }
    Ok(copying)
}
