//! How a session begins: what it is told, and what its startup packet asks for.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use pgimbal_wire::encode::{self, TransactionStatus};
use pgimbal_wire::error::{ErrorFields, Report, Severity, SqlState, with_severity};

use crate::cancel::CancelKey;
use crate::cluster::route;
use crate::core::Core;
use crate::error::error_body;
use crate::ids::{PoolId, SessionId};
use crate::plan::Plan;
use crate::pool::shared::Welcome;
use crate::pool::{Pool, dial};
use crate::sample::{Sample, Sampled};
use crate::server::Server;
use crate::server::reported::{NamedValue, Reported};
use crate::session::settings::{ClientSettings, Setting, SettingsId, normalize_startup};
use crate::session::{Session, Trial, setup};
use crate::tables::Tables;

/// What the driver sends to a client that has been authenticated, from `Pooler::greet` (protocol,
/// "Start-up").
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Greeting {
    /// These messages, from ParameterStatus and BackendKeyData to ReadyForQuery: the session may
    /// begin.
    Ready(Vec<u8>),
    /// Nothing yet: the pool's first server connection is being opened. The session is woken, and
    /// then greeted again with the same parameters. Also for a session that the worker does not
    /// know.
    Wait,
    /// Nothing yet: a server is to check the client's startup settings.
    /// `Pooler::handle_client_bytes` is called as if the client had sent something, and greets the
    /// client in the course of that, or dismisses it.
    Try,
    /// The body (without tag and length) of an ErrorResponse, with which the login ends: no
    /// server connection can be opened, or the settings or the target are refused. The driver sends
    /// it with severity FATAL and closes the client's connection.
    Refused(Arc<[u8]>),
}

/// A client has logged in, whose startup packet had come at the first of `times`; the second is
/// now. `key` makes a random cancel key; it is called again when another session of this worker has
/// it.
pub(crate) fn arrive(
    core: &mut Core,
    pool: PoolId,
    times: (Instant, Instant),
    mut key: impl FnMut() -> CancelKey,
) -> SessionId {
    let key = loop {
        let key = key();
        if core.sessions.of_key(key.process_id, key.secret()).is_none() {
            break key;
        }
    };
    let reported = core.tables.reported.intern([]);
    let settings = ClientSettings::new(&mut core.tables.settings, SettingsId::EMPTY);
    core.pools[pool].add_session();
    core.sessions.insert(core.serials.next(), |id| {
        let reading = setup::reading(&reported);
        Session::new(id, pool, key, settings, reported, reading, times)
    })
}

/// What a client that asks for `parameters` (those from `options` first) is greeted with.
pub(crate) fn greet(
    core: &mut Core,
    id: SessionId,
    parameters: &[NamedValue],
    now: Instant,
) -> Greeting {
    let Some(session) = core.sessions.get(id) else { return Greeting::Wait };
    let wrong = parameters.iter().find_map(|(name, value)| route::misnamed(name, value));
    if let Some(wrong) = wrong {
        return Greeting::Refused(wrong.body(Severity::Fatal));
    }
    let home = session.pool;
    let pool_id = match core.pools[session.serving].logins().contains(&id) {
        true => session.serving,
        false => route::pool_of_login(&core.pools, &core.clusters, home, parameters, now),
    };
    // In the words of who will serve it: a standby says that it is one.
    let pool = &mut core.pools[pool_id];
    if let Some(welcome) = pool.shared().welcome() {
        return self::welcome(core, id, &welcome, parameters, now);
    }
    if let Some(error) = pool.shared().standing_failure(now) {
        return Greeting::Refused(error);
    }
    pool.add_login(id);
    if let Some(session) = core.sessions.get_mut(id) {
        session.serving = pool_id;
    }
    dial::dial_if_wanted(core, pool_id, now);
    Greeting::Wait
}

fn welcome(
    core: &mut Core,
    id: SessionId,
    welcome: &Welcome,
    parameters: &[NamedValue],
    now: Instant,
) -> Greeting {
    let defaults: Vec<_> = welcome.parameters.iter().map(|(n, v)| (&**n, &**v)).collect();
    let asked = parameters.iter().map(|(name, value)| (&**name, &**value));
    let settings = match normalize_startup(asked, &defaults) {
        Ok(settings) => settings,
        Err(error) => {
            let text = error.to_string();
            return Greeting::Refused(error_body(&Report::fatal(error.code(), &text)));
        }
    };
    let Some(session) = core.sessions.get_mut(id) else { return Greeting::Wait };
    let pool = &mut core.pools[session.pool];
    let tried = match settings.iter().all(Setting::is_certain) {
        true => None,
        false => match pool.shared().tried_startup(&settings) {
            Some(tried) => Some(tried),
            None => return begin_trial(session, &mut core.tables, settings),
        },
    };
    let (settings, reported) = match &tried {
        None => (settings, &[][..]),
        Some(tried) => (with_certain(&tried.settings, &settings), &tried.reported[..]),
    };
    let known = told_at_login(&mut core.tables, welcome, &settings, reported);
    if let Err(refused) = begin_at(session, &mut core.tables, settings) {
        return refused;
    }
    setup::know_reported(session, &known);
    let mut out = Vec::with_capacity(512);
    write_greeting(session, &known, &mut out);
    count_login(session, pool, &mut core.tables, now);
    Greeting::Ready(out)
}

