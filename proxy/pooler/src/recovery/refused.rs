//! A segment that was taken for a read and that its replica refuses: it runs on the primary
//! instead, and its client sees nothing of that. Its texts are remembered as no reads.

use pgimbal_wire::encode::TransactionStatus;
use pgimbal_wire::error::{self, ErrorFields, Severity, SqlState};
use pgimbal_wire::extended::{Bind, Parse};
use pgimbal_wire::frame::{self, HEADER_LEN};
use pgimbal_wire::tag::{backend, frontend};

use crate::core::Core;
use crate::ids::SessionId;
use crate::recovery::in_flight::Progress;
use crate::recovery::proof::Rerun;
use crate::recovery::undo_pending;
use crate::server::Server;
use crate::server::pending::Pending;
use crate::session::Session;
use crate::session::client_turn::segment;
use crate::session::routing::{ChosenBy, Routing};

/// Looks whether the server refuses what is in flight, in the first bytes of its answer that have
/// come: then the session keeps the segment, and nothing of the answer is forwarded.
pub(crate) fn look_for_refusal(session: &mut Session, server: &mut Server, answer: &[u8]) {
    let in_flight = server.in_flight();
    let is_kept = in_flight.progress() == Progress::Unanswered
        && in_flight.has_end()
        && in_flight.whole().is_some();
    // Who asks for a replica is told what the replica says.
    let chosen = session.routing().and_then(Routing::chosen);
    let is_alone = chosen.is_some_and(|chosen| chosen.by == ChosenBy::Auto)
        && session.rerun() == Rerun::No
        && server.status() == TransactionStatus::Idle
        && !server.has_failed()
        && server.is_between_messages();
    if !is_kept || !is_alone || !is_refusal(answer) {
        return;
    }
    let made = |entry: &mut Pending| matches!(entry, Pending::Closed(_));
    if server.pending_mut().iter_mut_of(session.id()).any(made) {
        return;
    }
    undo_pending(session, server);
    let segment = server.in_flight_mut().take();
    if let Some(routing) = session.routing_mut() {
        routing.refuse(segment);
    }
}

/// Takes what a replica has refused of a session, and remembers that its texts are no reads.
pub(crate) fn take(core: &mut Core, id: SessionId) -> Vec<u8> {
    let Some(session) = core.sessions.get_mut(id) else { return Vec::new() };
    let Some(bytes) = session.routing_mut().and_then(|routing| routing.take_refused()) else {
        return Vec::new();
    };
    let pool = &mut core.pools[session.pool()];
    let mut rest = &bytes[..];
    while let Ok(Some(header)) = frame::peek(rest) {
        let Some(body) = rest.get(HEADER_LEN..header.total as usize) else { break };
        let len = header.body_len() as usize;
        let text = match header.tag {
            frontend::QUERY => body.strip_suffix(b"\0"),
            frontend::PARSE => Parse::view(body, len).ok().flatten().map(|parse| parse.text),
            frontend::BIND => Bind::view(body, len)
                .ok()
                .flatten()
                .and_then(|bind| segment::text_of(session, bind.statement)),
            _ => None,
        };
        if let Some(text) = text {
            pool.remember_refused(text, session.reading());
        }
        rest = &rest[header.total as usize..];
    }
    bytes
}

/// Whether the answer to one segment, as far as it has come, has an error that only a standby
/// raises.
fn is_refusal(answer: &[u8]) -> bool {
    let mut rest = answer;
    while let Ok(Some(header)) = frame::peek(rest) {
        let Some(body) = rest.get(HEADER_LEN..header.total as usize) else { return false };
        match header.tag {
            backend::ERROR_RESPONSE => return refuses(body),
            _ => rest = &rest[header.total as usize..],
        }
    }
    false
}

/// Whether an error says that a standby does not run the statement, or has cancelled it for the
/// sake of recovery.
fn refuses(body: &[u8]) -> bool {
    let Ok(fields) = ErrorFields::parse(body) else { return false };
    let has = |wanted: u8| error::fields(body).any(|(kind, _)| kind == wanted);
    if fields.severity != Severity::Error {
        return false;
    }
    match fields.code {
        // A read outside of SERIALIZABLE fails so by a conflict with recovery only.
        SqlState::READ_ONLY_SQL_TRANSACTION | SqlState::SERIALIZATION_FAILURE => true,
        // The detail names the conflict; a limit in time or a cancel request has none.
        SqlState::QUERY_CANCELED => has(b'D'),
        // Unlogged tables, SERIALIZABLE; what the primary does not support either, it says itself.
        SqlState::FEATURE_NOT_SUPPORTED => {
            !error::fields(body).any(|(kind, value)| kind == b'R' && value == STALE_PLAN)
        }
        _ => false,
    }
}

/// The routine that says that a prepared statement's columns have changed (plancache.c).
const STALE_PLAN: &[u8] = b"RevalidateCachedQuery";

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(severity: &str, fields: &[(u8, &str)]) -> Vec<u8> {
        let mut body = Vec::new();
        let named = [(b'S', severity), (b'V', severity), (b'M', "a message")];
        for (kind, value) in named.iter().chain(fields) {
            body.push(*kind);
            body.extend_from_slice(value.as_bytes());
            body.push(0);
        }
        body.push(0);
        let mut answer = b"1\0\0\0\x042\0\0\0\x04".to_vec();
        answer.push(backend::ERROR_RESPONSE);
        answer.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
        answer.extend_from_slice(&body);
        answer
    }

    #[test]
    fn what_only_a_standby_says_is_a_refusal() {
        for (severity, fields, refused) in [
            ("ERROR", &[(b'C', "25006")][..], true),
            ("ERROR", &[(b'C', "40001")], true),
            ("FATAL", &[(b'C', "40001")], false),
            ("ERROR", &[(b'C', "57014"), (b'D', "User query might have needed")], true),
            ("ERROR", &[(b'C', "57014")], false),
            ("ERROR", &[(b'C', "0A000"), (b'R', "get_relation_info")], true),
            ("ERROR", &[(b'C', "0A000"), (b'R', "RevalidateCachedQuery")], false),
            ("ERROR", &[(b'C', "42P01")], false),
        ] {
            assert_eq!(is_refusal(&answer(severity, fields)), refused, "{fields:?}");
        }
        let half = answer("ERROR", &[(b'C', "25006")]);
        assert!(!is_refusal(&half[..half.len() - 1]));
        assert!(!is_refusal(b"Z\0\0\0\x05I"));
    }
}
