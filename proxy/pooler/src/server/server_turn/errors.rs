//! An error of a server's: who is told, and what it undoes.

use pgimbal_config::PoolMode;
use pgimbal_wire::encode;
use pgimbal_wire::error::{self, ErrorFields, Severity, SqlState};
use pgimbal_wire::tag::backend;

use super::turn::{Forwarding, ServerTurn};
use crate::plan::Stop;
use crate::pool::Place;
use crate::recovery::proof::{self, Proof, Rerun};
use crate::recovery::rerun;
use crate::server::Setup;
use crate::server::pending::{NameChange, NameFor, Origin, OwnQuery, Pending, UnnamedBefore};
use crate::server::prepared::{SERVER_NAME_PREFIX, UnnamedStatement};
use crate::session::settings::RefusedSettings;
use crate::session::setup;
use crate::sql::Kinds;
use crate::topology::ProbeHint;

/// ErrorResponse.
pub(super) fn error(turn: &mut ServerTurn<'_>, body: &[u8]) -> Result<Forwarding, Stop> {
    let Ok(fields) = ErrorFields::parse(body) else { return Err(Stop::Fault) };
    turn.pool.stats_mut().error(fields.code);
    if matches!(fields.severity, Severity::Fatal | Severity::Panic) {
        // The connection ends now; what the client is told depends on its state then.
        turn.server.shutdown_notice = Some(body.into());
        return Ok(Forwarding::Swallow);
    }
    learn_from_error(turn, fields.code, body);
    turn.server.since_ready.failed = true;
    turn.server.copy_in = false;
    let fate = error_of_statement(turn, fields.code);
    match turn.server.pending.front() {
        Some(Pending::Query(_)) => {
            ask_what_was_prepared(turn);
            Ok(error_after_lending(turn, fields.code, fate))
        }
        // It stands for the client's own end.
        Some(Pending::Own(OwnQuery::RerunEnd)) => Ok(Forwarding::Pass),
        Some(Pending::Own(OwnQuery::SetupOne)) => {
            setting_refused(turn, fields.code, body);
            Ok(Forwarding::Swallow)
        }
        Some(Pending::Own(OwnQuery::Question)) => {
            if let Some((asking, _)) = &mut turn.server.asking {
                asking.refused(fields.code);
            }
            Ok(Forwarding::Swallow)
        }
        Some(Pending::Own(_)) => Ok(Forwarding::Swallow),
        Some(Pending::TemporaryName(NameFor::Query, _)) => {
            // What needs the name fails with it too, and is told why.
            turn.server.name_error = Some(body.into());
            skip_to_sync(turn, fields.code);
            Ok(Forwarding::Swallow)
        }
        Some(Pending::Witness(NameFor::Query)) => {
            skip_to_sync(turn, fields.code);
            Ok(Forwarding::Swallow)
        }
        Some(Pending::Changed | Pending::Refused(_)) => {
            tell_another_error(turn);
            skip_to_sync(turn, fields.code);
            Ok(Forwarding::Swallow)
        }
        Some(_) => {
            if fields.code == SqlState::INVALID_SQL_STATEMENT_NAME
                && turn.pool.config().pool.mode != PoolMode::Session
                && names_own(body)
            {
                // What was believed to be there is not: nothing else is believed either.
                turn.server.residue.insert(Kinds::STATEMENTS);
            }
            skip_to_sync(turn, fields.code);
            Ok(fate)
        }
        None if turn.session.is_some() => Ok(Forwarding::Pass),
        None => Err(Stop::Fault),
    }
}

/// What an error tells of the schema and of the node.
fn learn_from_error(turn: &mut ServerTurn<'_>, code: SqlState, body: &[u8]) {
    if code == SqlState::FEATURE_NOT_SUPPORTED && is_stale_plan(body) {
        turn.pool.shared().database.schema_changed();
    }
    if code == SqlState::READ_ONLY_SQL_TRANSACTION
        && let Some(epoch) = turn.server.epoch
        && turn.pool.place() == Place::Primary
    {
        turn.tables.probe_hint = Some((turn.pool.id(), ProbeHint::ReadOnly(epoch.node)));
    }
}

/// A longer text has failed: a PREPARE at its end may have been run nevertheless.
fn ask_what_was_prepared(turn: &mut ServerTurn<'_>) {
    let Some(Pending::Query(Some(script))) = turn.server.pending.front() else { return };
    if let Some(session) = turn.session.as_deref_mut().filter(|_| script.may_have_prepared()) {
        session.raised_mut().insert(Kinds::STATEMENTS);
    }
}

/// The error that stands in place of the server's.
fn tell_another_error(turn: &mut ServerTurn<'_>) {
    let Some(session) = turn.session_id() else { return };
    turn.plan.make_for_session(session, |out| match turn.server.pending.front() {
        Some(Pending::Refused(told)) => {
            encode::message(out, backend::ERROR_RESPONSE, |out| out.extend_from_slice(told));
        }
        _ => encode_changed(out),
    });
}

/// An error of the client's statement passes; that of one which is run again may prove nothing.
fn error_of_statement(turn: &mut ServerTurn<'_>, code: SqlState) -> Forwarding {
    let tries = match turn.session.as_deref().map(|session| session.rerun()) {
        Some(Rerun::Running(tries)) if rerun::proves_nothing(code) => tries,
        _ => return Forwarding::Pass,
    };
    let report = match tries.proof() == Proof::RolledBack {
        true => proof::rolled_back(turn.pool.lost_transaction_code()),
        false => proof::outcome_unknown(),
    };
    turn.tell(|out| report.encode_error(out));
    Forwarding::Swallow
}

