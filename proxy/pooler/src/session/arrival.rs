//! How a session begins: what it is told, and what its startup packet asks for.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use pgimbal_wire::encode::{self, TransactionStatus};
use pgimbal_wire::error::{ErrorFields, Report, Severity, SqlState, with_severity};

use crate::cancel::CancelKey;
use crate::cluster::route;
use crate::ids::{PoolId, SessionId};
use crate::plan::{Plan, Stop};
use crate::pool::Pool;
use crate::pool::shared::Welcome;
use crate::pooler::{Pooler, Tables, error_body};
use crate::recovery::rerun::Rerun;
use crate::server::reported::{NamedValue, Reported};
use crate::server::{Body, Server};
use crate::session::client_turn::ClientTurn;
use crate::session::front::FrontMessage;
use crate::session::pin::Pin;
use crate::session::settings::{ClientSettings, Setting, SettingsId, normalize_startup};
use crate::session::setup;
use crate::session::state::custom::CustomNames;
use crate::session::state::portals::Portals;
use crate::session::{
    ClientBody, Link, LocalSettings, Phase, Presence, Session, ShapeCheck, Trial,
};
use crate::sql::Kinds;

/// What a client that has proven who it is gets next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Greeting {
    /// These messages, ReadyForQuery at their end: the session may begin.
    Ready(Vec<u8>),
    /// Nothing yet: the first server connection is being opened. The session is woken.
    Wait,
    /// Nothing yet: a server is to check its settings. [`Pooler::client_bytes`] is called as if it
    /// had sent something, and it is greeted in the course of that, or dismissed.
    Try,
    /// The body of an ErrorResponse: there is no server, or it refuses.
    Refused(Arc<[u8]>),
}

impl Pooler {
    /// A client has logged in. `key` makes a random cancel key; it is called again when another
    /// session of this worker has that process id.
    pub fn arrive(
        &mut self,
        pool: PoolId,
        now: Instant,
        mut key: impl FnMut() -> CancelKey,
    ) -> SessionId {
        let serial = self.next_serial();
        let key = loop {
            let key = key();
            if !self.by_process.contains_key(&key.process_id) {
                break key;
            }
        };
        let entry = self.sessions.vacant_entry();
        let id = SessionId { slot: entry.key() as u32, serial };
        self.by_process.insert(key.process_id, id);
        let reported = self.tables.reported.intern([]);
        entry.insert(Session {
            id,
            pool,
            serving: pool,
            link: Link::Unlinked,
            phase: Phase::Open,
            presence: Presence::Here,
            body: ClientBody::Plain(Body::None),
            front: FrontMessage::Unread,
            pin: Pin::default(),
            settings: ClientSettings::new(&mut self.tables.settings, SettingsId::EMPTY),
            reading: setup::reading(&reported),
            reported,
            statements: None,
            parsed_bytes: 0,
            unnamed: None,
            unnamed_is_unkept: false,
            unnamed_serial: 0,
            portals: Portals::default(),
            raised: Kinds::NONE,
            custom: CustomNames::default(),
            local: LocalSettings::Known,
            shape: ShapeCheck::None,
            refused: None,
            trial: Trial::None,
            unkept_serial: 0,
            close_after_sync: Vec::new(),
            rerun: Rerun::No,
            aborted: None,
            final_error: None,
            key,
            connected_at: now,
            active_at: now,
            stalled_since: None,
        });
        let pool = &mut self.pools[pool.index()];
        pool.sessions += 1;
        pool.shared.share(self.worker).sessions.fetch_add(1, Relaxed);
        id
    }

