//! A client's Bind, Describe, Execute, Close, Sync and Flush.

use pgimbal_config::PoolMode;
use pgimbal_wire::encode::{self, NameKind};
use pgimbal_wire::extended::{Execute, StatementOrPortal};
use pgimbal_wire::frame::Header;

use super::bind::{self, Needed, PLAIN};
use super::statements::{self, write_client_name};
use super::turn::{ClientTurn, Message, Step};
use super::{admission, copy, names};
use crate::recovery::effects::SegmentEffects;
use crate::server::pending::{Origin as MessageOrigin, ParseInFlight, Pending};
use crate::server::prepared::{SERVER_NAME_PREFIX, UnnamedStatement};
use crate::session::state::portals::Rereads;
use crate::session::{Link, Phase};

pub(super) fn describe(turn: &mut ClientTurn<'_>, header: Header) -> Step {
    let (message, target) = turn.view(header, StatementOrPortal::view)?;
    if admission::is_refused(turn, &PLAIN) {
        return Ok(());
    }
    turn.server()?.open_segment();
    match target {
        StatementOrPortal::Portal(_) => turn.forward(message),
        StatementOrPortal::Statement([]) => {
            statements::settled_name(turn, &[])?;
            if bind::need_unnamed(turn)? == Needed::Changed {
                return bind::answer_changed(turn, header, &[]);
            }
            turn.forward(message);
            let serial = turn.session.unnamed_serial;
            turn.server()?.pending_mut().push(Pending::DescribeUnnamed(serial, None));
            return Ok(());
        }
        StatementOrPortal::Statement(name) => {
            statements::settled_name(turn, name)?;
            let mut server_name = Vec::new();
            if bind::need_named(turn, name, None, &mut server_name)? == Needed::Changed {
                return bind::answer_changed(turn, header, name);
            }
            turn.plan.make_for_server(|out| {
                encode::describe(out, NameKind::Statement, &server_name);
            });
            turn.at = message.end();
        }
    }
    turn.server()?.pending_mut().pass();
    Ok(())
}

pub(super) fn execute(turn: &mut ClientTurn<'_>, header: Header) -> Step {
    let (message, execute) = turn.view(header, Execute::view)?;
    turn.effects = SegmentEffects::EXECUTE;
    turn.server()?.open_segment();
    turn.pool.stats_mut().queries += 1;
    let Some((script, reads)) = turn.session.portals.take(execute.portal) else {
        turn.server()?.pending_mut().pass();
        turn.forward(message);
        return Ok(());
    };
    names::take_back_prepared(turn, &script);
    turn.server()?.pending_mut().push(Pending::Execute(Box::new(script)));
    turn.forward(message);
    if reads == Rereads::Perhaps {
        turn.server()?.doubt_readings();
    }
    // What follows depends on it, and the server sends nothing before Sync or Flush.
    turn.plan.make_for_server(encode::flush);
    turn.raise_barrier();
    Ok(())
}

pub(super) fn close(turn: &mut ClientTurn<'_>, header: Header) -> Step {
    let message = turn.held(header, 0)?;
    let target = match StatementOrPortal::view(message.body, message.body_len()) {
        Ok(Some(target)) => target,
        Ok(None) => return Err(turn.hold_more(message)),
        Err(malformed) => return Err(turn.violation(&malformed.to_string())),
    };
    if let StatementOrPortal::Statement(name) = target
        && turn.session.link != Link::Unlinked
    {
        turn.linked(header, message.body.len())?;
        statements::settled_name(turn, name)?;
    }
    match target {
        StatementOrPortal::Statement(name)
            if statements::knows(turn, name)
                && turn.pool.config().pool.mode != PoolMode::Session =>
        {
            close_known(turn, message, name)
        }
        StatementOrPortal::Statement([]) if turn.session.link() == Link::Unlinked => {
            turn.session.set_unnamed(None);
            turn.tell(encode::close_complete);
            turn.at = message.end();
            Ok(())
        }
        StatementOrPortal::Statement(_) | StatementOrPortal::Portal(_) => {
            let message = turn.linked(header, 0)?;
            if target == StatementOrPortal::Statement(&[]) {
                let before = statements::unnamed_before(turn, MessageOrigin::Client, b"");
                turn.session.set_unnamed(None);
                let server = turn.server()?;
                server.set_unnamed(UnnamedStatement::Absent);
                server.pending_mut().push(Pending::Unnamed(MessageOrigin::Client, before));
            } else if let StatementOrPortal::Statement(name) = target
                && name.starts_with(SERVER_NAME_PREFIX)
                && turn.pool.config().pool.mode != PoolMode::Session
            {
                return close_escaped(turn, message, name);
            } else if let StatementOrPortal::Statement(name) = target
                && statements::knows(turn, name)
            {
                let change = Some(statements::rename(turn, name, None));
                let closed = ParseInFlight { statement: None, change, is_probed: false };
                turn.server()?.pending_mut().push(Pending::Parse(Box::new(closed)));
            } else {
                if let StatementOrPortal::Portal(portal) = target {
                    turn.session.portals.close(portal);
                }
                turn.server()?.pending_mut().pass();
            }
            turn.server()?.open_segment();
            turn.forward(message);
            Ok(())
        }
    }
}

