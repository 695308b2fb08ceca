//! ReadyForQuery: what is settled by it, and what comes next for the server connection.

use pgimbal_config::PoolMode;
use pgimbal_wire::encode::{self, NameKind, TransactionStatus};

use super::turn::{Forwarding, Freed, ServerTurn};
use super::{catalog, own_query};
use crate::cluster::consistency;
use crate::plan::Stop;
use crate::pool::Place;
use crate::recovery::in_flight::Whose;
use crate::recovery::proof::Rerun;
use crate::sample::{Sample, Sampled};
use crate::server::pending::{OwnQuery, Pending};
use crate::server::prepared::write_server_name;
use crate::server::restore::Restore;
use crate::server::statements::StatementLookup;
use crate::server::{Commits, Ending, ReadingsKnown, Server, SinceReady};
use crate::session::settings::SettingsId;
use crate::session::state::books::Asked;
use crate::session::state::reset;
use crate::session::writing::Wrote;
use crate::session::{Link, Phase, Presence, Session, setup};
use crate::sql::Kinds;
use crate::tables::Tables;

pub(super) fn ready(turn: &mut ServerTurn<'_>, body: &[u8]) -> Result<Forwarding, Stop> {
    let [status] = body else { return Err(Stop::Fault) };
    let Some(status) = TransactionStatus::from_byte(*status) else { return Err(Stop::Fault) };
    let pending = &mut turn.server.pending;
    let Some(owner) = pending.front_owner() else { return Err(Stop::Fault) };
    let Some(settled) = pending.take_ready() else { return Err(Stop::Fault) };
    // What follows from it is its owner's too.
    pending.add_for(owner);
    turn.server.status = status;
    turn.server.copy_in = false;
    let since = turn.server.since_ready;
    let idle = turn.server.pending.is_empty() && !since.segment_open;
    // A client that leaves in a transaction has it rolled back.
    let rolled_back = since.failed || matches!(settled, Pending::Own(OwnQuery::Rollback));
    turn.idle = idle;
    settle_transaction(turn, rolled_back, idle);
    turn.server.since_ready = SinceReady {
        segment_open: since.segment_open,
        // It may be a later one of a pipeline.
        ending: match turn.server.pending.is_empty() {
            true => Ending::No,
            false => since.ending,
        },
        commits: match turn.server.pending.is_empty() {
            true => Commits::AtEnd,
            false => since.commits,
        },
        ..SinceReady::default()
    };
    let whose = match settled {
        Pending::Sync | Pending::Query(_) if turn.is_linked() => Whose::Client,
        _ => Whose::Proxy,
    };
    turn.server.in_flight.settled(whose, idle);
    if idle {
        // Everything that was run is reported now.
        turn.server.readings = ReadingsKnown::Yes;
    }
    if matches!(settled, Pending::Query(_)) {
        turn.server.name_error = None;
    }
    turn.freed = Freed::Perhaps;
    match settled {
        // The end of the transaction around it is the client's ReadyForQuery.
        Pending::Sync | Pending::Query(_) if runs_again(turn) => Ok(Forwarding::Swallow),
        Pending::Sync | Pending::Query(_) => {
            note_written(turn);
            count(turn);
            if !turn.server.newly_set.is_empty()
                && let Some(session) = turn.session.as_deref_mut()
            {
                setup::adopt_spelling(session, turn.server, turn.tables);
            }
            let fate = restore_settings(turn, since);
            if fate == Forwarding::Pass
                && let Some(session) = turn.session.as_deref_mut()
            {
                setup::tell_reported(session, turn.server, turn.plan);
            }
            close_surplus(turn);
            Ok(fate)
        }
        Pending::Own(kind) => own_query::own_query_ended(turn, kind, since.failed),
        _ => Ok(Forwarding::Swallow),
    }
}

/// If a transaction of the client's has ended, reads must show what it may have written.
fn note_written(turn: &mut ServerTurn<'_>) {
    if turn.server.status != TransactionStatus::Idle {
        return;
    }
    if turn.pool.place() != Place::Primary
        && turn.server.reported().get(b"in_hot_standby") == Some(b"off")
        && let Some(session) = turn.session.as_deref_mut()
    {
        // The node was promoted under the session, which it says in front of a ReadyForQuery from
        // PostgreSQL 14 on: whatever has run may have been a write.
        session.writing_mut().set(Wrote::Surely);
    }
    consistency::note_written(turn.session.as_deref_mut(), turn.pool, turn.now);
    if turn.idle
        && let Some(session) = turn.session.as_deref_mut()
    {
        session.writing_mut().set(Wrote::Perhaps);
    }
}

/// Counts a query of a client's that has ended, and the transaction if that has ended with it.
pub(super) fn count(turn: &mut ServerTurn<'_>) {
    let took = turn.server.timing.end_query(turn.now);
    turn.pool.stats_mut().query_times.record(took);
    if turn.server.status == TransactionStatus::Idle {
        let (began, ended) = (turn.server.timing.end_transaction(turn.now), turn.now);
        turn.pool.count_transaction(ended - began);
        let wait = turn.server.timing.take_wait();
        if turn.tables.sampler.chooses() {
            let (pool, what) = (turn.pool.id(), Sampled::Transaction);
            turn.tables.sampler.keep(Sample { pool, what, wait, began, ended });
        }
    }
}

