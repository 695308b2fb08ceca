//! A client's Bind, and what it needs on the server connection.

use std::rc::Rc;

use pgimbal_config::{PoolMode, Verify};
use pgimbal_wire::encode::{self, NameKind, TransactionStatus};
use pgimbal_wire::error::Severity;
use pgimbal_wire::extended::Bind;
use pgimbal_wire::frame::{HEADER_LEN, Header};
use pgimbal_wire::tag::frontend;

use super::older_settings::{self, OlderSettings};
use super::statements::{self, write_client_name};
use super::turn::{ClientTurn, Step};
use super::values::BoundValues;
use super::{admission, channels, names, raise, reprepare, script};
use crate::cluster::route::{self, Misnamed};
use crate::plan::Stop;
use crate::recovery::effects::SegmentEffects;
use crate::server::pending::{Origin as MessageOrigin, Pending};
use crate::server::prepared::{Origin, Statement, UnnamedStatement};
use crate::server::statements::{Portal, StatementLookup};
use crate::session::state::portals::Rereads;
use crate::session::{LocalSettings, ShapeCheck};
use crate::sql::{
    self, Assignment, Classified, Form, Kinds, Operand, ScopeOperand, StatementClass, Steps,
};

/// Whether a statement that is needed can be run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Needed {
    /// As far as is known here.
    Here,
    /// Its shape is not what its client was told.
    Changed,
}

/// What a text is that only reads or writes rows.
pub(super) const PLAIN: Classified = Classified::PLAIN;

pub(super) fn bind(turn: &mut ClientTurn<'_>, header: Header) -> Step {
    let (message, bind) = turn.view(header, Bind::view)?;
    statements::settled_name(turn, bind.statement)?;
    let class = turn.class_of(bind.statement);
    let effects = class.map_or(SegmentEffects::UNKNOWN, SegmentEffects::of_bind);
    let bound = class.and_then(StatementClass::not_plain).and_then(|classified| {
        bound_text(turn, bind.statement).map(|text| (text, classified.clone()))
    });
    turn.effects = effects;
    if let Some((_, classified)) = &bound
        && (admission::is_refused(turn, classified)
            || admission::admit(turn, classified)?.is_refused())
    {
        return Ok(());
    }
    if let Some((text, classified)) = &bound {
        channels::bring_here(turn, classified, text)?;
        admission::await_facts(turn, classified)?;
    }
    if bound.is_none() && admission::is_refused(turn, &PLAIN) {
        return Ok(());
    }
    let values = &message.body[bind.rest..];
    let bound = bound.map(|(text, mut classified)| {
        fill_in(&mut classified, values, message.is_whole());
        (text, classified)
    });
    let wrong = bound.as_ref().and_then(|(_, classified)| route::misnamed_in(classified));
    if let Some(wrong) = wrong
        && refuses_values(turn, header, &wrong)?
    {
        return Ok(());
    }
    turn.server()?.open_segment();
    if let Some((text, classified)) = &bound {
        names::name_for_segment(turn, text, classified)?;
    }
    let mut name = Vec::new();
    let found = match bind.statement {
        [] => need_unnamed(turn)?,
        statement => need_named(turn, statement, Some(bind.portal), &mut name)?,
    };
    if found == Needed::Changed {
        return answer_changed(turn, header, bind.statement);
    }
    note_bound(turn, bind, bound);
    if bind.statement.is_empty() {
        turn.server()?.pending_mut().pass();
        turn.forward(message);
        return Ok(());
    }
    turn.server()?.pending_mut().pass();
    let rest = (message.body_len() - bind.rest) as u32;
    turn.plan.make_for_server(|out| encode::bind_head(out, bind.portal, &name, rest));
    turn.forward_from(message, message.start + HEADER_LEN + bind.rest);
    Ok(())
}

/// The text of a statement that is bound now, if it is known.
fn bound_text(turn: &ClientTurn<'_>, name: &[u8]) -> Option<Vec<u8>> {
    if name.is_empty() {
        let body = &turn.session.unnamed.as_ref()?.body;
        let end = body.iter().position(|&b| b == 0)?;
        return Some(body[..end].to_vec());
    }
    let statement = turn.session.statements.as_ref()?.get(name)?;
    Some(match statement.origin {
        // Its text is the PREPARE; what it runs is what that was found to prepare.
        Origin::Sql => Vec::new(),
        Origin::Parse | Origin::Session => statement.text().to_vec(),
    })
}

