//! A statement that a server connection lacks, reprepared where its client needs it.

use std::rc::Rc;
use std::sync::Arc;

use pgimbal_wire::encode;

use super::older_settings::OlderSettings;
use super::statements;
use super::turn::{ClientTurn, Step};
use crate::plan::Stop;
use crate::server::pending::{DescribeInFlight, NameFor, ParseInFlight, Pending};
use crate::server::prepared::{Origin, ParsedUnder, Statement, StatementId};
use crate::server::statements::StatementLookup;
use crate::session::pin::PinReason;
use crate::session::settings::{Setting, is_looked_at_again};
use crate::sql;

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
    older: &OlderSettings,
) -> Step {
    if statement.body.is_none() {
        return Ok(());
    }
    make_room(turn)?;
    turn.pool.stats_mut().reprepares += 1;
    let is_known = statements::settings_are_known(turn);
    older.set(turn, NameFor::Segment)?;
    let server = turn.server()?;
    server.statements_mut().insert(statement.id);
    if !is_known {
        // Others share it, who mean the settings of when they parsed it.
        server.add_unsettled(statement.id);
    }
    server.pending_mut().push(Pending::Parse(Box::new(ParseInFlight {
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
    older.set_back(turn, NameFor::Segment)?;
    if statement.shape.get().is_none() {
        return Ok(());
    }
    turn.pool.stats_mut().shape_checks += 1;
    let statement = Rc::clone(statement);
    let check = DescribeInFlight { name: name.into(), statement, parameters: None };
    turn.server()?.pending_mut().push(Pending::ShapeCheck(Box::new(check)));
    turn.plan.make_for_server(|out| {
        encode::describe(out, encode::NameKind::Statement, &server_name);
    });
    turn.await_replies()
}

/// Closes the least recently used statements while the server has as many as it may. It has
/// more for a while when all of them are needed; those that are not sure to be there yet are
/// waited for.
pub(super) fn make_room(turn: &mut ClientTurn<'_>) -> Step {
    let limit = turn.pool.config().pool.max_prepared_statements.max(1) as usize;
    if turn.server()?.statements().len() < limit {
        return Ok(());
    }
    let kept = not_to_evict(turn);
    loop {
        let server = turn.server()?;
        let Some(victim) = server.statements().to_evict(limit, server.transaction(), &kept) else {
            let unsure = server.statements().len() >= limit && server.statements().any_unsure();
            return if unsure { turn.await_replies() } else { Ok(()) };
        };
        server.statements_mut().leave(victim);
        server.pending_mut().push(Pending::Evict(Box::new(victim)));
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
    let settings = ParsedUnder::Settings { all: statements::next_uncached(turn).0 as u64, fixed };
    let changes = turn.pool.shared().database.schema_changes();
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
    let changes = turn.pool.shared().database.schema_changes();
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
    if turn.server()?.statements().find(statement.id) == StatementLookup::Unsure {
        turn.await_replies()?;
    }
    Ok(turn.server()?.statements().find(statement.id))
}
