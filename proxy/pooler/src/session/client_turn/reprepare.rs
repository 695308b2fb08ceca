//! A statement that a server connection lacks, reprepared where its client needs it.

use super::names;
use super::statements;
use super::turn::ClientTurn;
use super::turn::Step;
use crate::plan::Stop;
use crate::server::pending::DescribeInFlight;
use crate::server::pending::NameFor;
use crate::server::pending::ParseInFlight;
use crate::server::pending::Pending;
use crate::server::prepared::Origin;
use crate::server::prepared::ParsedUnder;
use crate::server::prepared::Statement;
use crate::server::prepared::StatementId;
use crate::server::statements::StatementLookup;
use crate::session::pin::PinReason;
use crate::session::settings::Setting;
use crate::session::settings::assign_local;
use crate::session::settings::is_looked_at_again;
use crate::session::settings::is_read_at_parse;
use crate::session::settings::reset_local;
use crate::sql;
use pgimbal_wire::encode;
use pgimbal_wire::encode::TransactionStatus;
use std::rc::Rc;
use std::sync::Arc;

/// What is set around a Parse, each in a statement of its own.
#[derive(Debug, Default)]
pub(super) struct Detour {
    there: Vec<Vec<u8>>,
    back: Vec<Vec<u8>>,
}

/// Puts a Parse of a kept statement in front of the message that needs it. Where the client was
/// told what it looks like, the server describes it too, and the message waits for that: a
/// statement whose shape has changed must not be run.
///
/// # Errors
/// [`Stop::Wait`] until the server has answered.
pub(super) fn reprepare(
    turn: &mut ClientTurn<'_>,
    name: &[u8],
    statement: &Rc<Statement>,
    detour: Detour,
) -> Step {
    if statement.body.is_none() {
        return Ok(());
    }
    make_room(turn)?;
    turn.pool.stats.reprepares += 1;
    let is_known = statements::settings_are_known(turn);
    set_on_the_way(turn, &detour.there)?;
    let server = turn.server()?;
    server.statements.insert(statement.id);
    if !is_known {
        // Others share it, who mean the settings of when they parsed it.
        server.unsettled.push(statement.id);
    }
    server.pending.push(Pending::Parse(Box::new(ParseInFlight {
        statement: Some(Rc::clone(statement)),
        change: None,
        is_probed: false,
    })));
    let mut server_name = Vec::with_capacity(48);
    statement.write_server_name(&mut server_name);
    turn.plan.make_for_server(|out| {
        encode::message(out, pgimbal_wire::tag::frontend::PARSE, |out| {
            out.extend_from_slice(&server_name);
            out.push(0);
            statement.write_body(out);
        });
    });
    set_on_the_way(turn, &detour.back)?;
    if statement.shape.get().is_none() {
        return Ok(());
    }
    turn.pool.stats.shape_checks += 1;
    let statement = Rc::clone(statement);
    let check = DescribeInFlight { name: name.into(), statement, parameters: None };
    turn.server()?.pending.push(Pending::ShapeCheck(Box::new(check)));
    turn.plan.make_for_server(|out| {
        encode::describe(out, encode::NameKind::Statement, &server_name);
    });
    turn.await_replies()
}

/// Closes the least recently used statements while the server has as many as it may. It has
/// more for a while when all of them are needed; those that are not sure to be there yet are
/// waited for.
pub(super) fn make_room(turn: &mut ClientTurn<'_>) -> Step {
    let limit = turn.pool.config.pool.max_prepared_statements.max(1) as usize;
    if turn.server()?.statements.len() < limit {
        return Ok(());
    }
    let kept = not_to_evict(turn);
    loop {
        let server = turn.server()?;
        let Some(victim) = server.statements.to_evict(limit, server.transaction, &kept) else {
            let unsure = server.statements.len() >= limit && server.statements.any_unsure();
            return if unsure { turn.await_replies() } else { Ok(()) };
        };
        server.statements.leave(victim);
        server.pending.push(Pending::Evict(Box::new(victim)));
        let mut name = Vec::with_capacity(48);
        crate::server::prepared::write_server_name(victim, &mut name);
        turn.plan.make_for_server(|out| encode::close(out, encode::NameKind::Statement, &name));
    }
}

/// The client's statements that might not be the same if they were parsed again now, in order.
fn not_to_evict(turn: &ClientTurn<'_>) -> Vec<StatementId> {
    let session = &turn.session;
    let Some(names) = session.statements.as_deref() else { return Vec::new() };
    if !statements::settings_are_known(turn) {
        return names.kept();
    }
    if session.pin.has(PinReason::StatementUnderOlderSettings) {
        let settings = turn.tables.parse_fingerprint(session.settings.current());
        return names.fixed_otherwise(settings);
    }
    Vec::new()
}

