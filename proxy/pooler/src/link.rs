//! The tie between a session and its server connection: settings on the way in, effects while it
//! lasts, and whether it may be loosened.

use std::rc::Rc;

use pgimbal_config::PoolMode;
use pgimbal_wire::encode::{self, TransactionStatus};

use crate::client_turn::{ClientTurn, Step};
use crate::effect::Effect;
use crate::owed::{Owed, OwnQuery};
use crate::pin::StatementPins;
use crate::plan::{Plan, Stop};
use crate::pool::Pool;
use crate::pooler::Tables;
use crate::reported::Reported;
use crate::server::{Body, Server, UnnamedStatement};
use crate::session::{ClientBody, Link, Presence, Session};
use crate::settings::{Replay, Reset, SettingsTable, When, after_reset_sql, replay_sql};
use crate::shared::PinSlot;
use crate::text::{Encoding, Reading, StandardStrings, Taint};

/// Brings the server connection to the session's settings before its first message. Waits for the
/// answer: with another search_path or role nothing may run.
pub(crate) fn enter(turn: &mut ClientTurn<'_>) -> Step {
    let Some(server) = turn.server.as_deref_mut() else { return Err(Stop::Checkout) };
    let wanted = turn.session.settings.current();
    if server.settings != wanted {
        let mut sql = Vec::new();
        let replay = replay_sql(&turn.tables.settings, server.settings, wanted, &mut sql);
        let queries: &[(OwnQuery, &[u8])] = match &replay {
            Replay::Nothing => &[],
            Replay::One(one) => &[(OwnQuery::Setup, &sql[one.clone()])],
            Replay::Two(one, two) => {
                &[(OwnQuery::SetupFirst, &sql[one.clone()]), (OwnQuery::Setup, &sql[two.clone()])]
            }
        };
        for (kind, text) in queries {
            send_own(server, *kind, text, turn.plan);
        }
        if !queries.is_empty() {
            turn.session.link = Link::Setup(server.id);
            return Err(Stop::Full);
        }
        turn.tables.settings.assign(&mut server.settings, wanted);
    }
    turn.session.link = Link::Ready(server.id);
    tell_reported(turn.session, server, turn.plan);
    Ok(())
}

/// Tells the client what its new server connection reports otherwise than the last one.
pub(crate) fn tell_reported(session: &mut Session, server: &Server, plan: &mut Plan) {
    if Rc::ptr_eq(&session.reported, &server.reported) {
        return;
    }
    for (name, value) in server.reported.news(&session.reported) {
        plan.make_for_client(|out| encode::parameter_status(out, name, value));
    }
    know_reported(session, &server.reported);
}

/// The client knows what the server reports.
pub(crate) fn know_reported(session: &mut Session, reported: &Rc<Reported>) {
    session.reported = Rc::clone(reported);
    session.reading = reading(reported);
}

/// How the texts of a session with these reported settings are read.
pub(crate) fn reading(reported: &Reported) -> Reading {
    let strings = match reported.get(b"standard_conforming_strings") {
        Some(b"off") => StandardStrings::Off,
        _ => StandardStrings::On,
    };
    let encoding =
        reported.get(b"client_encoding").map_or_else(Encoding::default, Encoding::from_name);
    Reading { strings, encoding }
}

/// Applies what the server has confirmed.
pub(crate) fn apply(
    effect: &Effect,
    session: &mut Session,
    server: &mut Server,
    pool: &Pool,
    tables: &mut Tables,
) {
    let table = &mut tables.settings;
    let when = if server.status == TransactionStatus::Idle && !server.since_ready.segment_open {
        When::Autocommit
    } else {
        When::InTransaction
    };
    let tracked = match effect {
        Effect::Set(list) => list.iter().try_for_each(|(name, value)| {
            server.newly_set.push(name.clone());
            session.settings.set(table, name, value, when)
        }),
        Effect::Reset(name) => reset(Reset::Name(name), session, server, table, when),
        Effect::ResetAll => reset(Reset::All, session, server, table, when),
        Effect::DiscardAll => {
            forget_statements(session, server);
            reset(Reset::Discard, session, server, table, When::Autocommit)
        }
        Effect::DeallocateAll => {
            forget_statements(session, server);
            Ok(())
        }
        Effect::Deallocate(name) => {
            let before = session.statements.as_mut().and_then(|names| names.set(name, None));
            if let Some(unkept) = before.filter(|statement| statement.body.is_none()) {
                // The client's name was lent for this; the statement itself is there still.
                let mut sql = b"DEALLOCATE ".to_vec();
                unkept.write_server_name(&mut sql);
                server.restore.push(sql.into());
            }
            Ok(())
        }
        Effect::Savepoint(name) => session.settings.savepoint(table, name),
        Effect::RollbackTo(name) => {
            session.settings.rollback_to(table, name);
            Ok(())
        }
        Effect::Release(name) => {
            session.settings.release(table, name);
            Ok(())
        }
        Effect::DiscardTemp | Effect::UnlistenAll | Effect::UnlockAll | Effect::CloseAll => Ok(()),
    };
    // A rollback would bring back what a statement inside a transaction has taken away.
    if when == When::Autocommit {
        session.pin.lift(effect);
    }
    if let Err(taint) = tracked {
        session.pin.taint(taint.into(), pool.shared.pin(pool.config.max_pinned));
    }
    settings_changed(session, server, pool, tables);
}

