//! A query of the proxy's own is done: what follows from its answer.

use pgimbal_wire::encode::TransactionStatus;

use super::turn::{Forwarding, Freed, ServerTurn};
use super::{catalog, ready};
use crate::plan::Stop;
use crate::recovery::proof::Rerun;
use crate::server::Setup;
use crate::server::pending::{OwnQuery, Pending};
use crate::session::channels::Here;
use crate::session::settings::{RefusedSettings, SettingsId};
use crate::session::{Link, Presence, Trial, arrival, setup};
use crate::sql::Kinds;

/// A query of the proxy's own is done; `failed` if an error came.
pub(super) fn own_query_ended(
    turn: &mut ServerTurn<'_>,
    kind: OwnQuery,
    failed: bool,
) -> Result<Forwarding, Stop> {
    let may_fail = matches!(
        kind,
        OwnQuery::Setup
            | OwnQuery::SetupFirst
            | OwnQuery::SetupOne
            | OwnQuery::Question
            | OwnQuery::Facts
            | OwnQuery::Catalog
            | OwnQuery::Listen
            | OwnQuery::RerunEnd
    );
    let may_fail = may_fail || (kind == OwnQuery::Restore && status_is_idle(turn));
    if failed && !may_fail {
        if matches!(kind, OwnQuery::Heal | OwnQuery::ResetAhead) {
            turn.tables.rejected = Some(turn.pool.id());
        }
        // Nobody can say in which state it is.
        return Err(Stop::Fault);
    }
    match kind {
        OwnQuery::SetupFirst if failed => {
            turn.freed = Freed::No;
            turn.server.setup = Setup::Refused;
        }
        OwnQuery::Setup if failed || matches!(turn.server.setup, Setup::Refused) => {
            setup_failed(turn);
        }
        OwnQuery::ResetAhead | OwnQuery::SetupFirst | OwnQuery::Setup | OwnQuery::Heal => {
            setup_goes_on(turn);
        }
        OwnQuery::SetupOne => setting_answered(turn, failed)?,
        OwnQuery::Question => question_answered(turn, failed),
        OwnQuery::Facts => facts_answered(turn, failed),
        OwnQuery::Catalog => catalog::answered(turn, failed),
        OwnQuery::Listen => listens(turn, failed),
        OwnQuery::Restore => return Ok(restored(turn, failed)),
        OwnQuery::RerunEnd => {
            ready::count(turn);
            if let Some(session) = turn.session.as_deref_mut() {
                session.set_rerun(Rerun::No);
            }
            return Ok(Forwarding::Pass);
        }
        OwnQuery::RerunBegin => turn.freed = Freed::No,
        OwnQuery::Rollback if is_setting_up(turn) => setup_goes_on(turn),
        OwnQuery::Rollback
        | OwnQuery::CustomReset
        | OwnQuery::Reset
        | OwnQuery::Deallocate
        | OwnQuery::Clean
        | OwnQuery::Untimed => {}
    }
    if kind == OwnQuery::Reset {
        turn.tables.settings.assign(&mut turn.server.settings, SettingsId::EMPTY);
        turn.server.residue.remove(Kinds::ANYTHING);
        turn.server.forget_statements();
    }
    Ok(Forwarding::Swallow)
}

/// A part of what the client came with is set again, or refused.
fn restored(turn: &mut ServerTurn<'_>, failed: bool) -> Forwarding {
    if failed {
        // It is told when it needs it.
        turn.server.residue.insert(Kinds::SETTINGS);
    }
    if matches!(turn.server.pending.front(), Some(Pending::Own(OwnQuery::Restore))) {
        return Forwarding::Swallow;
    }
    if let Some(session) = turn.session.as_deref_mut() {
        setup::tell_reported(session, turn.server, turn.plan);
    }
    // It stands for the client's own.
    Forwarding::Pass
}

fn status_is_idle(turn: &ServerTurn<'_>) -> bool {
    turn.server.status == TransactionStatus::Idle
}

/// The settings were refused, all at once. The query was one implicit transaction: nothing of
/// it holds.
fn setup_failed(turn: &mut ServerTurn<'_>) {
    turn.freed = Freed::No;
    if let Some(session) = turn.session.as_deref() {
        setup::heal(session, turn.server, turn.tables, turn.plan);
    }
}

/// Whether the session waits for its server connection to stand where it does.
fn is_setting_up(turn: &ServerTurn<'_>) -> bool {
    turn.session.as_deref().is_some_and(|session| {
        matches!(session.link(), Link::Setup(_)) && session.presence() == Presence::Here
    })
}

