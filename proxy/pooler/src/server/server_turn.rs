//! One step on what a server sent: which replies pass, what they settle, when it is free again.

mod catalog;
mod errors;
mod own_query;
mod ready;
pub(crate) mod replies;
mod turn;

use std::time::Instant;

use pgimbal_wire::error::{ErrorFields, Severity, SqlState};
use pgimbal_wire::frame::{self, HEADER_LEN, Header};
use pgimbal_wire::tag::backend;

use self::turn::{Forwarding, Freed, Halt, ServerTurn};
use crate::core::Core;
use crate::ids::ServerId;
use crate::plan::{Body, HOLD_LIMIT, Plan, Processed, Stop};
use crate::recovery::in_flight::Progress;
use crate::recovery::refused;
use crate::server::pending::{OwnQuery, Owner, Pending};
use crate::session::Session;
use crate::session::client_turn::turn::emit_made;
use crate::session::routing::Routing;
use crate::session::sessions::Sessions;

/// The longest message that is processed by its whole body: a reported setting. Rows, notices and
/// errors of any length stream.
const LONGEST_PARAMETER_STATUS: usize = 1024 * 1024;

pub(crate) fn process(
    core: &mut Core,
    id: ServerId,
    now: Instant,
    buf: &[u8],
    plan: &mut Plan,
) -> Processed {
    let Some(server) = core.servers.get_mut(id) else {
        return Processed { taken: buf.len() as u32, stop: Stop::Drained };
    };
    let pool = &mut core.pools[server.pool];
    let linked = server.session().map_or(Owner::PGIMBAL, Owner::of);
    let (mut whose, mut at, mut freed, mut idle, mut ready_due) =
        (linked, 0, Freed::No, false, false);
    let stop = loop {
        let session = whose.session().and_then(|id| core.sessions.get_mut(id));
        let mut turn = ServerTurn {
            server: &mut *server,
            session,
            whose,
            linked,
            pool: &mut *pool,
            tables: &mut core.tables,
            now,
            buf,
            at,
            plan: &mut *plan,
            freed,
            idle,
            ready_due,
        };
        match run(&mut turn) {
            Halt::Stop(stop) => {
                at = turn.at;
                break stop;
            }
            Halt::TurnTo(owner) => {
                (at, freed, idle, ready_due) = (turn.at, turn.freed, turn.idle, turn.ready_due);
                whose = owner;
            }
        }
    };
    let stop = match stop {
        Stop::Checkin if has_refused(&core.sessions, linked) => Stop::Again,
        stop => stop,
    };
    pool.stats_mut().server_bytes_in += at as u64;
    pool.stats_mut().server_bytes_out += plan.to_server().bytes();
    pool.stats_mut().client_bytes_out += plan.bytes_to_sessions();
    Processed { taken: at as u32, stop }
}

/// Whether the server connection has refused what its session has sent, which is to run elsewhere.
fn has_refused(sessions: &Sessions, linked: Owner) -> bool {
    let session = linked.session().and_then(|id| sessions.get(id));
    session.and_then(Session::routing).is_some_and(Routing::is_refused)
}

/// What the messages mean that a server connection has sent while no session had it, from
/// `Pooler::handle_idle_bytes`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdleMessages {
    /// Only notices, notifications and reported settings have come, which took this many bytes; the
    /// connection may be used. Reported settings were noted. The rest is the beginning of a
    /// message: the driver keeps it in front of what comes next. 0 if no message is complete.
    Harmless(u32),
    /// An error or an unexpected message has come, or the connection is gone already: it must not
    /// be used, and the driver calls `Pooler::handle_server_gone`. The body of an ErrorResponse is
    /// kept for whoever is told of the loss.
    Dead,
}