/// The reported settings that a client is told which begins at `settings`: those of the server's
/// welcome, but for what a server has `reported` of these settings and for what is certain of them.
fn told_at_login(
    tables: &mut Tables,
    welcome: &Welcome,
    settings: &[Setting],
    reported: &[NamedValue],
) -> Rc<Reported> {
    let mut known = tables.reported.intern(welcome.parameters.iter().cloned());
    let certain = settings.iter().filter(|setting| setting.is_certain());
    let certain = certain.map(|setting| (&setting.name[..], &setting.value[..]));
    for (name, value) in reported.iter().map(|(n, v)| (&**n, &**v)).chain(certain) {
        let spelling = known.iter().find(|(n, _)| n.eq_ignore_ascii_case(name));
        if let Some(name) = spelling.map(|(name, _)| name.to_vec()) {
            known = tables.reported.with(&known, &name, value);
        }
    }
    known
}

/// The session stands at these settings from its beginning.
fn begin_at(
    session: &mut Session,
    tables: &mut Tables,
    settings: Vec<Setting>,
) -> Result<(), Greeting> {
    let base = tables.settings.intern(settings).map_err(|error| {
        let text = error.to_string();
        let report = Report::fatal(SqlState::PROGRAM_LIMIT_EXCEEDED, &text);
        Greeting::Refused(error_body(&report))
    })?;
    let fresh = ClientSettings::new(&mut tables.settings, base);
    std::mem::replace(&mut session.settings, fresh).close(&mut tables.settings);
    Ok(())
}

/// No server has checked these settings yet: one is asked before the client is greeted.
fn begin_trial(session: &mut Session, tables: &mut Tables, settings: Vec<Setting>) -> Greeting {
    if let Err(refused) = begin_at(session, tables, settings) {
        return refused;
    }
    session.trial = Trial::Due;
    Greeting::Try
}

/// A server has checked the session's settings: it is greeted in the server's words, or dismissed
/// with them.
pub(crate) fn greet_tried(
    session: &mut Session,
    server: &mut Server,
    pool: &mut Pool,
    tables: &mut Tables,
    now: Instant,
    plan: &mut Plan,
) {
    session.trial = Trial::None;
    if let Some(refused) = session.refused.take() {
        return refuse_login(session, pool, &refused.error);
    }
    let asked = tables.settings.settings(session.settings.base()).to_vec();
    let spelled = asked.iter().map(|setting| match server.reported().get(&setting.name) {
        Some(value) => Setting::new(&setting.name, value),
        None => setting.clone(),
    });
    let spelled: Vec<Setting> = spelled.collect();
    if let Ok(base) = tables.settings.intern(spelled.clone()) {
        let fresh = ClientSettings::new(&mut tables.settings, base);
        std::mem::replace(&mut session.settings, fresh).close(&mut tables.settings);
        server.assign_settings(&mut tables.settings, base);
    }
    pool.shared().keep_tried(&asked, spelled, server.reported());
    setup::know_reported(session, &Rc::clone(server.reported()));
    plan.make_for_session(session.id, |out| write_greeting(session, server.reported(), out));
    count_login(session, pool, tables, now);
}

/// Counts a login that has ended with the greeting.
fn count_login(session: &Session, pool: &mut Pool, tables: &mut Tables, now: Instant) {
    let (began, ended) = (session.came_at, now);
    let stats = pool.stats_mut();
    stats.client_logins += 1;
    stats.login_times.record(ended - began);
    if tables.sampler.chooses() {
        let (pool, what) = (pool.id(), Sampled::Login);
        tables.sampler.keep(Sample { pool, what, wait: None, began, ended });
    }
}

/// Ends a login with a server's error.
pub(crate) fn refuse_login(session: &mut Session, pool: &mut Pool, error: &[u8]) {
    session.trial = Trial::None;
    if let Ok(fields) = ErrorFields::parse(error) {
        pool.stats_mut().error(fields.code);
    }
    let mut final_error = Vec::new();
    with_severity(error, Severity::Fatal, &mut final_error);
    session.final_error.get_or_insert(final_error.as_slice().into());
}

/// ParameterStatus, BackendKeyData and ReadyForQuery.
fn write_greeting(session: &Session, reported: &Reported, out: &mut Vec<u8>) {
    for (name, value) in reported.iter() {
        encode::parameter_status(out, name, value);
    }
    encode::backend_key_data(out, session.key.process_id, session.key.secret());
    encode::ready_for_query(out, TransactionStatus::Idle);
}

/// `tried`, with what is certain of `asked`.
fn with_certain(tried: &[Setting], asked: &[Setting]) -> Vec<Setting> {
    let certain = || asked.iter().filter(|setting| setting.is_certain());
    let is_certain_now = |name: &[u8]| certain().any(|setting| *setting.name == *name);
    let tried = tried.iter().filter(|setting| !is_certain_now(&setting.name));
    tried.chain(certain()).cloned().collect()
}
