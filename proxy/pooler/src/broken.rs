//! What a client sees when its server connection breaks: nothing, its statement run again, an
//! error, or the end of its own connection. Only what is proven counts.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use pgimbal_wire::encode::{self, TransactionStatus};
use pgimbal_wire::error::{self, Report, Severity, SqlState};

use crate::in_flight::Progress;
use crate::offline::Offline;
use crate::owed::{Owed, OwnQuery};
use crate::plan::Plan;
use crate::pool::Pool;
use crate::pooler::error_body;
use crate::rerun::{self, Again, Rerun};
use crate::server::{Body, Ending, Server};
use crate::session::{ClientBody, Link, LocalSettings, Phase, Presence, Session, ShapeCheck};
use crate::shared::SharedCluster;
use crate::sql::Kinds;

/// What is left of a session whose server connection has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Aftermath {
    /// The client lives on; what the plan holds is for it.
    Survives,
    /// The client lives on, and these bytes of its are to be judged again before all others.
    Again(Vec<u8>),
    /// The client must be closed, after what the plan holds.
    Ends,
}

/// What is known of the statement that was in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// It has not taken effect.
    RolledBack,
    /// It may have, or not.
    Unknown,
}

/// Writes what the client of a broken server connection is told, and puts its session in order.
pub(crate) fn part(
    session: &mut Session,
    server: &mut Server,
    pool: &mut Pool,
    plan: &mut Plan,
) -> Aftermath {
    undo_owed(session, server);
    session.portals.clear();
    session.raised = Kinds::NONE;
    session.local = LocalSettings::Known;
    session.shape = ShapeCheck::None;
    session.close_after_sync.clear();
    if session.presence != Presence::Here {
        return Aftermath::Ends;
    }
    let unbegun = matches!(session.link, Link::Fresh(_) | Link::Setup(_))
        || rerun::is_still_due(session, server);
    if unbegun && session.offline.is_none() && !session.pin.is_set() {
        // Nothing of the client's was forwarded: its message goes elsewhere.
        return Aftermath::Survives;
    }
    if matches!(server.body, Body::Forward(_)) {
        // A message to the client was cut in half: nothing can follow it.
        count(pool, |shared| &shared.failed);
        return Aftermath::Ends;
    }
    let keeps_state =
        session.pin.is_set() || pool.config.pool.mode == pgimbal_config::PoolMode::Session;
    if keeps_state {
        count(pool, |shared| &shared.failed);
        let error = lost(server, pool);
        count_error(pool, &error);
        plan.make_for_client(|out| error::with_severity(&error, Severity::Fatal, out));
        return Aftermath::Ends;
    }
    if let ClientBody::Plain(Body::Forward(missing)) | ClientBody::Text(missing, _) = session.body {
        session.body = ClientBody::Plain(Body::Drop(missing));
    }
    if session.phase == Phase::Barrier {
        session.phase = Phase::Open;
    }
    if let Some(bytes) = rollback_in_flight(session, server) {
        // Told to what may stand in front of it in its segment.
        let error = lost(server, pool);
        session.offline = Some(Box::new(Offline::lost(Some(error))));
        return Aftermath::Again(bytes);
    }
    match rerun::decide(session, server, pool) {
        Again::Afresh(bytes) => return Aftermath::Again(bytes),
        Again::ReadOnly(bytes) => {
            count(pool, |shared| &shared.rerun);
            return Aftermath::Again(bytes);
        }
        Again::No => {}
    }
    // What stands behind what was in flight has not begun to count: it goes elsewhere.
    let open = rerun::open_segment(session, server, pool);
    if open.is_some() {
        server.since_ready.segment_open = false;
    }
    answer_owed(session, server, pool, plan);
    session.rerun = Rerun::No;
    open.map_or(Aftermath::Survives, Aftermath::Again)
}

/// Counts an error that a client is told, by its code.
fn count_error(pool: &mut Pool, body: &[u8]) {
    if let Ok(fields) = error::ErrorFields::parse(body) {
        pool.stats.error(fields.code);
    }
}

fn count(pool: &Pool, counter: impl Fn(&SharedCluster) -> &AtomicU64) {
    if let Some(shared) = &pool.shared.cluster {
        counter(shared).fetch_add(1, Relaxed);
    }
}

/// A ROLLBACK that was in flight has come true: it is answered without a server.
fn rollback_in_flight(session: &Session, server: &mut Server) -> Option<Vec<u8>> {
    let alone = session.rerun == Rerun::No
        && server.status != TransactionStatus::Idle
        && server.since_ready.ending == Ending::Rollback
        && server.in_flight.progress() == Progress::Unanswered
        && !server.since_ready.failed;
    server.in_flight.whole().filter(|_| alone)?;
    Some(server.in_flight.take())
}