/// Processes what came from a server connection while it was idle. A FATAL is kept as its last
/// words.
pub(crate) fn process_idle(core: &mut Core, id: ServerId, buf: &[u8]) -> IdleMessages {
    let Some(server) = core.servers.get_mut(id) else { return IdleMessages::Dead };
    let mut at = 0;
    loop {
        let rest = &buf[at..];
        let Ok(header) = frame::peek(rest) else { return IdleMessages::Dead };
        let Some(header) = header.filter(|header| header.total as usize <= rest.len()) else {
            return IdleMessages::Harmless(at as u32);
        };
        let body = &rest[HEADER_LEN..header.total as usize];
        match header.tag {
            backend::NOTICE_RESPONSE | backend::NOTIFICATION_RESPONSE => {}
            backend::PARAMETER_STATUS => {
                let mut parts = body.split(|&byte| byte == 0);
                let (Some(name), Some(value)) = (parts.next(), parts.next()) else {
                    return IdleMessages::Dead;
                };
                replies::note_reported(server, &mut core.tables, name, value);
            }
            backend::ERROR_RESPONSE => {
                server.shutdown_notice = Some(body.into());
                return IdleMessages::Dead;
            }
            _ => return IdleMessages::Dead,
        }
        at += header.total as usize;
    }
}

fn run(turn: &mut ServerTurn<'_>) -> Halt {
    let begins = turn.at == 0 && turn.is_linked();
    if begins && turn.pool.outlives_server() && dies_unanswered(turn) {
        return Stop::Fault.into();
    }
    if begins && let Some(session) = turn.session.as_deref_mut().filter(|s| s.reads_elsewhere()) {
        refused::look_for_refusal(session, turn.server, turn.buf);
    }
    if std::mem::take(&mut turn.ready_due) {
        ready::settle_idle(turn);
        ready::settle_channels(turn);
        if let Err(stop) = ready::after_ready(turn) {
            return stop.into();
        }
    }
    loop {
        if let Err(halt) = step(turn) {
            return halt;
        }
    }
}

/// Whether the server takes its leave in what has come before it has answered anything: then
/// nothing of it is forwarded, so that the statement can be run again.
fn dies_unanswered(turn: &mut ServerTurn<'_>) -> bool {
    const READY: [u8; 5] = *b"Z\0\0\0\x05";
    let answers = turn.buf.len() >= 6 && turn.buf[turn.buf.len() - 6..].starts_with(&READY);
    if answers
        || turn.session.is_none()
        || turn.server.body != Body::None
        || turn.server.in_flight.progress() != Progress::Unanswered
    {
        return false;
    }
    let (mut at, mut completed) = (turn.at, false);
    while let Ok(Some(header)) = frame::peek(&turn.buf[at..]) {
        let Some(body) = turn.buf.get(at + HEADER_LEN..at + header.total as usize) else {
            return false;
        };
        match header.tag {
            backend::READY_FOR_QUERY => return false,
            backend::COMMAND_COMPLETE => completed = true,
            backend::NOTICE_RESPONSE if is_last_notice(body) => return true,
            backend::ERROR_RESPONSE => {
                let fatal = ErrorFields::parse(body)
                    .is_ok_and(|error| matches!(error.severity, Severity::Fatal | Severity::Panic));
                if fatal && !completed {
                    turn.server.shutdown_notice = Some(body.into());
                }
                return fatal;
            }
            _ => {}
        }
        at += header.total as usize;
    }
    false
}

fn step(turn: &mut ServerTurn<'_>) -> Result<(), Halt> {
    if turn.server.body != Body::None {
        stream_body(turn)?;
        emit_made(turn.server, turn.plan);
        return Ok(());
    }
    let rest = &turn.buf[turn.at..];
    let header = match frame::peek(rest) {
        Ok(Some(header)) => header,
        Ok(None) if rest.is_empty() => return Err(Stop::Drained.into()),
        Ok(None) => return Err(Stop::Need(HEADER_LEN as u32).into()),
        Err(_) => return Err(Stop::Fault.into()),
    };
    let total = header.total as usize;
    let wanted = match header.tag {
        backend::PARAMETER_STATUS if total > LONGEST_PARAMETER_STATUS => {
            return Err(Stop::Fault.into());
        }
        backend::PARAMETER_STATUS => total,
        _ => total.min(HOLD_LIMIT),
    };
    if rest.len() < wanted {
        return Err(Stop::Need(wanted as u32).into());
    }
    let body = &rest[HEADER_LEN..total.min(rest.len())];
    let start = turn.at;
    turn.turn_to(addressee(turn, header.tag))?;
    let fate = match message(turn, header, body)? {
        Forwarding::Pass if is_refused(turn, header.tag) => Forwarding::Swallow,
        fate => fate,
    };
    turn.at = start;
    take(turn, header, fate);
    emit_made(turn.server, turn.plan);
    if header.tag == backend::READY_FOR_QUERY {
        turn.ready_due = true;
        turn.turn_to(turn.linked)?;
        turn.ready_due = false;
        ready::after_ready(turn)?;
    }
    Ok(())
}

