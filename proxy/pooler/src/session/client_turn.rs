//! One step on what a client sent: framing, linking, and which message is processed where.

mod aborted;
mod admission;
mod bind;
mod channels;
mod copy;
mod extended;
mod names;
mod older_settings;
mod parse;
mod query;
mod raise;
mod reprepare;
mod restore;
mod room;
mod script;
pub(crate) mod segment;
pub(crate) mod statements;
pub(crate) mod turn;
mod values;

use std::time::Instant;

use pgimbal_wire::encode::{self, TransactionStatus};
use pgimbal_wire::frame::{self, HEADER_LEN, Header};
use pgimbal_wire::tag::frontend;

use self::turn::{ClientTurn, Step, emit_made};
use crate::core::Core;
use crate::ids::SessionId;
use crate::plan::{Body, Plan, Processed, Stop};
use crate::recovery::effects::SegmentEffects;
use crate::recovery::proof::Rerun;
use crate::recovery::{in_flight, rerun};
use crate::server::pending::Owner;
use crate::session::front::FrontMessage;
use crate::session::state::books::{Asked, Books};
use crate::session::{ClientBody, Link, Phase, Trial, arrival, drain, setup};

pub(crate) fn process(
    core: &mut Core,
    id: SessionId,
    now: Instant,
    buf: &[u8],
    plan: &mut Plan,
) -> Processed {
    if drain::goes_at_the_door(core, id, now, buf) {
        return Processed { taken: 0, stop: Stop::Wait };
    }
    let Some(session) = core.sessions.get_mut(id) else {
        return Processed { taken: 0, stop: Stop::Fault };
    };
    let mut server = session.link.server().and_then(|server| core.servers.get_mut(server));
    if let Some(server) = &mut server {
        server.pending_mut().add_for(Owner::of(id));
    }
    let pool = &mut core.pools[session.pool];
    let tables = &mut core.tables;
    let effects = SegmentEffects::NONE;
    run(&mut ClientTurn { session, server, pool, tables, now, buf, at: 0, plan, effects })
}

fn run(turn: &mut ClientTurn<'_>) -> Processed {
    if turn.session.trial == Trial::Due {
        let stop = try_settings(turn);
        return Processed { taken: 0, stop };
    }
    let stop = loop {
        let from = turn.at;
        let begins = turn.session.between_messages();
        if let Err(stop) = step(turn) {
            break stop;
        }
        if begins {
            note_sent(turn, from);
        }
        if turn.at != from {
            turn.session.front = FrontMessage::Unread;
            if begins {
                segment::taken(turn.session, turn.buf[from]);
            }
        }
    };
    if let Some(server) = turn.server.as_deref_mut() {
        emit_made(server, turn.plan);
    }
    let stop = released(turn, stop);
    let stats = &mut turn.pool.stats_mut();
    stats.client_bytes_in += turn.at as u64;
    stats.server_bytes_out += turn.plan.to_server().bytes();
    stats.client_bytes_out += turn.plan.bytes_to_sessions();
    Processed { taken: turn.at as u32, stop }
}

/// One step of a session whose settings a server is to check.
fn try_settings(turn: &mut ClientTurn<'_>) -> Stop {
    if let Some(error) = turn.session.aborted.take().and_then(|aborted| aborted.into_error()) {
        // There is no server to check them.
        arrival::refuse_login(turn.session, turn.pool, &error);
        return Stop::Wait;
    }
    match turn.session.link {
        Link::Unlinked => Stop::Checkout,
        Link::Fresh(_) => match turn.enter() {
            Err(stop) => stop,
            Ok(()) => {
                let ClientTurn { session, server, pool, tables, now, plan, .. } = turn;
                if let Some(server) = server.as_deref_mut() {
                    arrival::greet_tried(session, server, pool, tables, *now, plan);
                }
                released(turn, Stop::Drained)
            }
        },
        _ => Stop::Wait,
    }
}

/// Keeps the message that was taken since `from` for the case that the server connection breaks,
/// and ends the transaction around a segment that is run again. Of a message that streams only the
/// beginning is noted: the bytes that follow say nothing, whatever they begin with.
fn note_sent(turn: &mut ClientTurn<'_>, from: usize) {
    let effects = std::mem::take(&mut turn.effects);
    let Some(server) = turn.server.as_deref_mut() else { return };
    if !matches!(turn.session.link, Link::Ready(_)) || turn.session.aborted.is_some() {
        return;
    }
    let taken = turn.buf.get(from..turn.at).filter(|taken| !taken.is_empty());
    let Some(message) = taken else { return };
    let passes = !turn.session.between_messages();
    server.in_flight_mut().sent(message[0], message, passes, effects);
    if matches!(turn.session.rerun, Rerun::Running(_)) && in_flight::is_end(message[0]) {
        rerun::end(server, turn.plan);
        turn.session.phase = Phase::Barrier;
    }
}