fn runs_again(turn: &ServerTurn<'_>) -> bool {
    let session = turn.session.as_deref();
    session.is_some_and(|session| matches!(session.rerun(), Rerun::Running(_)))
}

/// The settings and the schema follow the fate of the transaction. What was noted ahead for
/// messages that are still on their way stays until the server connection is `idle`.
fn settle_transaction(turn: &mut ServerTurn<'_>, failed: bool, idle: bool) {
    if turn.server.schema_change {
        turn.pool.shared().database.schema_changed();
    }
    if turn.server.status != TransactionStatus::Idle {
        return;
    }
    turn.server.schema_change &= !idle;
    turn.server.transaction += 1;
    settle_idle(turn);
    if idle {
        let unsettled = std::mem::take(&mut turn.server.unsettled);
        turn.server.surplus.extend(unsettled);
    }
    if let Some(session) = turn.session.as_deref_mut()
        && session.changed_in_transaction()
    {
        let table = &mut turn.tables.settings;
        if failed {
            session.settings_mut().rollback(table);
            session.channels_mut().rollback();
        } else {
            session.settings_mut().commit(table);
            session.channels_mut().commit();
        }
        setup::settings_changed(session, turn.server, turn.pool, turn.tables, turn.now);
    }
    settle_channels(turn);
}

/// The session's transactions have ended, if no reply is pending any more.
pub(super) fn settle_idle(turn: &mut ServerTurn<'_>) {
    let ended = turn.idle && turn.server.status == TransactionStatus::Idle;
    let Some(session) = turn.session.as_deref_mut().filter(|_| ended) else { return };
    session.on_transaction_end();
    let is_home = session.serving() == session.pool();
    if let Some(routing) = session.routing_mut().filter(|_| is_home) {
        routing.note_end();
    }
}

/// As [`settle_idle`], for what the session listens to: behind the commit, for what has been
/// notified since that was sent is the client's.
pub(super) fn settle_channels(turn: &mut ServerTurn<'_>) {
    let ended = turn.idle && turn.server.status == TransactionStatus::Idle;
    let Some(session) = turn.session.as_deref_mut().filter(|_| ended) else { return };
    if session.channels().is_any() {
        session.channels_mut().on_transaction_end();
        turn.tables.channel_work.note_session(session.id());
    }
}

/// After RESET the server stands at its own defaults, the client expects those it came with:
/// they are set before it is told that its statement is done.
fn restore_settings(turn: &mut ServerTurn<'_>, since: SinceReady) -> Forwarding {
    if !turn.server.restore.may_be_due() {
        return Forwarding::Pass;
    }
    let Restore { mut names, mut queries, local, in_segment, in_block } =
        std::mem::take(&mut turn.server.restore);
    // Code that commits keeps what was brought back before it, and may have set it since.
    let may_be_undone =
        (since.failed || since.ending != Ending::No) && since.commits == Commits::AtEnd;
    if may_be_undone {
        names.extend(in_segment);
    }
    if turn.server.status != TransactionStatus::Idle {
        turn.server.restore.in_block = in_block;
    } else if may_be_undone {
        names.extend(in_block);
    }
    if turn.server.status == TransactionStatus::Failed {
        // The settings come back with the rollback, a statement's end does not.
        turn.server.restore.queries = queries;
        return Forwarding::Pass;
    }
    if let Some(session) = turn.session.as_deref() {
        queries.extend(setup::restoring(session.settings(), &names, turn.tables));
    }
    if turn.server.status == TransactionStatus::InTransaction {
        queries.extend(local);
        turn.server.restore.remember(&names);
    }
    if queries.is_empty() {
        return Forwarding::Pass;
    }
    for sql in queries {
        setup::send_own(turn.server, OwnQuery::Restore, &sql, turn.plan);
    }
    Forwarding::Swallow
}

/// Closes the statements in whose place the client shares another's. No portal is open then.
fn close_surplus(turn: &mut ServerTurn<'_>) {
    let free =
        turn.server.status == TransactionStatus::Idle && !turn.server.since_ready.segment_open;
    // Half a message of the client's must not be interrupted.
    let between =
        turn.is_linked() && turn.session.as_deref().is_none_or(Session::between_server_messages);
    if turn.server.surplus.is_empty() || !free || !between {
        return;
    }
    for id in std::mem::take(&mut turn.server.surplus) {
        if turn.server.statements.find(id) != StatementLookup::Here {
            continue;
        }
        turn.server.statements.leave(id);
        turn.server.pending.push_own(Pending::Evict(Box::new(id)));
        let mut name = Vec::with_capacity(48);
        write_server_name(id, &mut name);
        turn.plan.make_for_server(|out| encode::close(out, NameKind::Statement, &name));
    }
    turn.server.pending.push_own(Pending::OwnSync);
    turn.plan.make_for_server(encode::sync);
}

