//! The tie between a session and its server connection: settings on the way in, and whether it may
//! be loosened.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use pgimbal_config::PoolMode;
use pgimbal_wire::encode;

use crate::plan::{Body, Plan, Stop};
use crate::pool::Pool;
use crate::server::pending::{OwnQuery, Pending};
use crate::server::prepared::UnnamedStatement;
use crate::server::reported::Reported;
use crate::server::{Server, Setup};
use crate::session::pin::PinReason;
use crate::session::settings::{
    ClientSettings, RefusedSettings, Replay, Setting, SettingsId, assign, order_of, replay_sql,
};
use crate::session::state::asking::Asking;
use crate::session::state::reset;
use crate::session::{ClientBody, Link, Presence, Session};
use crate::sql::{self, Calls, Encoding, Form, Kinds, Reading, Readings, StandardStrings};
use crate::tables::Tables;

/// Brings the server connection to the session's settings before its first message.
///
/// # Errors
/// [`Stop::Wait`] until the server has answered, where anything had to be sent: with another
/// search_path or role nothing may run.
pub(crate) fn enter(
    session: &mut Session,
    server: &mut Server,
    pool: &mut Pool,
    tables: &mut Tables,
    now: Instant,
    plan: &mut Plan,
) -> Result<(), Stop> {
    let mut sent = reset_ahead(server, pool, tables, plan);
    sent |= ask_for_facts(server, pool, now, plan);
    sent |= send_settings(server, session.settings.current(), tables, plan);
    if sent {
        session.link = Link::Setup(server.id());
        return Err(Stop::Wait);
    }
    session.link = Link::Ready(server.id());
    tell_reported(session, server, plan);
    Ok(())
}

/// Asks about the database what decides how its statements are followed, if that has not been told
/// lately. Returns whether anything was sent.
fn ask_for_facts(server: &mut Server, pool: &mut Pool, now: Instant, plan: &mut Plan) -> bool {
    let facts = &pool.shared().database.facts;
    if pool.config().pool.mode == PoolMode::Session || !facts.are_due(now) {
        return false;
    }
    send_facts_question(server, pool, now, plan);
    true
}

/// Asks about the database.
pub(crate) fn send_facts_question(
    server: &mut Server,
    pool: &mut Pool,
    now: Instant,
    plan: &mut Plan,
) {
    let asking = Asking::for_facts();
    *pool.stats_mut().questions.entry("session").or_default() += 1;
    plan.make_for_server(|out| asking.write(server.own_statements_mut(), b"", out));
    server.pending_mut().push(Pending::Own(OwnQuery::Facts));
    server.statements_mut().end_segment();
    server.begin_asking(asking, now);
}

/// Brings a server connection to these settings. Returns whether anything was sent.
pub(crate) fn send_settings(
    server: &mut Server,
    wanted: SettingsId,
    tables: &mut Tables,
    plan: &mut Plan,
) -> bool {
    server.set_setup(Setup::Whole);
    let mut sql = Vec::new();
    let replay = replay_sql(&tables.settings, server.settings(), wanted, &mut sql);
    let queries: &[(OwnQuery, &[u8])] = match &replay {
        Replay::Nothing => &[],
        Replay::One(one) => &[(OwnQuery::Setup, &sql[one.clone()])],
        Replay::Two(one, two) => {
            &[(OwnQuery::SetupFirst, &sql[one.clone()]), (OwnQuery::Setup, &sql[two.clone()])]
        }
    };
    for (kind, text) in queries {
        let text = without_waiting(server, wanted, tables, text);
        send_own(server, *kind, &text, plan);
    }
    if queries.is_empty() {
        server.assign_settings(&mut tables.settings, wanted);
    }
    !queries.is_empty()
}

/// The queries that bring the settings `names` back to the client's startup values, where that is
/// where the client stands: it may have set one since, or rolled the RESET back.
pub(crate) fn restoring(
    client: &ClientSettings,
    names: &[Arc<[u8]>],
    tables: &Tables,
) -> Vec<Box<[u8]>> {
    let table = &tables.settings;
    let (base, current) = (client.base(), client.current());
    let mut restored: Vec<&Setting> = table
        .settings(base)
        .iter()
        .filter(|setting| names.contains(&setting.name))
        .filter(|setting| table.get(current, &setting.name) == Some(&setting.value))
        .collect();
    restored.sort_by_key(|setting| order_of(&setting.name));
    let query = |setting: &Setting| {
        let mut sql = Vec::new();
        assign(setting, &mut sql);
        sql.into()
    };
    restored.into_iter().map(query).collect()
}

/// Takes off what the session before may have left. Returns whether anything was sent.
fn reset_ahead(server: &mut Server, pool: &mut Pool, tables: &mut Tables, plan: &mut Plan) -> bool {
    let residue = server.take_residue();
    if residue.is_empty() {
        return false;
    }
    send_reset(server, OwnQuery::ResetAhead, residue, pool, tables, plan);
    true
}