/// The server skips everything up to Sync: undoes what was noted ahead for it.
fn skip_to_sync(turn: &mut ServerTurn<'_>, code: SqlState) {
    let (skipped, sync_is_pending) = turn.server.pending.take_skipped();
    for (index, entry) in skipped.into_iter().enumerate().rev() {
        match entry {
            Pending::Unnamed(origin, before) => {
                // A text that cannot be converted is refused before anything is destroyed.
                let is_refused = matches!(
                    code,
                    SqlState::CHARACTER_NOT_IN_REPERTOIRE | SqlState::UNTRANSLATABLE_CHARACTER
                );
                let kept = is_refused && before.is_some();
                let failed = index == 0 && !kept;
                undo_unnamed(turn, failed, origin, before);
            }
            Pending::Parse(parse) => {
                if let Some(statement) = &parse.statement {
                    turn.server.statements.remove(statement.id);
                }
                if let Some(change) = parse.change {
                    undo(turn, change);
                }
            }
            Pending::Closed(change) => undo(turn, *change),
            Pending::Witness(_) => turn.server.own_statements.doubt(),
            // The Close was skipped, so the statement is still there.
            Pending::Evict(id) => turn.server.statements.stays(*id),
            _ => {}
        }
    }
    let Some(session) = turn.session.as_deref_mut() else { return };
    if !sync_is_pending {
        session.skip_to_sync();
        turn.server.since_ready.segment_open = true;
    }
    setup::refresh_statement_pins(session, turn.pool, turn.tables, turn.now);
}

/// A Parse of the unnamed statement that failed has destroyed it; one that was skipped has
/// changed nothing.
fn undo_unnamed(
    turn: &mut ServerTurn<'_>,
    failed: bool,
    origin: Origin,
    before: Option<Box<UnnamedBefore>>,
) {
    if turn.server.pending.changes_unnamed() {
        // A later segment has changed it since.
        return;
    }
    let session = turn.session.as_deref_mut();
    if failed {
        turn.server.unnamed = UnnamedStatement::Absent;
        if let Some(session) = session.filter(|_| origin == Origin::Client) {
            session.set_unnamed(None);
        }
    } else if let Some(before) = before {
        turn.server.unnamed = before.server;
        if let (Some(session), Some((client, is_uncached))) = (session, before.client) {
            session.restore_unnamed(client, is_uncached);
            // The server still has it.
            if is_uncached {
                turn.server.unnamed = session.own_unnamed();
            }
        }
    }
}

fn undo(turn: &mut ServerTurn<'_>, change: NameChange) {
    if let Some(names) = turn.session.as_deref_mut().and_then(|session| session.statements_mut()) {
        names.set(&change.name, change.before);
    }
}

/// An error that follows from a name that could not be made real is told as the reason of that.
fn error_after_lending(turn: &mut ServerTurn<'_>, code: SqlState, fate: Forwarding) -> Forwarding {
    let follows =
        code == SqlState::INVALID_SQL_STATEMENT_NAME || code == SqlState::IN_FAILED_SQL_TRANSACTION;
    match turn.server.name_error.take() {
        Some(error) if follows && fate == Forwarding::Pass => {
            turn.tell(|out| error::with_severity(&error, Severity::Error, out));
            Forwarding::Swallow
        }
        _ => fate,
    }
}

/// One of the session's settings is refused by itself.
fn setting_refused(turn: &mut ServerTurn<'_>, code: SqlState, body: &[u8]) {
    let Setup::OneByOne { settings, done, refused } = &mut turn.server.setup else { return };
    let Some(setting) = settings.get(*done) else { return };
    if code == SqlState::INVALID_NAME {
        // PostgreSQL has dropped it: a placeholder whose library has come since.
        if let Some(session) = turn.session.as_deref_mut() {
            session.settings_mut().forget(&mut turn.tables.settings, &setting.name);
        }
        return;
    }
    refused
        .get_or_insert_with(|| RefusedSettings { names: Vec::new(), error: body.into() })
        .names
        .push(setting.name[..].into());
}

/// Whether an error names a statement of pgimbal's own. A client's name that looks like one is
/// escaped by a colon in front of it.
fn names_own(body: &[u8]) -> bool {
    const LENGTH: usize = SERVER_NAME_PREFIX.len() + 32;
    let is_own = |name: &[u8]| {
        let digits = name.strip_prefix(b":").is_none().then(|| &name[1..]);
        let digits = digits.and_then(|name| name.strip_prefix(SERVER_NAME_PREFIX));
        digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    };
    error::fields(body).any(|(kind, value)| kind == b'M' && value.windows(LENGTH + 1).any(is_own))
}

/// PostgreSQL's own error for a statement whose rows look otherwise than when it was parsed
/// (plancache.c).
fn encode_changed(out: &mut Vec<u8>) {
    encode::message(out, backend::ERROR_RESPONSE, |out| {
        for (kind, value) in [
            (b'S', "ERROR"),
            (b'V', "ERROR"),
            (b'C', "0A000"),
            (b'M', "cached plan must not change result type"),
            (b'F', "plancache.c"),
            (b'R', "RevalidateCachedQuery"),
        ] {
            out.push(kind);
            out.extend_from_slice(value.as_bytes());
            out.push(0);
        }
        out.push(0);
    });
}

/// "cached plan must not change result type", told by the routine that raises it: the message may
/// be in any language.
fn is_stale_plan(body: &[u8]) -> bool {
    error::fields(body).any(|(kind, value)| kind == b'R' && value == b"RevalidateCachedQuery")
}