/// ReadyForQuery has been dealt with: is the server connection free? Asked in the turn of the
/// session that is linked.
pub(super) fn after_ready(turn: &mut ServerTurn<'_>) -> Result<(), Stop> {
    turn.server.pending.add_for(turn.linked);
    let Some(session) = turn.session.as_deref_mut() else { return Ok(()) };
    if session.presence() != Presence::Here || turn.freed == Freed::No {
        return Ok(());
    }
    if !turn.server.is_settled() {
        hold_for_question(session, turn.server);
        return Ok(());
    }
    session.note_active(turn.now);
    if matches!(session.link(), Link::Cleaning(_)) {
        return Err(Stop::Checkin);
    }
    if !setup::is_between(session, turn.server) {
        return Ok(());
    }
    if turn.server.residue.meets(Kinds::STATEMENTS) {
        turn.server.residue.remove(Kinds::STATEMENTS);
        let text = reset::without_waiting(b"DEALLOCATE ALL;");
        setup::send_own(turn.server, OwnQuery::Deallocate, &text, turn.plan);
        turn.server.forget_statements();
        return Ok(());
    }
    if !session.raised().is_empty() {
        let mut plan = std::mem::take(turn.plan);
        let asked = turn.books().map(|mut books| books.ask(&mut plan));
        *turn.plan = plan;
        if asked == Some(Asked::Sent) {
            return Ok(());
        }
    }
    let Some(session) = turn.session.as_deref_mut() else { return Ok(()) };
    if !setup::may_release(session, turn.server, turn.pool) {
        if turn.server.settings != session.settings().current()
            && turn.pool.config().pool.mode != PoolMode::Session
        {
            // Code has brought the server to its own defaults: the client's are set again.
            session.set_link(Link::Fresh(turn.server.id));
        }
        return Ok(());
    }
    if catalog::read_if_due(turn) {
        return Ok(());
    }
    let Some(session) = turn.session.as_deref_mut() else { return Ok(()) };
    if turn.pool.config().pool.reset_query_always {
        session.set_link(Link::Cleaning(turn.server.id));
        setup::start_reset(turn.server, turn.pool, turn.tables, turn.plan);
        return Ok(());
    }
    if take_channels_off(turn) || take_idle_limit_off(turn) { Ok(()) } else { Err(Stop::Checkin) }
}

/// A server connection that listens would get notifications while it serves nobody. Returns whether
/// that is being ended.
fn take_channels_off(turn: &mut ServerTurn<'_>) -> bool {
    if !turn.server.residue.meets(Kinds::CHANNELS) {
        return false;
    }
    turn.server.residue.remove(Kinds::CHANNELS);
    if let Some(session) = turn.session.as_deref_mut() {
        session.set_link(Link::Cleaning(turn.server.id));
    }
    setup::send_own(turn.server, OwnQuery::Untimed, b"UNLISTEN *", turn.plan);
    true
}

/// Lets the client's next message wait where it has had the ReadyForQuery for all that it sent, but
/// the question what its code has left cannot be sent yet: replies to messages of pgimbal's own are
/// still pending. Otherwise that message would run before the answer is known.
fn hold_for_question(session: &mut Session, server: &Server) {
    let may_go_on = session.phase() == Phase::Open && session.between_server_messages();
    if session.raised().is_empty() || !may_go_on {
        return;
    }
    let is_told = server.status == TransactionStatus::Idle
        && !server.since_ready.segment_open
        && !server.pending.is_empty()
        && !server.pending.has_end_of(session.id());
    if is_told {
        session.set_phase(Phase::Barrier);
    }
}

/// A limit on idle time would end the connection while it serves nobody. Returns whether one is
/// being taken off.
fn take_idle_limit_off(turn: &mut ServerTurn<'_>) -> bool {
    const LIMIT: &[u8] = b"idle_session_timeout";
    let table = &mut turn.tables.settings;
    if turn.server.settings == SettingsId::EMPTY || table.get(turn.server.settings, LIMIT).is_none()
    {
        return false;
    }
    if let Some(session) = turn.session.as_deref_mut() {
        // What it sends next finds its settings set anew.
        session.set_link(Link::Cleaning(turn.server.id));
    }
    let without = table.without(turn.server.settings, |name| name == LIMIT);
    table.release(std::mem::replace(&mut turn.server.settings, without));
    let text = b"RESET SESSION AUTHORIZATION;RESET ROLE;RESET idle_session_timeout";
    setup::send_own(turn.server, OwnQuery::Untimed, text, turn.plan);
    let without = table_without_identity(turn.tables, turn.server.settings);
    let table = &mut turn.tables.settings;
    table.release(std::mem::replace(&mut turn.server.settings, without));
    true
}

/// `settings` without what says who the session is; the caller owns the reference.
fn table_without_identity(tables: &mut Tables, settings: SettingsId) -> SettingsId {
    let is_identity = |name: &[u8]| matches!(name, b"role" | b"session_authorization");
    tables.settings.without(settings, is_identity)
}