/// Sends the lightest reset that covers `kinds`, as queries of this kind.
pub(crate) fn send_reset(
    server: &mut Server,
    kind: OwnQuery,
    kinds: Kinds,
    pool: &mut Pool,
    tables: &mut Tables,
    plan: &mut Plan,
) {
    pool.stats_mut().resets += 1;
    let seed = tables.seed(server.id(), server.transaction());
    let text = reset::reset_sql(kinds, seed);
    if !text.is_empty() {
        send_own(server, kind, &text, plan);
    }
    if kinds.meets(Kinds::STATEMENTS) {
        send_own(server, kind, &reset::without_waiting(b"DEALLOCATE ALL;"), plan);
        server.forget_statements();
    }
    if kinds.meets(Kinds::SETTINGS.union(Kinds::ROLE).union(Kinds::UNNAMED_SETTINGS)) {
        server.assign_settings(&mut tables.settings, SettingsId::EMPTY);
    }
}

/// A SELECT under `default_transaction_deferrable` may wait for all serializable writers, and under
/// a serializable default it fails on a standby: a text that may meet them brings a transaction of
/// its own.
fn without_waiting(server: &Server, wanted: SettingsId, tables: &Tables, text: &[u8]) -> Vec<u8> {
    const ISOLATION: &[u8] = b"default_transaction_isolation";
    let is_on = |name: &[u8]| server.reported().get(name) == Some(b"on");
    let sets = |id| tables.settings.get(id, ISOLATION).is_some();
    let may_wait = sets(server.settings())
        || sets(wanted)
        || is_on(b"default_transaction_read_only")
        || is_on(b"in_hot_standby");
    match may_wait {
        true => reset::without_waiting(text),
        false => text.to_vec(),
    }
}

/// A server connection has refused its session's settings, whatever the reason: it is brought back
/// to its defaults, which needs no privilege, and the settings are set one by one.
pub(crate) fn heal(session: &Session, server: &mut Server, tables: &mut Tables, plan: &mut Plan) {
    let wanted = session.settings.current();
    let mut settings: Vec<Setting> = tables.settings.settings(wanted).to_vec();
    settings.sort_by_key(|setting| order_of(&setting.name));
    // The query that was refused may have been in a transaction of its own.
    let text = ["ROLLBACK;", reset::SETTINGS].concat();
    send_own(server, OwnQuery::Heal, text.as_bytes(), plan);
    server.assign_settings(&mut tables.settings, SettingsId::EMPTY);
    for setting in &settings {
        let mut sql = Vec::new();
        assign(setting, &mut sql);
        let sql = without_waiting(server, wanted, tables, &sql);
        send_own(server, OwnQuery::SetupOne, &sql, plan);
    }
    server.set_setup(Setup::OneByOne { settings, done: 0, refused: None });
}

/// Tells the client what its new server connection reports otherwise than the last one.
pub(crate) fn tell_reported(session: &mut Session, server: &Server, plan: &mut Plan) {
    let told = match session.routing.is_some() {
        true => told_of_primary(session),
        false => None,
    };
    if told.is_none() && Rc::ptr_eq(&session.reported, server.reported()) {
        return;
    }
    let elsewhere = session.reads_elsewhere();
    for (name, value) in server.reported().iter() {
        let known = match &told {
            Some(told) if is_of_primary(name) => told.get(name),
            _ => session.reported.get(name),
        };
        if known != Some(value) && !(elsewhere && is_of_primary(name)) {
            plan.make_for_session(session.id, |out| encode::parameter_status(out, name, value));
        }
    }
    know_reported(session, server.reported());
}

/// Whether a setting tells of the node that the session's writes go to. A session that reads on a
/// replica because of what its statements do is not told the replica's.
pub(crate) fn is_of_primary(name: &[u8]) -> bool {
    const NAMES: [&[u8]; 3] =
        [b"in_hot_standby", b"default_transaction_read_only", b"server_version"];
    NAMES.contains(&name)
}

/// What the client knows of the primary, if the session comes from a replica that was chosen for
/// what it had sent. It is kept when it goes to one.
fn told_of_primary(session: &mut Session) -> Option<Rc<Reported>> {
    let elsewhere = session.reads_elsewhere();
    let reported = Rc::clone(&session.reported);
    let routing = session.routing_mut()?;
    match elsewhere {
        true => {
            routing.keep_told(reported);
            None
        }
        false => routing.take_told(),
    }
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
    let client = reported.get(b"client_encoding");
    let server = reported.get(b"server_encoding").unwrap_or_default();
    let encoding = client.map_or_else(Encoding::default, |client| Encoding::of(client, server));
    Reading { strings, encoding }
}