/// A part of the way to the session's settings is done.
fn setup_goes_on(turn: &mut ServerTurn<'_>) {
    turn.freed = Freed::No;
    if matches!(turn.server.pending.front(), Some(Pending::Own(_))) {
        return;
    }
    let Some(session) = turn.session.as_deref_mut() else { return };
    let current = session.settings().current();
    setup_ended(turn, current, None);
}

/// One setting by itself was taken or refused.
fn setting_answered(turn: &mut ServerTurn<'_>, failed: bool) -> Result<(), Stop> {
    turn.freed = Freed::No;
    if failed && turn.server.status != TransactionStatus::Idle {
        setup::send_own(turn.server, OwnQuery::Rollback, b"ROLLBACK", turn.plan);
    }
    let Setup::OneByOne { settings, done, refused } = &mut turn.server.setup else {
        return Ok(());
    };
    *done += 1;
    if *done < settings.len() {
        return Ok(());
    }
    let refused = refused.take();
    let settings = std::mem::take(settings);
    turn.server.setup = Setup::Whole;
    let is_used = turn.server.transaction > 2 * settings.len() as u64 + 3;
    let names = refused.as_ref().map_or(&[][..], |refused| &refused.names);
    if is_used && names.iter().any(|name| **name == *b"temp_buffers") {
        // It can be set only before temporary tables are used: another connection takes it.
        return Err(Stop::Fault);
    }
    let taken = settings.into_iter().filter(|s| !names.iter().any(|name| **name == *s.name));
    let Ok(at) = turn.tables.settings.intern(taken.collect()) else {
        return Err(Stop::Fault);
    };
    setup_ended(turn, at, refused);
    turn.tables.settings.release(at);
    Ok(())
}

/// The server connection stands at `at`, which is where the session does but for what is
/// `refused`.
fn setup_ended(turn: &mut ServerTurn<'_>, at: SettingsId, refused: Option<RefusedSettings>) {
    let Some(session) = turn.session.as_deref_mut() else { return };
    turn.tables.settings.assign(&mut turn.server.settings, at);
    if matches!(session.link(), Link::Ready(_)) {
        // Its last statement was asked about.
        turn.freed = Freed::Perhaps;
    }
    session.set_link(Link::Ready(turn.server.id));
    if refused.is_some() {
        // Its settings are set anew for whatever it does next.
        turn.server.residue.insert(Kinds::SETTINGS);
    }
    session.set_refused(refused);
    match session.trial() {
        Trial::Due => {
            let ServerTurn { server, pool, tables, now, plan, .. } = turn;
            arrival::greet_tried(session, server, pool, tables, *now, plan);
            turn.freed = Freed::Perhaps;
        }
        Trial::None => setup::tell_reported(session, turn.server, turn.plan),
    }
}

/// The server was asked about its database.
fn facts_answered(turn: &mut ServerTurn<'_>, failed: bool) {
    if turn.server.status != TransactionStatus::Idle {
        setup::send_own(turn.server, OwnQuery::Rollback, b"ROLLBACK", turn.plan);
    }
    if failed {
        turn.server.own_statements.doubt();
    }
    let asking = turn.server.asking.take();
    let answer = asking.and_then(|(asking, _)| asking.answer()).filter(|_| !failed);
    let session = answer.and_then(|answer| answer.session);
    let facts = &turn.pool.shared().database.facts;
    // Without an answer the worst is believed, for as long as an answer would be.
    let (event_triggers, other_set_config) =
        session.map_or((true, true), |session| (session.event_triggers, session.other_set_config));
    facts.learn(event_triggers, other_set_config, turn.now);
    // The session's own message comes next.
    turn.freed = Freed::No;
    if is_setting_up(turn) {
        setup_goes_on(turn);
    }
}

/// The server connection listens to the channels of the session, whose own message comes next.
fn listens(turn: &mut ServerTurn<'_>, failed: bool) {
    turn.freed = Freed::No;
    if let Some(session) = turn.session.as_deref_mut().filter(|_| !failed) {
        session.channels_mut().set_here(Here::Yes);
    }
}

/// The server was asked what the session has left on it.
fn question_answered(turn: &mut ServerTurn<'_>, failed: bool) {
    if turn.server.status != TransactionStatus::Idle {
        // It broke off in the middle of its transaction.
        setup::send_own(turn.server, OwnQuery::Rollback, b"ROLLBACK", turn.plan);
    }
    let mut plan = std::mem::take(turn.plan);
    if let Some(mut books) = turn.books() {
        books.answered(failed, &mut plan);
    }
    // What code has reset stands at the client's startup values, and the client is told so.
    if let Some(session) = turn.session.as_deref_mut()
        && session.presence() == Presence::Here
        && turn.server.asking.is_none()
    {
        let wanted = session.settings().current();
        setup::send_settings(turn.server, wanted, turn.tables, &mut plan);
    }
    *turn.plan = plan;
}
