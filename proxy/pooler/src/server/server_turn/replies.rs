//! The replies before ReadyForQuery: what each settles.

use std::rc::Rc;

use pgimbal_wire::frame::{HEADER_LEN, Header};
use pgimbal_wire::tag::backend;

use super::turn::{Forwarding, ServerTurn};
use crate::cluster::consistency;
use crate::plan::{HOLD_LIMIT, Stop};
use crate::pool::Place;
use crate::server::Server;
use crate::server::pending::{DescribeInFlight, OwnQuery, Pending, Reply};
use crate::server::prepared::{Shape, UnnamedStatement};
use crate::session::writing::Wrote;
use crate::session::{Link, setup};
use crate::sql::Step;
use crate::tables::Tables;
use crate::topology::ProbeHint;

/// CommandComplete: the last reply of an Execute, or one of a query's.
pub(super) fn command_complete(turn: &mut ServerTurn<'_>, body: &[u8]) -> Result<Forwarding, Stop> {
    turn.server.copy_in = false;
    if turn.is_linked() {
        turn.server.in_flight.completed();
    }
    if turn.pool.place() != Place::Primary
        && has_written(body)
        && let Some(session) = turn.session.as_deref_mut()
    {
        // No standby does that: the node was promoted under the session.
        session.writing_mut().set(Wrote::Surely);
    }
    // The client, and who hears of it from there, may read before the ReadyForQuery.
    if body.starts_with(b"COMMIT") {
        consistency::note_written(turn.session.as_deref_mut(), turn.pool, turn.now);
    }
    match turn.server.pending.front_mut() {
        Some(Pending::Query(None)) => Ok(Forwarding::Pass),
        Some(Pending::Query(Some(script))) => {
            if let Some(step) = script.next_step() {
                let text = script.prepared_text().map(<[u8]>::to_vec);
                done(turn, &step, text.as_deref(), tag_of(body));
            } else {
                // More was answered than was read.
                done(turn, &Step::UNREADABLE, None, None);
            }
            Ok(Forwarding::Pass)
        }
        Some(Pending::Own(OwnQuery::Question | OwnQuery::Facts)) => {
            if let Some((asking, _)) = &mut turn.server.asking {
                asking.completed();
            }
            Ok(Forwarding::Swallow)
        }
        Some(Pending::Own(_)) => Ok(Forwarding::Swallow),
        _ => reply(turn, backend::COMMAND_COMPLETE, body),
    }
}

/// Whether this is the tag of a statement that writes.
fn has_written(tag: &[u8]) -> bool {
    const WRITE: [&[u8]; 8] =
        [b"INSERT", b"UPDATE", b"DELETE", b"MERGE", b"TRUNCATE", b"CREATE", b"ALTER", b"DROP"];
    WRITE.iter().any(|word| tag.starts_with(word))
}

/// The last reply to a message of the extended protocol.
pub(super) fn reply(turn: &mut ServerTurn<'_>, tag: u8, body: &[u8]) -> Result<Forwarding, Stop> {
    // EmptyQueryResponse also answers simple queries.
    if turn.answers_query() {
        return Ok(turn.rows());
    }
    match turn.server.pending.take_reply() {
        Some(Reply::Pass) => Ok(Forwarding::Pass),
        Some(Reply::Swallow) => Ok(Forwarding::Swallow),
        Some(Reply::Evict(id)) => {
            turn.server.statements.left(*id);
            Ok(Forwarding::Swallow)
        }
        Some(Reply::TemporaryName(name)) => {
            made(turn, &name);
            Ok(Forwarding::Swallow)
        }
        Some(Reply::Parse(parse)) => {
            if let Some(statement) = &parse.statement {
                turn.server.statements.arrived(statement.id);
            }
            Ok(if parse.change.is_some() { Forwarding::Pass } else { Forwarding::Swallow })
        }
        Some(Reply::Describe(describe)) => {
            described(turn, *describe, tag, body);
            Ok(Forwarding::Swallow)
        }
        Some(Reply::ShapeCheck(check)) => {
            shape_checked(turn, *check, tag, body);
            Ok(Forwarding::Swallow)
        }
        Some(Reply::DescribeUnnamed(serial, parameters)) => {
            unnamed_described(turn, serial, parameters, tag, body);
            Ok(Forwarding::Pass)
        }
        Some(Reply::UnnamedCheck(serial, parameters)) => {
            unnamed_checked(turn, serial, parameters, tag, body);
            Ok(Forwarding::Swallow)
        }
        Some(Reply::Execute(mut script)) => {
            let tag = match tag {
                backend::COMMAND_COMPLETE => tag_of(body),
                backend::PORTAL_SUSPENDED => None,
                // EmptyQueryResponse.
                _ => Some(&b""[..]),
            };
            if let Some(step) = script.next_step() {
                let text = script.prepared_text().map(<[u8]>::to_vec);
                done(turn, &step, text.as_deref(), tag);
            }
            Ok(Forwarding::Pass)
        }
        None => Err(Stop::Fault),
    }
}