/// What the session has set since the last ReadyForQuery, as the server spells it: that completes
/// what a SET says in part (DateStyle), and makes equal settings equal bytes.
pub(crate) fn adopt_spelling(session: &mut Session, server: &mut Server, tables: &mut Tables) {
    for name in server.take_newly_set() {
        if let Some(value) = server.reported().get(&name) {
            session.settings.reported(&mut tables.settings, &name, value);
        }
    }
    server.assign_settings(&mut tables.settings, session.settings.current());
}

/// The session's settings stand otherwise than before, and the server's with them.
pub(crate) fn settings_changed(
    session: &mut Session,
    server: &mut Server,
    pool: &Pool,
    tables: &mut Tables,
    now: Instant,
) {
    server.assign_settings(&mut tables.settings, session.settings.current());
    refresh_settings_pins(session, pool, tables, now);
}

/// Pins the session, or lets it go, for what its settings are. A setting that pins by its name or
/// value is looked for here: it is called whenever the session's settings have changed, by a text
/// or by code that a question has found, but not for those of the startup packet.
pub(crate) fn refresh_settings_pins(
    session: &mut Session,
    pool: &Pool,
    tables: &Tables,
    now: Instant,
) {
    if session.statements.is_some() {
        refresh_statement_pins(session, pool, tables, now);
    }
}

/// Looks at the session's statements for reasons to keep its server connection.
pub(crate) fn refresh_statement_pins(
    session: &mut Session,
    pool: &Pool,
    tables: &Tables,
    now: Instant,
) {
    let names = session.statements.as_deref();
    let settings = tables.parse_fingerprint(session.settings.current());
    let large = session.unnamed_is_uncached || names.is_some_and(|names| names.any_uncached());
    let older = names.is_some_and(|names| names.any_fixed_otherwise(settings));
    session.pin.set(PinReason::LargeStatement, large, now);
    session.pin.set(PinReason::StatementUnderOlderSettings, older, now);
    hold_place(session, pool);
}

/// A session that is pinned takes a place among those of the pool, if there is one left; without
/// it, it is pinned all the same. Returns whether it has one.
pub(crate) fn hold_place(session: &mut Session, pool: &Pool) -> bool {
    if !session.pin.is_set() || session.pin.has_slot() {
        return true;
    }
    match pool.shared().pin(pool.config().max_pinned) {
        Some(slot) => {
            session.pin.hold(slot);
            true
        }
        None => false,
    }
}

/// Sends the operator's reset query, after which the connection serves somebody else. Only `DISCARD
/// ALL` is known to leave nothing behind: it follows any other.
pub(crate) fn start_reset(server: &mut Server, pool: &mut Pool, tables: &Tables, plan: &mut Plan) {
    pool.stats_mut().resets += 1;
    if tables.settings.get(server.settings(), b"default_transaction_isolation").is_some() {
        // Nothing that follows is to wait for serializable writers.
        send_own(server, OwnQuery::CustomReset, reset::SETTINGS.as_bytes(), plan);
    }
    let query = pool.config().pool.reset_query.as_str();
    if !is_discard_all(query) {
        send_own(server, OwnQuery::CustomReset, query.as_bytes(), plan);
    }
    send_own(server, OwnQuery::Reset, b"DISCARD ALL", plan);
}

/// Whether the reset query is the default, however it is written.
pub(crate) fn is_discard_all(query: &str) -> bool {
    let classified = sql::classify(query.as_bytes(), Readings::Any, Calls::Text);
    classified.only() == Some(&Form::DiscardAll)
}

/// Sends a query of the proxy's own. Like every simple query it destroys the unnamed statement.
pub(crate) fn send_own(server: &mut Server, kind: OwnQuery, sql: &[u8], plan: &mut Plan) {
    match kind.is_of_no_session() {
        true => server.pending_mut().push_own(Pending::Own(kind)),
        false => server.pending_mut().push(Pending::Own(kind)),
    }
    server.set_unnamed(UnnamedStatement::Absent);
    plan.make_for_server(|out| encode::query(out, sql));
}

/// Whether nothing of the client's or the proxy's is under way on the server connection, so that it
/// may be asked or given back.
pub(crate) fn is_between(session: &Session, server: &Server) -> bool {
    server.is_settled()
        && server.session() == Some(session.id)
        && session.between_server_messages()
        && session.presence == Presence::Here
        && matches!(session.link, Link::Ready(_))
}

/// Whether the server connection may be given back now.
pub(crate) fn may_release(session: &Session, server: &Server, pool: &Pool) -> bool {
    is_between(session, server)
        && session.raised.is_empty()
        && !session.pin.is_set()
        && (pool.config().pool.mode != PoolMode::Session)
}

impl Session {
    /// Whether no message is half-way to the server.
    #[inline]
    pub(crate) const fn between_server_messages(&self) -> bool {
        matches!(self.body, ClientBody::Plain(Body::None | Body::Drop(_)))
    }

    /// What the next message is told, if it does not mend it: settings of the session that no
    /// server connection takes.
    pub(crate) fn refused_error(&self) -> Option<&RefusedSettings> {
        self.refused.as_deref()
    }
}
