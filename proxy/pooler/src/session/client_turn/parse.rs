//! A client's Parse.

use std::rc::Rc;

use pgimbal_config::PoolMode;
use pgimbal_wire::encode;
use pgimbal_wire::extended::Parse;
use pgimbal_wire::frame::{HEADER_LEN, Header};

use super::statements::{self, write_client_name};
use super::turn::{ClientTurn, Message, Step};
use super::{admission, channels, names, raise, reprepare, room};
use crate::recovery::effects::SegmentEffects;
use crate::server::pending::{
    DescribeInFlight, NameChange, NameFor, Origin as MessageOrigin, ParseInFlight, Pending,
};
use crate::server::prepared::{Statement, Unnamed};
use crate::session::ClientBody;
use crate::session::front::ReadText;
use crate::session::pin::PinReason;
use crate::sql::{Classified, Scanner};

pub(super) fn parse(turn: &mut ClientTurn<'_>, header: Header) -> Step {
    let limit = turn.pool.config().pool.max_statement_bytes;
    let kept = header.total as usize <= limit && room::has_room_for(turn, header.total as usize)?;
    let message = turn.held(header, if kept { header.total as usize } else { 0 })?;
    let view = Parse::view(message.body, message.body_len());
    let text = match view {
        Ok(Some(parse)) if kept && message.is_whole() => Some(parse.text),
        _ => None,
    };
    if admission::is_refused_ahead(turn, text) {
        return Ok(());
    }
    turn.ready_link()?;
    let parse = match view {
        Ok(Some(parse)) => parse,
        Ok(None) => return Err(turn.hold_more(message)),
        Err(malformed) => return Err(turn.violation(&malformed.to_string())),
    };
    statements::settled_name(turn, parse.name)?;
    let mut read = text.map(|text| turn.read(text));
    let step = parse_read(turn, message, parse, &mut read);
    turn.keep_if_waits(message, read);
    step
}

/// A Parse whose text was `read`, unless it is not kept. What was read is taken by what becomes
/// of it.
fn parse_read(
    turn: &mut ClientTurn<'_>,
    message: Message<'_>,
    parse: Parse<'_>,
    read: &mut Option<ReadText>,
) -> Step {
    let total = message.header.total as usize;
    if let Some(known) = read
        && !room::has_room_to_know(turn, total, &known.classified)?
    {
        *read = None;
    }
    let Some(ReadText { classified, .. }) = read else {
        admission::admit_unread(turn)?;
        return parse_admitted(turn, message, parse, read);
    };
    if admission::is_refused(turn, classified) || admission::admit(turn, classified)?.is_refused() {
        return Ok(());
    }
    channels::bring_here(turn, classified, parse.text)?;
    admission::await_facts(turn, classified)?;
    parse_admitted(turn, message, parse, read)
}

fn parse_admitted(
    turn: &mut ClientTurn<'_>,
    message: Message<'_>,
    parse: Parse<'_>,
    read: &mut Option<ReadText>,
) -> Step {
    turn.server()?.open_segment();
    let is_duplicate = !parse.name.is_empty() && statements::knows(turn, parse.name);
    if let Some(ReadText { classified, .. }) = read {
        if !is_duplicate {
            names::name_for_segment(turn, parse.text, classified)?;
        }
        room::note_in_flight(turn, message.header.total as usize + classified.bytes());
        turn.effects = SegmentEffects::of_parse(classified);
    }
    let mut classified = || read.take().map(|read| read.classified);
    if parse.name.is_empty() {
        return parse_unnamed(turn, message, parse, classified());
    }
    if turn.pool.config().pool.mode == PoolMode::Session {
        // Its names are its own from login to reset.
        return parse_in_session_mode(turn, message, parse.name, classified());
    }
    if is_duplicate {
        return parse_duplicate(turn, message, parse);
    }
    names::probe_name(turn, parse)?;
    if read.is_none() || turn.pool.config().pool.max_prepared_statements == 0 {
        return parse_uncached(turn, message, parse);
    }
    room::may_name_another(turn)?;
    reprepare::make_room(turn)?;
    match read.take() {
        Some(read) => parse_named(turn, message, parse, read.classified),
        None => Ok(()),
    }
}