/// Whether a message belongs to an answer by which a replica refuses a segment, which is run again
/// on the primary.
#[inline]
fn is_refused(turn: &ServerTurn<'_>, tag: u8) -> bool {
    let routing = turn.session.as_deref().and_then(|session| session.routing());
    routing.is_some_and(|routing| routing.is_refused()) && tag != backend::PARAMETER_STATUS
}

/// Whom a message is for: whoever awaits the next reply; what is no reply, and what comes when
/// none is pending, is for the session that is linked. A notice is that of what runs.
#[inline]
fn addressee(turn: &ServerTurn<'_>, tag: u8) -> Owner {
    match tag {
        backend::NOTIFICATION_RESPONSE | backend::PARAMETER_STATUS => turn.linked,
        _ => turn.server.pending.front_owner().unwrap_or(turn.linked),
    }
}

/// Decides one message, of which `body` is what has arrived.
fn message(turn: &mut ServerTurn<'_>, header: Header, body: &[u8]) -> Result<Forwarding, Stop> {
    match header.tag {
        backend::DATA_ROW if turn.server.asking.is_some() => Ok(answer_row(turn, body)),
        backend::DATA_ROW if turn.server.catalog.is_some() => Ok(catalog::row(turn, body)),
        backend::DATA_ROW | backend::COPY_DATA | backend::COPY_DONE => Ok(turn.rows()),
        backend::ROW_DESCRIPTION if turn.answers_query() => Ok(turn.rows()),
        backend::COMMAND_COMPLETE => replies::command_complete(turn, body),
        backend::READY_FOR_QUERY => ready::ready(turn, body),
        backend::ROW_DESCRIPTION
        | backend::NO_DATA
        | backend::PARSE_COMPLETE
        | backend::BIND_COMPLETE
        | backend::CLOSE_COMPLETE
        | backend::PORTAL_SUSPENDED
        | backend::EMPTY_QUERY_RESPONSE => replies::reply(turn, header.tag, body),
        backend::PARAMETER_DESCRIPTION => Ok(replies::parameter_description(turn, header, body)),
        backend::FUNCTION_CALL_RESPONSE => Ok(turn.rows()),
        backend::COPY_IN_RESPONSE => {
            let begun = turn.server.pending.copy_begins();
            turn.server.copy_in = !begun.ended;
            turn.server.since_ready.segment_open |= begun.lost_sync;
            Ok(turn.rows())
        }
        backend::COPY_OUT_RESPONSE | backend::COPY_BOTH_RESPONSE => Ok(turn.rows()),
        backend::ERROR_RESPONSE => errors::error(turn, body),
        backend::NOTICE_RESPONSE if is_last_notice(body) => Ok(Forwarding::Swallow),
        backend::NOTIFICATION_RESPONSE if comes_otherwise(turn, body) => Ok(Forwarding::Swallow),
        backend::NOTICE_RESPONSE | backend::NOTIFICATION_RESPONSE => {
            Ok(asynchronous(turn, header.tag))
        }
        backend::PARAMETER_STATUS => replies::parameter_status(turn, body),
        _ => Err(Stop::Fault),
    }
}