/// Notes what a portal will do when it is run; functions may run when it is bound.
fn note_bound(turn: &mut ClientTurn<'_>, bind: Bind<'_>, bound: Option<(Vec<u8>, Classified)>) {
    let step = match bound {
        None => {
            if statements::has_unread_statements(turn) && !statements::knows(turn, bind.statement) {
                // SQL has prepared it, in a text that is not in the books.
                turn.session.raised.insert(Kinds::ANYTHING);
                turn.session.local = LocalSettings::Unknown;
                turn.doubt_readings();
            }
            if !turn.session.pin.is_set() && turn.pool.config().pool.verify != Verify::Always {
                turn.session.portals.close(bind.portal);
                return;
            }
            raise::raise(turn, &PLAIN, b"");
            None
        }
        Some((text, classified)) => {
            let followed = match classified.only() {
                Some(Form::Prepare(name)) => names::is_closed_later(turn, name),
                _ => true,
            };
            let script = script::script_of(turn, &classified, if followed { &text } else { b"" });
            raise::raise(turn, &classified, &text);
            if script.is_none() && classified.only_ends_or_begins() && !bind.portal.is_empty() {
                // It may be run after others of its segment, whose effects it ends.
                turn.session.raised.insert(Kinds::SETTINGS.union(Kinds::ROLE));
            }
            script.map(|script| {
                let rereads = match classified.only() {
                    Some(Form::Savepoint(_) | Form::Release(_) | Form::Prepare(_)) => Rereads::No,
                    Some(Form::Set(list, _)) => rereads(list),
                    _ => Rereads::Perhaps,
                };
                (script, rereads)
            })
        }
    };
    let beyond = turn.session.portals.bind(bind.portal, step);
    if turn.pool.config().pool.mode != PoolMode::Session {
        turn.session.raised.insert(beyond);
    }
}

/// A statement whose shape is no longer what the client was told: PostgreSQL refuses to run it,
/// in the middle of whatever transaction there is. The server raises an error for a name that
/// is never there, and the client is told PostgreSQL's.
pub(super) fn answer_changed(turn: &mut ClientTurn<'_>, header: Header, name: &[u8]) -> Step {
    turn.session.shape = ShapeCheck::None;
    let known = turn.session.statements.as_ref().and_then(|names| names.get(name));
    if let Some(id) = known.map(|statement| statement.id) {
        // Whoever needs it next is told the same, unless it has changed back.
        let server = turn.server()?;
        server.statements_mut().leave(id);
        server.pending_mut().push(Pending::Evict(Box::new(id)));
        let mut server_name = Vec::with_capacity(48);
        crate::server::prepared::write_server_name(id, &mut server_name);
        turn.plan.make_for_server(|out| encode::close(out, NameKind::Statement, &server_name));
    }
    turn.server()?.pending_mut().push(Pending::Changed);
    fail_on_server(turn);
    turn.drop_message(header);
    Ok(())
}

/// A Bind whose values set what only looks like a setting of pgimbal's is told what the text
/// that does so is told. Says whether it was; in a transaction that has failed the server says
/// so.
fn refuses_values(
    turn: &mut ClientTurn<'_>,
    header: Header,
    wrong: &Misnamed,
) -> Result<bool, Stop> {
    let error = wrong.body(Severity::Error);
    if turn.is_fresh() {
        turn.session.refuse(error);
        return Ok(true);
    }
    let server = turn.server()?;
    if server.status() == TransactionStatus::Failed {
        return Ok(false);
    }
    server.open_segment();
    // The transaction fails with it, and the rest of the segment is skipped.
    server.pending_mut().push(Pending::Refused(error));
    fail_on_server(turn);
    turn.drop_message(header);
    Ok(true)
}

/// Has the server raise an error, in place of which the client is told another.
fn fail_on_server(turn: &mut ClientTurn<'_>) {
    const NEVER_THERE: &[u8] = b"pgimbal_changed";
    turn.plan.make_for_server(|out| {
        encode::bind_head(out, b"", NEVER_THERE, 6);
        out.extend_from_slice(&[0; 6]);
    });
}

/// Makes sure that the server's unnamed statement is this client's, or that there is none.
pub(super) fn need_unnamed(turn: &mut ClientTurn<'_>) -> Result<Needed, Stop> {
    if turn.session.shape == ShapeCheck::Changed {
        return Ok(Needed::Changed);
    }
    let mine = turn.session.own_unnamed();
    let current = turn.server()?.unnamed();
    if current == mine {
        return Ok(Needed::Here);
    }
    let before = statements::unnamed_before(turn, MessageOrigin::Proxy, b"");
    match &turn.session.unnamed {
        Some(unnamed) => {
            let described = unnamed.shape.is_some();
            turn.plan.make_for_server(|out| {
                encode::message(out, frontend::PARSE, |out| {
                    out.push(0);
                    unnamed.write_body(out);
                });
                if described {
                    encode::describe(out, NameKind::Statement, b"");
                }
            });
            turn.pool.stats_mut().reprepares += 1;
            let serial = turn.session.unnamed_serial;
            let server = turn.server()?;
            // A Parse that fails leaves none. In a failed transaction it may well, which is known
            // behind the Describe only.
            let may_fail = server.status() == TransactionStatus::Failed && !described;
            server.set_unnamed(if may_fail { UnnamedStatement::Foreign } else { mine });
            server.pending_mut().push(Pending::Unnamed(MessageOrigin::Proxy, before));
            if described {
                server.pending_mut().push(Pending::UnnamedCheck(serial, None));
                turn.pool.stats_mut().shape_checks += 1;
                turn.await_replies()?;
            }
        }
        None if current != UnnamedStatement::Absent => {
            turn.plan.make_for_server(|out| encode::close(out, NameKind::Statement, b""));
            let server = turn.server()?;
            server.set_unnamed(UnnamedStatement::Absent);
            server.pending_mut().push(Pending::Unnamed(MessageOrigin::Proxy, before));
        }
        None => {}
    }
    Ok(Needed::Here)
}