/// The way to the settings under which the text of `statement` is to be read, and back, where
/// it was parsed under others than those of now. Nothing of it is left behind the transaction,
/// nor in it.
///
/// # Errors
/// [`Stop::Wait`] until it is sure which those of now are.
pub(super) fn detour(
    turn: &mut ClientTurn<'_>,
    statement: &Statement,
) -> Result<Option<Detour>, Stop> {
    let Some(then) = statement.parsed_under.get() else { return Ok(None) };
    let table = &turn.tables.settings;
    let current = table.parse_affecting(turn.session.settings.current());
    if statement.origin != Origin::Parse
        || !statements::settings_are_known(turn)
        || **then == *table.settings(current)
    {
        return Ok(None);
    }
    turn.await_replies()?;
    if turn.server()?.status == TransactionStatus::Failed {
        return Ok(None);
    }
    let now = turn.tables.settings.shared(current);
    let path = |set: &[Setting]| set.iter().find(|s| *s.name == *b"search_path").cloned();
    // Under another path PostgreSQL reads the constants again, the text never.
    let analysed_anew = path(then) != path(&now);
    let is_read = |s: &&Setting| is_read_at_parse(&s.name, analysed_anew);
    let read = then.iter().chain(now.iter()).filter(is_read);
    if read.clone().any(Setting::depends_on_encoding) {
        return Ok(None);
    }
    let mut detour = Detour::default();
    for setting in read {
        let find = |set: &[Setting]| set.iter().find(|s| s.name == setting.name).cloned();
        let (old, new) = (find(then), find(&now));
        if old == new {
            continue;
        }
        let there = local(&setting.name, old.as_ref());
        if !detour.there.contains(&there) {
            detour.there.push(there);
            detour.back.push(local(&setting.name, new.as_ref()));
        }
    }
    Ok((!detour.there.is_empty()).then_some(detour))
}

fn set_on_the_way(turn: &mut ClientTurn<'_>, queries: &[Vec<u8>]) -> Step {
    for sql in queries {
        names::run_own(turn, sql, NameFor::Segment, None)?;
    }
    Ok(())
}

/// A statement that is about to be parsed on another server under the settings of then: what
/// PostgreSQL looks at again is that of now.
pub(super) fn under_older_settings(
    turn: &mut ClientTurn<'_>,
    name: &[u8],
    statement: Rc<Statement>,
) -> Rc<Statement> {
    let Some(then) = statement.parsed_under.get() else { return statement };
    let table = &turn.tables.settings;
    let now = table.settings(table.parse_affecting(turn.session.settings.current()));
    let looked_at = |s: &&Setting| is_looked_at_again(&s.name);
    let ParsedUnder::Settings { fixed, .. } = statement.settings else { return statement };
    if then.iter().filter(looked_at).eq(now.iter().filter(looked_at)) {
        return statement;
    }
    let settings = ParsedUnder::Settings { all: statements::next_unkept(turn).0 as u64, fixed };
    let changes = turn.pool.shared.database.schema_changes();
    let class = statement.class.clone();
    let own = turn.tables.statements.under(&statement, settings, changes, class);
    let _ = own.parsed_under.set(Arc::clone(then));
    statements::rename(turn, name, Some(Rc::clone(&own)));
    own
}

/// A statement that is about to be parsed on another server is from then on one that was
/// parsed under the settings of that time: nobody else may take it for one under the old ones.
pub(super) fn under_current_settings(
    turn: &mut ClientTurn<'_>,
    name: &[u8],
    statement: Rc<Statement>,
) -> Rc<Statement> {
    let settings = turn.tables.parse_fingerprint(turn.session.settings.current());
    if statement.body.is_none() || statement.origin == Origin::Sql || statement.settings == settings
    {
        return statement;
    }
    let changes = turn.pool.shared.database.schema_changes();
    // The server reads it under the settings of now.
    let classified = sql::classify(statement.text(), turn.readings(), turn.calls());
    let class = classified.into();
    let current = turn.tables.statements.under(&statement, settings, changes, class);
    if statements::settings_are_known(turn) {
        statements::note_parsed_under(turn, &current);
    }
    statements::rename(turn, name, Some(Rc::clone(&current)));
    statements::refresh_statement_pins(turn);
    current
}

/// Whether the server has a statement, once that is sure.
pub(super) fn found(
    turn: &mut ClientTurn<'_>,
    statement: &Statement,
) -> Result<StatementLookup, Stop> {
    if turn.server()?.statements.find(statement.id) == StatementLookup::Unsure {
        turn.await_replies()?;
    }
    Ok(turn.server()?.statements.find(statement.id))
}

fn local(name: &[u8], setting: Option<&Setting>) -> Vec<u8> {
    let mut sql = Vec::new();
    match setting {
        Some(setting) => assign_local(setting, &mut sql),
        None => reset_local(name, &mut sql),
    }
    sql
}