/// A name of the client's is real until it is closed behind Sync.
fn made(turn: &mut ServerTurn<'_>, name: &[u8]) {
    if let Some(session) = turn.session.as_deref_mut() {
        session.note_made(name);
    }
}

/// ParameterDescription: the first of the two replies to a Describe of a statement.
pub(super) fn parameter_description(
    turn: &mut ServerTurn<'_>,
    header: Header,
    body: &[u8],
) -> Forwarding {
    let whole = body.len() == header.body_len() as usize;
    let types = || whole.then(|| Box::from(body));
    match turn.server.pending.front_mut() {
        Some(Pending::Describe(describe) | Pending::ShapeCheck(describe)) => {
            describe.parameters = types();
        }
        Some(Pending::DescribeUnnamed(_, parameters) | Pending::UnnamedCheck(_, parameters)) => {
            *parameters = types();
        }
        _ => {}
    }
    turn.rows()
}

/// What a statement looks like; `None` if it has more parameters than are kept.
fn shape(
    turn: &ServerTurn<'_>,
    parameters: Option<Box<[u8]>>,
    tag: u8,
    body: &[u8],
) -> Option<Shape> {
    // Of an enormous description its beginning must do; it has thousands of columns then.
    let seen = &body[..body.len().min(HOLD_LIMIT - HEADER_LEN)];
    let description = (tag == backend::ROW_DESCRIPTION).then_some(seen);
    Some(Shape { parameters: parameters?, rows: turn.tables.statements.rows(description) })
}

/// What a statement looks like is known: the client may share another's from now on.
fn described(turn: &mut ServerTurn<'_>, describe: DescribeInFlight, tag: u8, body: &[u8]) {
    let DescribeInFlight { name, statement, parameters } = describe;
    let Some(shape) = shape(turn, parameters, tag, body) else { return };
    let Some(newest) = turn.tables.statements.described(&statement, shape) else { return };
    turn.pool.stats_mut().parses_shared += 1;
    turn.server.surplus.push(statement.id);
    let names = turn.session.as_deref_mut().and_then(|session| session.statements_mut());
    if let Some(names) = names
        && names.get(&name).is_some_and(|own| Rc::ptr_eq(own, &statement))
    {
        names.set(&name, Some(newest));
    }
}

/// Whether a statement that was reprepared no longer looks as its client was told.
fn has_changed(
    turn: &ServerTurn<'_>,
    told: Option<&Shape>,
    parameters: Option<Box<[u8]>>,
    tag: u8,
    body: &[u8],
) -> bool {
    let shape = shape(turn, parameters, tag, body);
    shape.is_some() && told != shape.as_ref()
}

fn shape_checked(turn: &mut ServerTurn<'_>, check: DescribeInFlight, tag: u8, body: &[u8]) {
    let told = check.statement.shape.get();
    let changed = has_changed(turn, told, check.parameters, tag, body);
    if let Some(session) = turn.session.as_deref_mut().filter(|_| changed) {
        session.note_changed_shape();
    }
}

fn unnamed_described(
    turn: &mut ServerTurn<'_>,
    serial: u32,
    parameters: Option<Box<[u8]>>,
    tag: u8,
    body: &[u8],
) {
    let shape = shape(turn, parameters, tag, body);
    let Some(session) = turn.session.as_deref_mut() else { return };
    session.set_unnamed_shape(serial, shape);
}