    /// What a client that asks for `parameters` (those from `options` first) is greeted with.
    pub fn greet(&mut self, id: SessionId, parameters: &[NamedValue], now: Instant) -> Greeting {
        let Some(session) = self.session(id) else { return Greeting::Wait };
        let wrong = parameters.iter().find_map(|(name, value)| route::misnamed(name, value));
        if let Some(wrong) = wrong {
            return Greeting::Refused(wrong.body(Severity::Fatal));
        }
        let home = session.pool;
        let pool_id = match self.pools[session.serving.index()].logins.contains(&id) {
            true => session.serving,
            false => self.pool_of_login(home, parameters, now),
        };
        // In the words of who will serve it: a standby says that it is one.
        let pool = &mut self.pools[pool_id.index()];
        if let Some(welcome) = pool.shared.welcome() {
            return self.welcome(id, &welcome, parameters);
        }
        if let Some(error) = pool.shared.standing_failure(now) {
            return Greeting::Refused(error);
        }
        if !pool.logins.contains(&id) {
            pool.logins.push(id);
        }
        if let Some(session) = self.sessions.get_mut(id.index()) {
            session.serving = pool_id;
        }
        self.dial_if_wanted(pool_id, now);
        Greeting::Wait
    }

    fn welcome(&mut self, id: SessionId, welcome: &Welcome, parameters: &[NamedValue]) -> Greeting {
        let defaults: Vec<_> = welcome.parameters.iter().map(|(n, v)| (&**n, &**v)).collect();
        let asked = parameters.iter().map(|(name, value)| (&**name, &**value));
        let settings = match normalize_startup(asked, &defaults) {
            Ok(settings) => settings,
            Err(error) => {
                let text = error.to_string();
                return Greeting::Refused(error_body(&Report::fatal(error.code(), &text)));
            }
        };
        let Some(pool) = self.session(id).map(|session| session.pool) else {
            return Greeting::Wait;
        };
        let tried = match settings.iter().all(is_certain) {
            true => None,
            false => match self.pools[pool.index()].shared.tried_startup(&settings) {
                Some(tried) => Some(tried),
                None => return self.begin_trial(id, settings),
            },
        };
        let (settings, reported) = match &tried {
            None => (settings, &[][..]),
            Some(tried) => (with_certain(&tried.settings, &settings), &tried.reported[..]),
        };
        let mut known = self.tables.reported.intern(welcome.parameters.iter().cloned());
        let certain = settings.iter().filter(|setting| is_certain(setting));
        let certain = certain.map(|setting| (&setting.name[..], &setting.value[..]));
        for (name, value) in reported.iter().map(|(n, v)| (&**n, &**v)).chain(certain) {
            let spelling = known.iter().find(|(n, _)| n.eq_ignore_ascii_case(name));
            if let Some(name) = spelling.map(|(name, _)| name.to_vec()) {
                known = self.tables.reported.with(&known, &name, value);
            }
        }
        if let Err(refused) = self.begin_at(id, settings) {
            return refused;
        }
        let Some(session) = self.sessions.get_mut(id.index()) else { return Greeting::Wait };
        setup::know_reported(session, &known);
        let mut out = Vec::with_capacity(512);
        write_greeting(session, &known, &mut out);
        self.pools[session.pool.index()].stats.client_logins += 1;
        Greeting::Ready(out)
    }

    /// The session stands at these settings from its beginning.
    fn begin_at(&mut self, id: SessionId, settings: Vec<Setting>) -> Result<(), Greeting> {
        let base = self.tables.settings.intern(settings).map_err(|error| {
            let text = error.to_string();
            let report = Report::fatal(SqlState::PROGRAM_LIMIT_EXCEEDED, &text);
            Greeting::Refused(error_body(&report))
        })?;
        let fresh = ClientSettings::new(&mut self.tables.settings, base);
        let Some(session) = self.sessions.get_mut(id.index()) else {
            fresh.close(&mut self.tables.settings);
            return Err(Greeting::Wait);
        };
        std::mem::replace(&mut session.settings, fresh).close(&mut self.tables.settings);
        Ok(())
    }

    /// No server has checked these settings yet: one is asked before the client is greeted.
    fn begin_trial(&mut self, id: SessionId, settings: Vec<Setting>) -> Greeting {
        if let Err(refused) = self.begin_at(id, settings) {
            return refused;
        }
        if let Some(session) = self.sessions.get_mut(id.index()) {
            session.trial = Trial::Due;
        }
        Greeting::Try
    }

