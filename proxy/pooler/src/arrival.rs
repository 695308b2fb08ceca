//! How a session begins: what it is told, and what its startup packet asks for.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use pgimbal_wire::encode::{self, TransactionStatus};
use pgimbal_wire::error::{Report, SqlState};

use crate::cancel::CancelKey;
use crate::ids::{PoolId, SessionId};
use crate::link;
use crate::pin::Pin;
use crate::pooler::{Pooler, error_body};
use crate::reported::NamedValue;
use crate::rerun::Rerun;
use crate::server::Body;
use crate::session::{ClientBody, Link, Phase, Presence, Session};
use crate::settings::{ClientSettings, SettingsId, normalize_startup, reported_form};
use crate::shared::Welcome;

/// What a client that has proven who it is gets next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Greeting {
    /// These messages, ReadyForQuery at their end: the session may begin.
    Ready(Vec<u8>),
    /// Nothing yet: the first server connection is being opened. The session is woken.
    Wait,
    /// The body of an ErrorResponse: there is no server, or it refuses.
    Refused(Arc<[u8]>),
}

impl Pooler {
    /// A client has logged in. `key` makes its cancel key from its process id.
    pub fn arrive(
        &mut self,
        pool: PoolId,
        now: Instant,
        key: impl FnOnce(u32) -> CancelKey,
    ) -> SessionId {
        let serial = self.next_serial();
        let entry = self.sessions.vacant_entry();
        let id = SessionId { slot: entry.key() as u32, serial };
        let reported = self.tables.reported.intern([]);
        entry.insert(Session {
            id,
            pool,
            serving: pool,
            link: Link::Unlinked,
            phase: Phase::Open,
            presence: Presence::Here,
            body: ClientBody::Plain(Body::None),
            pin: Pin::default(),
            settings: ClientSettings::new(&mut self.tables.settings, SettingsId::EMPTY),
            reading: link::reading(&reported),
            reported,
            statements: None,
            unnamed: None,
            unnamed_is_unkept: false,
            unnamed_serial: 0,
            bound_effects: Vec::new(),
            unkept_serial: 0,
            close_after_sync: Vec::new(),
            rerun: Rerun::No,
            offline: None,
            farewell: None,
            key: key(process_id(self.worker.0, id.slot)),
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
        let home = session.pool;
        let pool_id = match self.pools[session.serving.index()].logins.contains(&id) {
            true => session.serving,
            false => self.pool_of_login(home, parameters, now),
        };
        let known = self.pools[home.index()].shared.welcome();
        let pool = &mut self.pools[pool_id.index()];
        if let Some(welcome) = known.or_else(|| pool.shared.welcome()) {
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
                let report = Report::fatal(SqlState::UNDEFINED_OBJECT, &text);
                return Greeting::Refused(error_body(&report));
            }
        };
        // As the server will report them, as far as can be told without asking it.
        let mut reported = self.tables.reported.intern(welcome.parameters.iter().cloned());
        for setting in &settings {
            let known = reported.iter().find(|(n, _)| n.eq_ignore_ascii_case(&setting.name));
            if let Some((name, default)) = known {
                let (name, value) =
                    (name.to_vec(), reported_form(&setting.name, &setting.value, default));
                reported = self.tables.reported.with(&reported, &name, &value);
            }
        }
        let base = match self.tables.settings.intern(settings) {
            Ok(base) => base,
            Err(error) => {
                let text = error.to_string();
                let report = Report::fatal(SqlState::PROGRAM_LIMIT_EXCEEDED, &text);
                return Greeting::Refused(error_body(&report));
            }
        };
        let fresh = ClientSettings::new(&mut self.tables.settings, base);
        let Some(session) = self.sessions.get_mut(id.index()) else { return Greeting::Wait };
        std::mem::replace(&mut session.settings, fresh).close(&mut self.tables.settings);
        link::know_reported(session, &Rc::clone(&reported));
        let mut out = Vec::with_capacity(512);
        for (name, value) in reported.iter() {
            encode::parameter_status(&mut out, name, value);
        }
        encode::backend_key_data(&mut out, session.key.process_id, session.key.secret());
        encode::ready_for_query(&mut out, TransactionStatus::Idle);
        self.pools[session.pool.index()].stats.client_logins += 1;
        Greeting::Ready(out)
    }
}

/// What a client is told as the process id: worker and slot, never zero, never negative.
const fn process_id(worker: u16, slot: u32) -> u32 {
    ((worker as u32 + 1) << 24) | (slot & 0x00ff_ffff)
}

/// The worker and the slot that a cancel request names.
#[must_use]
pub const fn session_of(process_id: u32) -> Option<(u16, u32)> {
    match process_id >> 24 {
        0 => None,
        worker => Some((worker as u16 - 1, process_id & 0x00ff_ffff)),
    }
}