fn unnamed_checked(
    turn: &mut ServerTurn<'_>,
    serial: u32,
    parameters: Option<Box<[u8]>>,
    tag: u8,
    body: &[u8],
) {
    let Some(session) = turn.session.as_deref() else { return };
    let (unnamed, known) = session.unnamed();
    let told = unnamed.and_then(|unnamed| unnamed.shape.as_deref());
    let is_it = known == serial;
    if is_it
        && has_changed(turn, told, parameters, tag, body)
        && let Some(session) = turn.session.as_deref_mut()
    {
        session.note_changed_shape();
        // Whoever needs it next is told the same, unless it has changed back.
        turn.server.unnamed = UnnamedStatement::Foreign;
    }
}

/// The process id by which the client knows itself, when the message at hand is a notification
/// that the client's own backend has sent: libraries tell their own by it.
pub(super) fn own_notification(turn: &ServerTurn<'_>, header: Header) -> Option<u32> {
    if header.tag != backend::NOTIFICATION_RESPONSE {
        return None;
    }
    let sender = turn.buf.get(turn.at + HEADER_LEN..)?.first_chunk::<4>()?;
    let is_own = u32::from_be_bytes(*sender) == turn.server.backend_key.process_id;
    turn.session.as_deref().filter(|_| is_own).map(|session| session.key().process_id)
}

/// Passes a notification of `have` bytes on with another sender.
pub(super) fn renamed_notification(turn: &mut ServerTurn<'_>, process_id: u32, have: usize) {
    let sender = turn.at + HEADER_LEN;
    turn.pass(turn.at, sender);
    turn.tell(|out| out.extend_from_slice(&process_id.to_be_bytes()));
    turn.pass(sender + 4, turn.at + have);
}

fn done(turn: &mut ServerTurn<'_>, step: &Step, text: Option<&[u8]>, tag: Option<&[u8]>) {
    if let Some(mut books) = turn.books() {
        books.done(step, text, tag);
    }
}

pub(super) fn parameter_status(turn: &mut ServerTurn<'_>, body: &[u8]) -> Result<Forwarding, Stop> {
    let mut parts = body.split(|&byte| byte == 0);
    let (Some(name), Some(value)) = (parts.next(), parts.next()) else {
        return Err(Stop::Fault);
    };
    note_reported(turn.server, turn.tables, name, value);
    let own = turn.answers_own().is_some();
    let Some(session) = turn.session.as_deref_mut() else { return Ok(Forwarding::Swallow) };
    if own || !matches!(session.link(), Link::Ready(_)) {
        // Told when the session's own messages begin, if it still differs by then.
        return Ok(Forwarding::Swallow);
    }
    let resets = match turn.server.pending.front() {
        Some(Pending::Query(Some(script))) => script.resets(),
        _ => false,
    };
    if resets || !turn.server.restore.is_empty() {
        // Told at ReadyForQuery, when the client's own defaults are set again.
        return Ok(Forwarding::Swallow);
    }
    setup::know_reported(session, &Rc::clone(&turn.server.reported));
    match session.reads_elsewhere() && setup::is_of_primary(name) {
        true => Ok(Forwarding::Swallow),
        false => Ok(Forwarding::Pass),
    }
}

/// A server has reported a setting.
pub(crate) fn note_reported(server: &mut Server, tables: &mut Tables, name: &[u8], value: &[u8]) {
    note_hot_standby(server, tables, name);
    server.reported = tables.reported.with(&server.reported, name, value);
}

/// A server that begins or ends to be a standby says so on its connections (PostgreSQL 14 on).
fn note_hot_standby(server: &Server, tables: &mut Tables, name: &[u8]) {
    if name == b"in_hot_standby"
        && let Some(epoch) = server.epoch
    {
        tables.probe_hint = Some((server.pool, ProbeHint::HotStandbyChanged(epoch.node)));
    }
}

/// The tag in the body of a CommandComplete, without its NUL.
fn tag_of(body: &[u8]) -> Option<&[u8]> {
    Some(body.strip_suffix(b"\0").unwrap_or(body))
}