/// Makes sure that the server has the statement that the client calls `name`, and writes what
/// the server calls it. A name that nobody knows is left for the server to refuse.
pub(super) fn need_named(
    turn: &mut ClientTurn<'_>,
    name: &[u8],
    portal: Option<&[u8]>,
    server_name: &mut Vec<u8>,
) -> Result<Needed, Stop> {
    if turn.session.shape == ShapeCheck::Changed {
        return Ok(Needed::Changed);
    }
    let known: Option<Rc<Statement>> =
        turn.session.statements.as_ref().and_then(|names| names.get(name)).cloned();
    let known = known.filter(|statement| statement.origin != Origin::Session);
    let Some(statement) = known else {
        match turn.pool.config().pool.mode {
            PoolMode::Session => server_name.extend_from_slice(name),
            _ => write_client_name(name, server_name),
        }
        return Ok(Needed::Here);
    };
    if statement.origin == Origin::Sql {
        names::name_for_protocol(turn, name, &statement)?;
        write_client_name(name, server_name);
        return Ok(Needed::Here);
    }
    let server = turn.server()?;
    let transaction = server.transaction();
    let statement = if reprepare::found(turn, &statement)? == StatementLookup::Missing {
        if older_settings::may_differ(turn, &statement) {
            turn.await_replies()?;
        }
        let older = OlderSettings::of(turn, &statement);
        let statement = match older.is_empty() {
            false => reprepare::under_older_settings(turn, name, statement),
            true => reprepare::under_current_settings(turn, name, statement),
        };
        if reprepare::found(turn, &statement)? == StatementLookup::Missing {
            reprepare::reprepare(turn, name, &statement, &older)?;
        }
        statement
    } else {
        statement
    };
    let portal = match portal {
        Some(name) if !name.is_empty() => Portal::Named(transaction),
        _ => Portal::Unnamed(transaction),
    };
    turn.server()?.statements_mut().bind(statement.id, portal);
    statement.write_server_name(server_name);
    Ok(Needed::Here)
}

/// Whether the texts behind these settings may be read otherwise.
fn rereads(list: &[Assignment]) -> Rereads {
    let changes = |assignment: &Assignment| match &assignment.name {
        Operand::Text(name) => {
            name.eq_ignore_ascii_case(b"standard_conforming_strings")
                || name.eq_ignore_ascii_case(b"client_encoding")
        }
        _ => true,
    };
    if list.iter().any(changes) { Rereads::Perhaps } else { Rereads::No }
}

/// Gives the only statement of a text, if it is a `set_config`, the values that are bound to it.
fn fill_in(classified: &mut Classified, values: &[u8], whole: bool) {
    if let Steps::One(step) = &mut classified.steps
        && let Some(bound) = with_values(step, values, whole)
    {
        *step = bound;
    }
}

/// A `set_config` with the values that are bound to its parameters; `values` is what stands behind
/// the names in the Bind. What cannot be told becomes a statement that may have set anything.
fn with_values(step: &sql::Step, values: &[u8], whole: bool) -> Option<sql::Step> {
    let Form::Set(list, by) = &step.form else { return None };
    let has_parameter = |assignment: &Assignment| {
        matches!(assignment.name, Operand::Parameter(_))
            || matches!(assignment.value, Operand::Parameter(_))
            || matches!(assignment.scope, ScopeOperand::Parameter(_))
    };
    if !list.iter().any(has_parameter) {
        return None;
    }
    let values = BoundValues::read(values).filter(|_| whole);
    let bound = values.and_then(|values| {
        list.iter().map(|assignment| values.bind(assignment)).collect::<Option<Box<[_]>>>()
    });
    Some(match bound {
        Some(list) => sql::Step { form: Form::Set(list, *by), ..step.clone() },
        None => sql::Step {
            form: Form::Other,
            raises: step.raises.union(Kinds::SETTINGS).union(Kinds::ROLE),
            local: true,
        },
    })
}