/// The server has reset to its own defaults; the client expects what it came with, which is set
/// as soon as the server is ready.
fn reset(
    reset: Reset<'_>,
    session: &mut Session,
    server: &mut Server,
    table: &mut SettingsTable,
    when: When,
) -> Result<(), Taint> {
    session.settings.reset(table, reset, when)?;
    let mut sql = Vec::new();
    let replay = after_reset_sql(table, server.settings, reset, &session.settings, &mut sql);
    match replay {
        Replay::Nothing => {}
        Replay::One(one) => server.restore.push(sql[one].into()),
        Replay::Two(one, two) => server.restore.extend([sql[one].into(), sql[two].into()]),
    }
    Ok(())
}

/// What the session has set since the last ReadyForQuery, as the server spells it: that completes
/// what a SET says in part (DateStyle), and makes equal settings equal bytes.
pub(crate) fn adopt_spelling(session: &mut Session, server: &mut Server, tables: &mut Tables) {
    for name in std::mem::take(&mut server.newly_set) {
        if let Some(value) = server.reported.get(&name) {
            session.settings.reported(&mut tables.settings, &name, value);
        }
    }
    tables.settings.assign(&mut server.settings, session.settings.current());
}

/// The session's settings stand otherwise than before, and the server's with them.
pub(crate) fn settings_changed(
    session: &mut Session,
    server: &mut Server,
    pool: &Pool,
    tables: &mut Tables,
) {
    tables.settings.assign(&mut server.settings, session.settings.current());
    if session.statements.is_some() {
        let slot =
            if session.pin.has_slot() { None } else { pool.shared.pin(pool.config.max_pinned) };
        refresh_statement_pins(session, tables, slot);
    }
}

/// Looks at the session's statements for reasons to keep its server connection.
pub(crate) fn refresh_statement_pins(
    session: &mut Session,
    tables: &Tables,
    slot: Option<PinSlot>,
) {
    let names = session.statements.as_deref();
    let settings = tables.parse_fingerprint(session.settings.current());
    let pins = StatementPins {
        unkept: session.unnamed_is_unkept || names.is_some_and(|names| names.any_unkept()),
        older_settings: names.is_some_and(|names| names.any_under_other(settings)),
    };
    session.pin.set_statements(pins, slot);
}

/// DISCARD ALL and DEALLOCATE ALL take this client's statements; the server has lost those of the
/// others too, which are put in again when they are next needed.
fn forget_statements(session: &mut Session, server: &mut Server) {
    session.statements = None;
    server.statements.clear();
}

/// Sends the reset query, after which the connection serves somebody else. Only `DISCARD ALL` is
/// known to leave nothing behind: it follows any other.
pub(crate) fn start_reset(server: &mut Server, pool: &Pool, plan: &mut Plan) {
    const DISCARD_ALL: &str = "DISCARD ALL";
    let query = pool.config.pool.reset_query.as_str();
    if !query.trim_end_matches([';', ' ']).eq_ignore_ascii_case(DISCARD_ALL) {
        send_own(server, OwnQuery::CustomReset, query.as_bytes(), plan);
    }
    send_own(server, OwnQuery::Reset, DISCARD_ALL.as_bytes(), plan);
}

/// Sends a query of the proxy's own. Like every simple query it destroys the unnamed statement.
pub(crate) fn send_own(server: &mut Server, kind: OwnQuery, sql: &[u8], plan: &mut Plan) {
    server.owed.push(Owed::Own(kind));
    server.unnamed = UnnamedStatement::Absent;
    plan.make_for_server(|out| encode::query(out, sql));
}

/// Whether the server connection may be given back now.
pub(crate) fn may_release(session: &Session, server: &Server, pool: &Pool) -> bool {
    server.is_settled()
        && session.between_server_messages()
        && !session.pin.is_set()
        && (pool.config.pool.mode != PoolMode::Session)
        && session.presence == Presence::Here
}

impl Session {
    /// Whether no message is half-way to the server.
    #[inline]
    pub(crate) const fn between_server_messages(&self) -> bool {
        matches!(self.body, ClientBody::Plain(Body::None | Body::Drop(_)))
    }
}