/// Whether a notification, of which `body` is what has arrived, reaches the session over the
/// connection that listens for it and for others.
fn comes_otherwise(turn: &ServerTurn<'_>, body: &[u8]) -> bool {
    // The sender's process id stands in front of the channel's name.
    let name = body.get(4..).and_then(|named| named.split(|&byte| byte == 0).next());
    let session = turn.session.as_deref().filter(|session| session.channels().is_any());
    session.zip(name).is_some_and(|(session, name)| session.channels().carries(name))
}

/// What the server says on its own account passes to whoever is linked, unless the proxy's own
/// query caused it.
fn asynchronous(turn: &ServerTurn<'_>, tag: u8) -> Forwarding {
    match turn.server.pending.front() {
        // What was notified while the server was asked is the client's.
        Some(Pending::Own(OwnQuery::Question))
            if tag == backend::NOTIFICATION_RESPONSE && turn.session.is_some() =>
        {
            Forwarding::Pass
        }
        _ if tag == backend::NOTICE_RESPONSE && turn.server.pending.is_proxys_own() => {
            Forwarding::Swallow
        }
        Some(Pending::Own(_)) => Forwarding::Swallow,
        _ if turn.session.is_some() => Forwarding::Pass,
        _ => Forwarding::Swallow,
    }
}

/// A row of the answer to a question, or of what runs before it.
fn answer_row(turn: &mut ServerTurn<'_>, body: &[u8]) -> Forwarding {
    if matches!(turn.answers_own(), Some(OwnQuery::Question | OwnQuery::Facts))
        && let Some((asking, _)) = &mut turn.server.asking
    {
        asking.row(body);
    }
    turn.rows()
}

/// Takes a processed message off the buffer; the rest of a long one shares its fate.
fn take(turn: &mut ServerTurn<'_>, header: Header, fate: Forwarding) {
    let have = (header.total as usize).min(turn.buf.len() - turn.at);
    let missing = header.total - have as u32;
    match fate {
        Forwarding::Pass => {
            if begins_answer(header.tag) && turn.is_linked() {
                turn.server.in_flight.answered();
            }
            match replies::own_notification(turn, header) {
                Some(process_id) => replies::renamed_notification(turn, process_id, have),
                None => turn.pass(turn.at, turn.at + have),
            }
        }
        Forwarding::Swallow => {}
    }
    if missing > 0 {
        turn.server.body_of = turn.whose;
        turn.server.body = match fate {
            Forwarding::Pass => Body::Forward(missing),
            Forwarding::Swallow => Body::Drop(missing),
        };
    }
    turn.at += have;
}

fn stream_body(turn: &mut ServerTurn<'_>) -> Result<(), Halt> {
    let have = turn.buf.len() - turn.at;
    if have == 0 {
        return Err(Stop::Drained.into());
    }
    turn.turn_to(turn.server.body_of)?;
    let (Body::Forward(missing) | Body::Drop(missing)) = turn.server.body else {
        return Ok(());
    };
    let taken = have.min(missing as usize);
    let left = missing - taken as u32;
    if matches!(turn.server.body, Body::Forward(_)) {
        turn.pass(turn.at, turn.at + taken);
    }
    turn.server.body = match turn.server.body {
        _ if left == 0 => Body::None,
        Body::Forward(_) => Body::Forward(left),
        _ => Body::Drop(left),
    };
    turn.at += taken;
    Ok(())
}

/// Whether a notice says that the server goes down: it proves nothing of what was running (a row
/// may be committed behind it), and the client is told what is known when the connection ends.
fn is_last_notice(body: &[u8]) -> bool {
    ErrorFields::parse(body).is_ok_and(|notice| {
        notice.code == SqlState::ADMIN_SHUTDOWN || notice.code == SqlState::CRASH_SHUTDOWN
    })
}

/// Whether a message is a part of an answer that is not complete by it.
const fn begins_answer(tag: u8) -> bool {
    !matches!(
        tag,
        backend::NOTICE_RESPONSE
            | backend::NOTIFICATION_RESPONSE
            | backend::PARAMETER_STATUS
            | backend::READY_FOR_QUERY
    )
}

#[cfg(test)]
mod tests;