    /// Whether a session waits until a server has checked its settings.
    #[must_use]
    pub fn is_on_trial(&self, id: SessionId) -> bool {
        self.session(id).is_some_and(|session| session.trial == Trial::Due)
    }
}

/// One step of a session whose settings a server is to check.
pub(crate) fn try_settings(turn: &mut ClientTurn<'_>) -> Stop {
    if let Some(error) = turn.session.aborted.take().and_then(|aborted| aborted.into_error()) {
        // There is no server to check them.
        dismiss(turn.session, turn.pool, &error);
        return Stop::Wait;
    }
    match turn.session.link {
        Link::Unlinked => Stop::Checkout,
        Link::Fresh(_) => match setup::enter(turn) {
            Err(stop) => stop,
            Ok(()) => {
                if let Some(server) = turn.server.as_deref_mut() {
                    greet_tried(turn.session, server, turn.pool, turn.tables, turn.plan);
                }
                turn.released(Stop::Drained)
            }
        },
        _ => Stop::Wait,
    }
}

/// A server has checked the session's settings: it is greeted in the server's words, or dismissed
/// with them.
pub(crate) fn greet_tried(
    session: &mut Session,
    server: &mut Server,
    pool: &mut Pool,
    tables: &mut Tables,
    plan: &mut Plan,
) {
    session.trial = Trial::None;
    if let Some(refused) = session.refused.take() {
        return dismiss(session, pool, &refused.error);
    }
    let asked = tables.settings.settings(session.settings.base()).to_vec();
    let spelled = asked.iter().map(|setting| match server.reported.get(&setting.name) {
        Some(value) => Setting::new(&setting.name, value),
        None => setting.clone(),
    });
    let spelled: Vec<Setting> = spelled.collect();
    if let Ok(base) = tables.settings.intern(spelled.clone()) {
        let fresh = ClientSettings::new(&mut tables.settings, base);
        std::mem::replace(&mut session.settings, fresh).close(&mut tables.settings);
        tables.settings.assign(&mut server.settings, base);
    }
    pool.shared.keep_tried(&asked, spelled, &server.reported);
    setup::know_reported(session, &Rc::clone(&server.reported));
    plan.make_for_client(|out| write_greeting(session, &server.reported, out));
    pool.stats.client_logins += 1;
}

/// Ends a login with a server's error.
fn dismiss(session: &mut Session, pool: &mut Pool, error: &[u8]) {
    session.trial = Trial::None;
    if let Ok(fields) = ErrorFields::parse(error) {
        pool.stats.error(fields.code);
    }
    let mut final_error = Vec::new();
    with_severity(error, Severity::Fatal, &mut final_error);
    session.final_error.get_or_insert(final_error.into());
}

/// ParameterStatus, BackendKeyData and ReadyForQuery.
fn write_greeting(session: &Session, reported: &Reported, out: &mut Vec<u8>) {
    for (name, value) in reported.iter() {
        encode::parameter_status(out, name, value);
    }
    encode::backend_key_data(out, session.key.process_id, session.key.secret());
    encode::ready_for_query(out, TransactionStatus::Idle);
}

/// Whether every server takes a setting and reports it as it is: no server needs to check it.
pub(crate) fn is_certain(setting: &Setting) -> bool {
    // PostgreSQL cuts a longer name and replaces other characters.
    *setting.name == *b"application_name"
        && setting.value.len() < 64
        && setting.value.iter().all(|byte| (b' '..=b'~').contains(byte))
}

/// `tried`, with what is certain of `asked`.
fn with_certain(tried: &[Setting], asked: &[Setting]) -> Vec<Setting> {
    let certain = || asked.iter().filter(|setting| is_certain(setting));
    let is_certain_now = |name: &[u8]| certain().any(|setting| *setting.name == *name);
    let tried = tried.iter().filter(|setting| !is_certain_now(&setting.name));
    tried.chain(certain()).cloned().collect()
}