/// The body of a Parse behind its name, where that differs from what the client sent: names of
/// pgimbal's own are out of reach.
fn escaped_body(
    turn: &ClientTurn<'_>,
    parse: Parse<'_>,
    classified: Option<&Classified>,
) -> Option<Vec<u8>> {
    let escaped = names::escape(turn, parse.text, classified?)?;
    Some([&escaped[..], &[0], parse.param_types.unwrap_or(&[0, 0])].concat())
}

fn parse_unnamed(
    turn: &mut ClientTurn<'_>,
    message: Message<'_>,
    parse: Parse<'_>,
    classified: Option<Classified>,
) -> Step {
    let before = statements::unnamed_before(turn, MessageOrigin::Client, parse.text);
    let escaped = escaped_body(turn, parse, classified.as_ref());
    match classified {
        Some(classified) => {
            let reused = turn.session.unnamed.take().map(|before| before.body);
            let mut body = reused.unwrap_or_default();
            body.clear();
            body.extend_from_slice(escaped.as_deref().unwrap_or(&message.body[1..]));
            let class = classified.into();
            turn.session.set_unnamed(Some(Unnamed { body, class, shape: None }));
            if turn.session.pin.has(PinReason::LargeStatement) {
                statements::refresh_statement_pins(turn);
            }
        }
        None => {
            turn.session.set_unnamed(None);
            turn.session.unnamed_is_uncached = true;
            statements::refresh_statement_pins(turn);
        }
    }
    let is_uncached = turn.session.unnamed_is_uncached;
    let owner = turn.session.own_unnamed();
    let server = turn.server()?;
    server.set_unnamed(owner);
    server.pending_mut().push(Pending::Unnamed(MessageOrigin::Client, before));
    match escaped {
        Some(body) => send_body(turn, message, b"", &body),
        None => turn.forward(message),
    }
    if is_uncached {
        classify_uncached(turn, message, parse);
    }
    Ok(())
}

/// In session mode a statement lives under the client's own name on the one server connection;
/// what it does is followed for the sake of RESET, which is to bring startup values back.
fn parse_in_session_mode(
    turn: &mut ClientTurn<'_>,
    message: Message<'_>,
    name: &[u8],
    classified: Option<Classified>,
) -> Step {
    match classified.filter(|classified| !classified.is_plain()) {
        Some(classified) => {
            room::may_name_another(turn)?;
            let statement = Statement::of_session(statements::next_uncached(turn), classified);
            let change = Some(statements::rename(turn, name, Some(Rc::new(statement))));
            let parse = ParseInFlight { statement: None, change, is_probed: false };
            turn.server()?.pending_mut().push(Pending::Parse(Box::new(parse)));
        }
        None => turn.server()?.pending_mut().pass(),
    }
    turn.forward(message);
    Ok(())
}

/// Classifies a text now, or while it passes, because it will not be at hand when it is bound.
fn classify_uncached(turn: &mut ClientTurn<'_>, message: Message<'_>, parse: Parse<'_>) {
    let mut scanner = Box::new(Scanner::new(turn.readings(), turn.calls()));
    scanner.feed(parse.text);
    // Behind name and text there is a NUL each.
    if message.body.len() > parse.rest + parse.text.len() {
        raise::raise_unfollowed(turn, &scanner.finish());
    } else {
        turn.session.body = ClientBody::Text(message.missing(), scanner);
    }
}

/// A text that is kept, and for whose statement there is room: any server can be given it, so
/// its statement can be shared.
fn parse_named(
    turn: &mut ClientTurn<'_>,
    message: Message<'_>,
    parse: Parse<'_>,
    classified: Classified,
) -> Step {
    let escaped = escaped_body(turn, parse, Some(&classified));
    let body = escaped.as_deref().unwrap_or(&message.body[parse.rest..]);
    let settings = statements::parsed_under(turn);
    let changes = turn.pool.shared().database.schema_changes();
    let class = classified.into();
    let statement = turn.tables.statements.parse(body, settings, changes, class);
    if statements::settings_are_known(turn) {
        statements::note_parsed_under(turn, &statement);
    }
    let change = statements::rename(turn, parse.name, Some(Rc::clone(&statement)));
    forward_parse(turn, message, parse, &statement, change, escaped)?;
    // Whether an older statement may be shared instead depends on what the rows look like.
    let mut server_name = Vec::with_capacity(48);
    statement.write_server_name(&mut server_name);
    turn.plan.make_for_server(|out| {
        encode::describe(out, encode::NameKind::Statement, &server_name);
    });
    let describe = DescribeInFlight { name: parse.name.into(), statement, parameters: None };
    turn.server()?.pending_mut().push(Pending::Describe(Box::new(describe)));
    Ok(())
}