/// Each Query and each Sync that was sent gets its answer: an error, then whether a transaction
/// has failed with it.
fn answer_owed(session: &mut Session, server: &mut Server, pool: &mut Pool, plan: &mut Plan) {
    let in_block =
        server.status != TransactionStatus::Idle && !matches!(session.rerun, Rerun::Running(_));
    let may_commit = server.since_ready.ending == Ending::MayCommit;
    // Where a COMMIT was sent the block is over, whichever way.
    let in_transaction = in_block && !may_commit;
    let status = if in_transaction { TransactionStatus::Failed } else { TransactionStatus::Idle };
    let outcome = if in_transaction { Outcome::RolledBack } else { outcome(session, server) };
    let error = match outcome {
        Outcome::RolledBack => lost(server, pool),
        Outcome::Unknown => error_body(&rerun::outcome_unknown()),
    };
    // The error that ends what runs now may have been told already.
    let mut failed = server.since_ready.failed;
    let mut told = failed;
    let mut answered = false;
    let mut entries = server.owed.take_all().into_iter().peekable();
    while let Some(entry) = entries.next() {
        let is_answer = match entry {
            Owed::Sync | Owed::Query(_) => true,
            // The last of them stands for the client's own.
            Owed::Own(OwnQuery::Restore) => {
                !matches!(entries.peek(), Some(Owed::Own(OwnQuery::Restore)))
            }
            Owed::Own(OwnQuery::RerunEnd) if !answered => {
                // What was run again has been answered but for its end.
                plan.make_for_client(|out| encode::ready_for_query(out, status));
                false
            }
            _ => false,
        };
        if !is_answer {
            continue;
        }
        answered = true;
        if !std::mem::take(&mut failed) {
            count(pool, |shared| &shared.failed);
            count_error(pool, &error);
            if outcome == Outcome::Unknown {
                count(pool, |shared| &shared.outcome_unknown);
            }
            plan.make_for_client(|out| match in_transaction && told {
                true => aborted().encode_error(out),
                false => error::with_severity(&error, Severity::Error, out),
            });
        }
        told = true;
        plan.make_for_client(|out| encode::ready_for_query(out, status));
    }
    if server.since_ready.segment_open {
        if !told {
            count(pool, |shared| &shared.failed);
        }
        skip_rest(session, server, pool, plan, in_transaction && told);
        // Up to Sync the client is told nothing more.
        told = true;
    }
    if in_transaction {
        if !told {
            count(pool, |shared| &shared.failed);
        }
        session.offline = Some(Box::new(Offline::lost((!told).then_some(error))));
    }
}

/// The client is in the middle of a segment: as after any error, what follows up to Sync is
/// skipped. Without its Sync nothing of it counts.
fn skip_rest(
    session: &mut Session,
    server: &mut Server,
    pool: &mut Pool,
    plan: &mut Plan,
    is_aborted: bool,
) {
    if session.phase == Phase::Skipping {
        return;
    }
    // A COMMIT counts when it is executed, as does what a procedure commits by itself.
    let idle = server.status == TransactionStatus::Idle;
    let counts_early = server.since_ready.ending == Ending::MayCommit
        || (idle && server.schema_change && session.rerun == Rerun::No);
    let error = match is_aborted {
        true => error_body(&aborted()),
        false if counts_early => {
            count(pool, |shared| &shared.outcome_unknown);
            error_body(&rerun::outcome_unknown())
        }
        false => lost(server, pool),
    };
    count_error(pool, &error);
    plan.make_for_client(|out| error::with_severity(&error, Severity::Error, out));
    session.phase = Phase::Skipping;
}

/// What is known of what was in flight outside a transaction block.
fn outcome(session: &Session, server: &Server) -> Outcome {
    if let Some(tries) = session.rerun.tries() {
        return if tries.rolled_back { Outcome::RolledBack } else { Outcome::Unknown };
    }
    if server.since_ready.ending != Ending::No {
        return Outcome::Unknown;
    }
    let completed = server.in_flight.progress() == Progress::Completed;
    let proven = server.last_words.is_some() && !completed;
    // A server that still reads COPY data has not committed it.
    let copying = server.copy_in;
    // Without its Sync nothing of a segment counts.
    let unsynced = !server.owed.iter().any(|e| matches!(e, Owed::Sync | Owed::Query(_)));
    let cut_read = server.in_flight.progress() == Progress::Answered
        && server.in_flight.whole().is_some_and(|bytes| rerun::is_read(bytes, session));
    match proven || copying || unsynced || cut_read {
        true => Outcome::RolledBack,
        false => Outcome::Unknown,
    }
}

/// The error that tells of a lost transaction: the server's own if it sent one, unless the
/// operator has chosen a code for it.
fn lost(server: &mut Server, pool: &Pool) -> Arc<[u8]> {
    let code = pool.lost_transaction_code();
    match server.last_words.take() {
        Some(body) if code == SqlState::ADMIN_SHUTDOWN => {
            server.last_words = Some(body.clone());
            body.into()
        }
        _ => error_body(&rerun::rolled_back(code)),
    }
}

const fn aborted() -> Report<'static> {
    Report::error(
        SqlState::IN_FAILED_SQL_TRANSACTION,
        "current transaction is aborted, commands ignored until end of transaction block",
    )
}

/// What was noted ahead for the client's statements is undone: none of it was confirmed.
fn undo_owed(session: &mut Session, server: &mut Server) {
    for entry in server.owed.iter_mut().rev() {
        let change = match entry {
            Owed::Parse(parse) => parse.change.as_ref(),
            Owed::Closed(change) => Some(&**change),
            Owed::Unnamed(_, Some(before)) => {
                if let Some((unnamed, is_unkept)) = before.client.take() {
                    session.set_unnamed(unnamed);
                    session.unnamed_is_unkept = is_unkept;
                }
                None
            }
            _ => None,
        };
        if let (Some(change), Some(names)) = (change, session.statements.as_mut()) {
            names.set(&change.name, change.before.clone());
        }
    }
}
