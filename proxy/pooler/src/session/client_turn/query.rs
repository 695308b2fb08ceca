//! A client's simple query.

use pgimbal_config::PoolMode;
use pgimbal_wire::encode;
use pgimbal_wire::frame::Header;

use super::turn::{ClientTurn, Message, Step};
use super::{admission, channels, names, raise, script, statements};
use crate::plan::Body;
use crate::recovery::effects::SegmentEffects;
use crate::server::pending::Pending;
use crate::server::prepared::UnnamedStatement;
use crate::session::effect::Script;
use crate::session::{ClientBody, Phase};
use crate::sql::{Classified, Encoding, Kinds, Scanner};

pub(super) fn query(turn: &mut ClientTurn<'_>, header: Header) -> Step {
    let message = turn.held(header, 0)?;
    if admission::is_refused_ahead(turn, message.query_text()) {
        return Ok(());
    }
    turn.ready_link()?;
    statements::settled_name(turn, &[])?;
    if !message.is_whole() {
        await_segment(turn)?;
        return long_query(turn, message);
    }
    let Some((0, text)) = message.body.split_last() else {
        return Err(turn.violation("invalid string in message"));
    };
    let read = turn.read(text);
    let step = query_read(turn, message, text, &read.classified);
    turn.keep_if_waits(message, Some(read));
    step
}

fn query_read(
    turn: &mut ClientTurn<'_>,
    message: Message<'_>,
    text: &[u8],
    classified: &Classified,
) -> Step {
    await_segment(turn)?;
    if admission::is_refused(turn, classified) || admission::admit(turn, classified)?.is_refused() {
        // Answered in place of the server, as is the rest of its segment.
        return Ok(());
    }
    channels::bring_here(turn, classified, text)?;
    admission::await_facts(turn, classified)?;
    let temporary = names::name_for_query(turn, text, classified)?;
    let escaped = names::escape(turn, text, classified);
    // A PREPARE is followed if its name is closed behind it.
    let script = script::script_of(turn, classified, if temporary.is_empty() { b"" } else { text });
    raise::raise(turn, classified, text);
    turn.effects = SegmentEffects::of_query(classified);
    send_query(turn, message, script, escaped.as_deref());
    names::take_back(turn, temporary);
    Ok(())
}

/// If what is in front of a query in its segment fails, the server skips the query, and all up to a
/// Sync: no Sync of pgimbal's own may come before that.
fn await_segment(turn: &mut ClientTurn<'_>) -> Step {
    if turn.server()?.pending().may_skip() {
        turn.await_replies()?;
    }
    Ok(())
}

/// A FunctionCall is answered as a query is.
pub(super) fn function_call(turn: &mut ClientTurn<'_>, header: Header) -> Step {
    let message = turn.linked(header, 0)?;
    if !is_large_object(message.body) && turn.pool.config().pool.mode != PoolMode::Session {
        // The protocol shows a number; what the function does to the session, nobody can see.
        turn.session.raised.insert(Kinds::ANYTHING);
        turn.doubt_readings();
    }
    let server = turn.server()?;
    server.pending_mut().push(Pending::Query(None));
    server.in_flight_mut().ended();
    server.close_segment();
    turn.pool.stats_mut().queries += 1;
    turn.forward(message);
    Ok(())
}

fn send_query(
    turn: &mut ClientTurn<'_>,
    message: Message<'_>,
    script: Option<Script>,
    text: Option<&[u8]>,
) {
    let is_refused = message.is_whole() && is_refused_as_text(turn, message.body);
    if !is_refused {
        destroy_unnamed(turn);
    }
    let restores = turn.server.as_deref().is_some_and(|server| server.restore().may_be_due());
    // What names mean behind code that may deallocate all, the answer to a question tells.
    let forgets = turn.session.raised.meets(Kinds::STATEMENTS);
    if script.is_some() || restores || forgets {
        turn.session.phase = Phase::Barrier;
    }
    if let Some(server) = turn.server.as_deref_mut() {
        if !is_refused {
            server.set_unnamed(UnnamedStatement::Absent);
        }
        server.pending_mut().push(Pending::Query(script.map(Box::new)));
        server.in_flight_mut().ended();
        // Its own end settles what came before it, too.
        server.close_segment();
    }
    turn.pool.stats_mut().queries += 1;
    match text {
        Some(text) => {
            turn.plan.make_for_server(|out| encode::query(out, text));
            turn.at = message.end();
        }
        None => turn.forward(message),
    }
}

/// A simple query destroys the unnamed statement.
fn destroy_unnamed(turn: &mut ClientTurn<'_>) {
    let was_uncached = turn.session.unnamed_is_uncached;
    turn.session.set_unnamed(None);
    if was_uncached {
        statements::refresh_statement_pins(turn);
    }
}

/// Whether the server refuses a text before it does anything, since it is not UTF-8.
fn is_refused_as_text(turn: &ClientTurn<'_>, text: &[u8]) -> bool {
    turn.session.reading.encoding == Encoding::Utf8
        && !text.is_ascii()
        && std::str::from_utf8(text).is_err()
}

/// A text above the limit passes while it is classified; nothing of it can be refused any more.
fn long_query(turn: &mut ClientTurn<'_>, message: Message<'_>) -> Step {
    admission::admit_unread(turn)?;
    let mut scanner = Box::new(Scanner::new(turn.readings(), turn.calls()));
    scanner.feed(message.body);
    send_query(turn, message, None, None);
    turn.session.body = ClientBody::Text(message.missing(), scanner);
    Ok(())
}

/// The end of a long text has passed; so many bytes of its message are to come.
pub(super) fn long_text_ended(turn: &mut ClientTurn<'_>, left: u32) {
    let rest = if left > 0 { Body::Forward(left) } else { Body::None };
    let body = std::mem::replace(&mut turn.session.body, ClientBody::Plain(rest));
    if let ClientBody::Text(_, mut scanner) = body {
        let classified = scanner.finish();
        raise::raise_unfollowed(turn, &classified);
    }
}

/// Whether a FunctionCall is one of the large-object functions that drivers call so: they are bound
/// to the transaction. OIDs of built-in functions never change (pg_proc.dat).
fn is_large_object(body: &[u8]) -> bool {
    let Some(oid) = body.first_chunk::<4>() else { return true };
    matches!(
        u32::from_be_bytes(*oid),
        715 | 764 | 945 | 952..=958 | 964 | 1004 | 3170..=3172 | 3457..=3460
    )
}