/// A name that looks like one of pgimbal's own, which no client can reach.
fn close_escaped(turn: &mut ClientTurn<'_>, message: Message<'_>, name: &[u8]) -> Step {
    let mut escaped = Vec::new();
    write_client_name(name, &mut escaped);
    let server = turn.server()?;
    server.pending_mut().pass();
    server.open_segment();
    turn.plan.make_for_server(|out| encode::close(out, NameKind::Statement, &escaped));
    turn.at = message.end();
    Ok(())
}

/// The statement stays on the server for others; the client is told what it expects.
fn close_known(turn: &mut ClientTurn<'_>, message: Message<'_>, name: &[u8]) -> Step {
    if turn.session.link() == Link::Unlinked {
        statements::rename(turn, name, None);
        turn.tell(encode::close_complete);
        turn.at = message.end();
        return Ok(());
    }
    names::end_temporary_name(turn, name)?;
    let change = statements::rename(turn, name, None);
    let uncached = change.before.as_ref().is_some_and(|statement| statement.body.is_none());
    let statement = change.before.clone();
    let server = turn.server()?;
    match statement.filter(|_| uncached) {
        Some(statement) => {
            server.open_segment();
            // Undone like a Parse, should it be skipped.
            server.pending_mut().push(Pending::Parse(Box::new(ParseInFlight {
                statement: None,
                change: Some(change),
                is_probed: false,
            })));
            let mut server_name = Vec::new();
            statement.write_server_name(&mut server_name);
            turn.plan.make_for_server(|out| encode::close(out, NameKind::Statement, &server_name));
            statements::refresh_statement_pins(turn);
        }
        None => {
            server.pending_mut().push(Pending::Closed(Box::new(change)));
        }
    }
    turn.at = message.end();
    Ok(())
}

pub(super) fn sync(turn: &mut ClientTurn<'_>, header: Header) -> Step {
    if copy::ignored_in_copy(turn, header)? {
        return Ok(());
    }
    if turn.session.phase == Phase::Skipping {
        turn.session.phase = Phase::Open;
    }
    let message = turn.linked(header, 0)?;
    if !turn.session.close_after_sync.is_empty() && statements::has_unread_statements(turn) {
        // What was not made real may be the name of one of those.
        turn.await_replies()?;
    }
    turn.forward(message);
    let probes = std::mem::take(&mut turn.session.close_after_sync);
    let server = turn.server()?;
    server.pending_mut().push(Pending::Sync);
    server.in_flight_mut().ended();
    server.statements_mut().end_segment();
    server.close_segment();
    if !probes.is_empty() {
        server.pending_mut().swallow(probes.len() as u32);
        server.pending_mut().push(Pending::OwnSync);
        server.statements_mut().end_segment();
        turn.plan.make_for_server(|out| {
            for name in &probes {
                encode::close(out, NameKind::Statement, &name.name);
            }
            encode::sync(out);
        });
    }
    if turn.server()?.restore().may_be_due() {
        // What follows runs under the client's own settings, which are brought back first.
        turn.raise_barrier();
    }
    Ok(())
}

pub(super) fn flush(turn: &mut ClientTurn<'_>, header: Header) -> Step {
    if copy::ignored_in_copy(turn, header)? {
        return Ok(());
    }
    let message = turn.linked(header, 0)?;
    turn.forward(message);
    Ok(())
}