/// A turn that left nothing for the server to do gives the server back, once it has said what
/// the session has left on it.
pub(crate) fn released(turn: &mut ClientTurn<'_>, stop: Stop) -> Stop {
    let Some(server) = turn.server.as_deref_mut() else { return stop };
    let idle = matches!(stop, Stop::Drained | Stop::Need(_))
        && setup::is_between(turn.session, server)
        && turn.session.aborted.is_none();
    if !idle {
        let refused = matches!(stop, Stop::Drained | Stop::Need(_))
            && setup::may_release(turn.session, server, turn.pool);
        return if refused { Stop::Checkin } else { stop };
    }
    let (session, pool, tables) = (&mut *turn.session, &mut *turn.pool, &mut *turn.tables);
    let mut books = Books { session, server, pool, tables, now: turn.now };
    if books.ask(turn.plan) == Asked::Sent {
        return stop;
    }
    match setup::may_release(turn.session, server, turn.pool) {
        true => Stop::Checkin,
        false => stop,
    }
}

/// Processes the rest of a streaming message or one message.
fn step(turn: &mut ClientTurn<'_>) -> Step {
    if !turn.session.between_messages() {
        return stream_body(turn);
    }
    let header = match frame::peek(&turn.buf[turn.at..]) {
        Ok(Some(header)) => header,
        Ok(None) if turn.at == turn.buf.len() => return Err(Stop::Drained),
        Ok(None) => return Err(Stop::Need(HEADER_LEN as u32)),
        Err(bad) => return Err(turn.violation(&bad.to_string())),
    };
    match header.tag {
        frontend::SYNC | frontend::FLUSH | frontend::TERMINATE | frontend::COPY_DONE
            if header.body_len() != 0 =>
        {
            Err(turn.violation("invalid message format"))
        }
        frontend::TERMINATE => {
            turn.at += (header.total as usize).min(turn.buf.len() - turn.at);
            Err(Stop::Terminate)
        }
        _ if turn.session.aborted.is_some() => aborted::process(turn, header),
        _ if turn.session.phase == Phase::Skipping && header.tag != frontend::SYNC => {
            turn.drop_message(header);
            Ok(())
        }
        frontend::COPY_DATA | frontend::COPY_DONE | frontend::COPY_FAIL => copy::copy(turn, header),
        frontend::SYNC | frontend::FLUSH if turn.session.link == Link::Unlinked => {
            unlinked_sync(turn, header);
            Ok(())
        }
        _ => {
            segment::place(turn, header)?;
            served(turn, header)
        }
    }
}

/// Processes one message for which there is a server connection, or one is chosen.
fn served(turn: &mut ClientTurn<'_>, header: Header) -> Step {
    match header.tag {
        frontend::QUERY => query::query(turn, header),
        frontend::PARSE => parse::parse(turn, header),
        frontend::BIND => bind::bind(turn, header),
        frontend::DESCRIBE => extended::describe(turn, header),
        frontend::EXECUTE => extended::execute(turn, header),
        frontend::CLOSE => extended::close(turn, header),
        frontend::SYNC => extended::sync(turn, header),
        frontend::FLUSH => extended::flush(turn, header),
        frontend::FUNCTION_CALL => query::function_call(turn, header),
        tag => Err(turn.violation(&format!("invalid frontend message type {tag}"))),
    }
}

fn stream_body(turn: &mut ClientTurn<'_>) -> Step {
    let have = turn.buf.len() - turn.at;
    if have == 0 {
        return Err(Stop::Drained);
    }
    let from = turn.at;
    match &mut turn.session.body {
        ClientBody::Plain(Body::None) => {}
        ClientBody::Plain(Body::Forward(missing)) => {
            let taken = have.min(*missing as usize);
            *missing -= taken as u32;
            turn.at += taken;
            turn.plan.span_to_server(from, from + taken);
            if *missing == 0 {
                turn.session.body = ClientBody::Plain(Body::None);
            }
        }
        ClientBody::Plain(Body::Drop(missing)) => {
            let taken = have.min(*missing as usize);
            *missing -= taken as u32;
            turn.at += taken;
            if *missing == 0 {
                turn.session.body = ClientBody::Plain(Body::None);
            }
        }
        ClientBody::Text(missing, scanner) => {
            let taken = have.min(*missing as usize);
            *missing -= taken as u32;
            let left = *missing;
            turn.at += taken;
            turn.plan.span_to_server(from, from + taken);
            let text = &turn.buf[from..from + taken];
            let end = text.iter().position(|&byte| byte == 0);
            scanner.feed(&text[..end.unwrap_or(taken)]);
            if end.is_some() || left == 0 {
                query::long_text_ended(turn, left);
            }
        }
    }
    Ok(())
}

/// Sync or Flush of a client that needs no server connection for it.
fn unlinked_sync(turn: &mut ClientTurn<'_>, header: Header) {
    turn.drop_message(header);
    if header.tag == frontend::SYNC {
        turn.session.phase = Phase::Open;
        turn.tell(|out| encode::ready_for_query(out, TransactionStatus::Idle));
    }
}

#[cfg(test)]
mod tests;
