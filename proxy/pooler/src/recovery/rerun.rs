//! Which statements may be run again after their server connection broke, and how: inside a READ
//! ONLY transaction that the client does not see, so that nothing can be done twice.
//!
//! A reason to run again belongs into `decide`, one that depends on the text into `effects.rs`.
//! What else happens when a connection breaks is in `recovery.rs`; `docs/internals.md` has the
//! whole.

use pgimbal_wire::encode::TransactionStatus;
use pgimbal_wire::error::SqlState;

use crate::plan::Plan;
use crate::pool::Pool;
use crate::recovery::in_flight::Progress;
use crate::recovery::proof::{Proof, Rerun, Tries};
use crate::server::Server;
use crate::server::pending::OwnQuery;
use crate::session::{Phase, Session, setup};

/// How often one statement is run again. A primary that dies under it each time is not going to
/// answer it, and each try has waited for a primary before.
const TRIES: u8 = 5;

/// What to do with what was in flight on a connection that broke.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Again {
    /// Nothing: the client is told.
    No,
    /// It had not begun to count: it is sent elsewhere as if for the first time.
    Afresh(Vec<u8>),
    /// It is run again inside a READ ONLY transaction.
    ReadOnly(Vec<u8>),
}

/// Decides what becomes of the segment in flight on `server`, which has broken.
pub(crate) fn decide(
    session: &mut Session,
    server: &mut Server,
    pool: &Pool,
    proof: Proof,
) -> Again {
    let own_transaction = matches!(session.rerun(), Rerun::Running(_));
    let autocommit = server.status() == TransactionStatus::Idle || own_transaction;
    let tries = session.rerun().tries().unwrap_or(Tries::none(proof));
    // What is answered but for the end of the transaction around it must not be answered again.
    let is_due = !own_transaction
        || server.has_open_segment()
        || server.pending_mut().has_end_of(session.id());
    let possible = pool.outlives_server()
        && autocommit
        && server.in_flight().progress() == Progress::Unanswered
        && !server.has_failed()
        && server.ending() == crate::server::Ending::No
        && is_due
        && tries.count() < TRIES;
    if !possible || server.in_flight().whole().is_none() {
        return Again::No;
    }
    let effects = server.in_flight().effects();
    if session.rerun() == Rerun::No && effects.only_begins() {
        // A block that nothing has happened in; what stands behind it must not run without it.
        return Again::Afresh(server.in_flight_mut().take());
    }
    if !server.in_flight().has_end() && !own_transaction {
        // Nothing of a segment counts before its Sync.
        if effects.counts_early() {
            return Again::No;
        }
        return Again::Afresh(server.in_flight_mut().take());
    }
    if !effects.only_reads() {
        return Again::No;
    }
    session.set_rerun(Rerun::Due(tries.one_more()));
    Again::ReadOnly(server.in_flight_mut().take())
}

/// Whether a segment that is to be run again has nothing of it on `server`, which has broken: then
/// it is as due as before.
pub(crate) fn is_still_due(session: &mut Session, server: &Server) -> bool {
    match session.rerun() {
        Rerun::Running(tries) if server.in_flight().is_untouched() => {
            session.set_rerun(Rerun::Due(tries));
            true
        }
        Rerun::Due(_) => true,
        Rerun::Running(_) | Rerun::No => false,
    }
}

/// The segment without its Sync that stands behind others on a connection that has broken.
pub(crate) fn open_segment(session: &Session, server: &mut Server, pool: &Pool) -> Option<Vec<u8>> {
    let begun = server.status() == TransactionStatus::Idle
        && server.ending() == crate::server::Ending::No
        && session.rerun() == Rerun::No
        && session.phase() == Phase::Open
        && !server.in_flight().leaves_open(false);
    // Once those before it are settled, its own answer may have begun.
    let untouched = server.pending_mut().has_end_of(session.id())
        || (server.in_flight().progress() == Progress::Unanswered && !server.has_failed());
    let possible = begun && untouched && pool.outlives_server();
    server.in_flight().open_behind_others().filter(|_| possible)?;
    let counts_early = server.in_flight().effects().counts_early();
    (!counts_early).then(|| server.in_flight_mut().take())
}

/// Puts the transaction around a segment that is due to be run again, in front of its first
/// message.
pub(crate) fn begin(session: &mut Session, server: &mut Server, plan: &mut Plan) {
    if let Rerun::Due(tries) = session.rerun() {
        session.set_rerun(Rerun::Running(tries));
        setup::send_own(server, OwnQuery::RerunBegin, b"BEGIN TRANSACTION READ ONLY", plan);
    }
}

/// Ends the transaction behind the last message of the segment.
pub(crate) fn end(server: &mut Server, plan: &mut Plan) {
    setup::send_own(server, OwnQuery::RerunEnd, b"COMMIT", plan);
}

/// Whether an error of a segment that is run again says that it would have written, or cannot run
/// inside a transaction block: then nobody knows what it did the first time.
pub(crate) fn proves_nothing(code: SqlState) -> bool {
    code == SqlState::READ_ONLY_SQL_TRANSACTION
        || code == SqlState::ACTIVE_SQL_TRANSACTION
        || code == SqlState::INVALID_TRANSACTION_TERMINATION
}

/// Whether a statement cannot have written, whatever its text says: its transaction is READ ONLY.
pub(crate) fn runs_read_only(server: &Server) -> bool {
    // PostgreSQL 14 and later report both.
    [&b"in_hot_standby"[..], b"default_transaction_read_only"]
        .iter()
        .any(|name| server.reported().get(name) == Some(b"on"))
}