fn forward_parse(
    turn: &mut ClientTurn<'_>,
    message: Message<'_>,
    parse: Parse<'_>,
    statement: &Rc<Statement>,
    change: NameChange,
    escaped: Option<Vec<u8>>,
) -> Step {
    // One without a kept text is this session's alone and must not be evicted: it is not
    // listed.
    let listed = statement.body.is_some();
    if listed {
        turn.server()?.statements_mut().insert(statement.id);
    }
    let is_probed = statements::has_unread_statements(turn);
    turn.server()?.pending_mut().push(Pending::Parse(Box::new(ParseInFlight {
        statement: listed.then(|| Rc::clone(statement)),
        change: Some(change),
        is_probed,
    })));
    let mut server_name = Vec::with_capacity(48);
    statement.write_server_name(&mut server_name);
    if let Some(body) = escaped {
        send_body(turn, message, &server_name, &body);
        return Ok(());
    }
    let rest = message.body_len() - parse.rest;
    make_head(turn, pgimbal_wire::tag::frontend::PARSE, &server_name, rest);
    turn.forward_from(message, message.start + HEADER_LEN + parse.rest);
    Ok(())
}

/// Sends a Parse under `name` with this body behind it in place of the client's.
fn send_body(turn: &mut ClientTurn<'_>, message: Message<'_>, name: &[u8], body: &[u8]) {
    turn.plan.make_for_server(|out| {
        encode::message(out, pgimbal_wire::tag::frontend::PARSE, |out| {
            out.extend_from_slice(name);
            out.push(0);
            out.extend_from_slice(body);
        });
    });
    turn.at = message.end();
}

/// A text above the limit lives on this server connection only, and keeps the session there.
fn parse_uncached(turn: &mut ClientTurn<'_>, message: Message<'_>, parse: Parse<'_>) -> Step {
    room::may_name_another(turn)?;
    let statement = Rc::new(Statement::large(statements::next_uncached(turn)));
    let change = statements::rename(turn, parse.name, Some(Rc::clone(&statement)));
    statements::refresh_statement_pins(turn);
    forward_parse(turn, message, parse, &statement, change, None)?;
    classify_uncached(turn, message, parse);
    Ok(())
}

/// A name that is in use already: PostgreSQL itself says so, and rolls back what it must.
fn parse_duplicate(turn: &mut ClientTurn<'_>, message: Message<'_>, parse: Parse<'_>) -> Step {
    let mut name = Vec::with_capacity(parse.name.len());
    write_client_name(parse.name, &mut name);
    let is_temporary = statements::is_temporary(turn, &name);
    if !is_temporary {
        turn.server()?
            .pending_mut()
            .push(Pending::TemporaryName(NameFor::Probe, Some(name.as_slice().into())));
        names::close_later(turn, name.as_slice().into());
        turn.plan.make_for_server(|out| encode::parse(out, &name, b"", &[0, 0]));
    }
    turn.server()?.pending_mut().pass();
    if name == parse.name {
        turn.forward(message);
    } else {
        let rest = message.body_len() - parse.rest;
        make_head(turn, pgimbal_wire::tag::frontend::PARSE, &name, rest);
        turn.forward_from(message, message.start + HEADER_LEN + parse.rest);
    }
    Ok(())
}

/// The header and first name of a message whose other `rest` bytes of body pass as they are.
fn make_head(turn: &mut ClientTurn<'_>, tag: u8, name: &[u8], rest: usize) {
    turn.plan.make_for_server(|out| {
        out.push(tag);
        out.extend_from_slice(&((4 + name.len() + 1 + rest) as u32).to_be_bytes());
        out.extend_from_slice(name);
        out.push(0);
    });
}
