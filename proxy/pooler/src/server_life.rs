//! How a server connection begins and ends, and what its end means to the session on it.

use std::sync::Arc;
use std::time::Instant;

use pgimbal_wire::encode::{self, TransactionStatus};
use pgimbal_wire::error::{self, Report, Severity, SqlState};

use crate::ids::{PoolId, ServerId, SessionId};
use crate::offline::Offline;
use crate::owed::{Owed, OwnQuery};
use crate::plan::Plan;
use crate::pooler::{Pooler, error_body};
use crate::reported::NamedValue;
use crate::server::{BackendKey, Body, Server, ServerState};
use crate::session::{ClientBody, Link, Phase, Presence, Session};
use crate::shared::Welcome;

/// What a server said while it let us in.
#[derive(Clone, Debug)]
pub struct Dialed {
    /// For cancel requests.
    pub backend_key: BackendKey,
    /// The settings that it reports, name and value.
    pub parameters: Vec<NamedValue>,
}

/// What is left of a session whose server connection has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aftermath {
    /// The client lives on; what the plan holds is for it.
    Survives,
    /// The client must be closed, after what the plan holds.
    Ends,
}

impl Pooler {
    /// A server connection was opened.
    pub fn dialed(&mut self, id: ServerId, dialed: Dialed, now: Instant) {
        let Some(server) = self.servers.get_mut(id.index()).filter(|server| server.id == id) else {
            return;
        };
        server.backend_key = dialed.backend_key;
        server.reported = self.tables.reported.intern(dialed.parameters.iter().cloned());
        let pool = &mut self.pools[server.pool.index()];
        pool.dialing -= 1;
        pool.stats.server_logins += 1;
        pool.shared.set_welcome(Welcome { parameters: dialed.parameters });
        pool.shared.dial_succeeded();
        let pool = server.pool;
        self.wake_logins(pool);
        self.release(id, now);
        self.dial_if_wanted(pool, now);
    }

    /// A server connection could not be opened. `error` is the body of the ErrorResponse that
    /// tells why, the server's own if it sent one.
    pub fn dial_failed(&mut self, id: ServerId, error: Arc<[u8]>, now: Instant) {
        let Some(server) = self.forget(id) else { return };
        let pool = &mut self.pools[server.pool.index()];
        pool.dialing -= 1;
        pool.stats.server_login_failures += 1;
        if let Ok(fields) = error::ErrorFields::parse(&error) {
            pool.stats.error(fields.code);
        }
        pool.shared.dial_failed(Arc::clone(&error), now, pool.config.pool.server_login_retry);
        let pool = server.pool;
        drop(server);
        self.tell_standing_failure(pool, now);
    }

    /// If nothing can serve the pool for now, everybody who waits is told so.
    pub(crate) fn tell_standing_failure(&mut self, id: PoolId, now: Instant) {
        let Some(error) = self.pools[id.index()].shared.standing_failure(now) else { return };
        self.wake_logins(id);
        let waiters = std::mem::take(&mut self.pools[id.index()].waiters);
        for waiter in waiters {
            self.refuse_waiter(waiter.session, &error);
        }
    }

    /// Answers what a waiting session waits for with an error.
    pub(crate) fn refuse_waiter(&mut self, id: SessionId, error: &Arc<[u8]>) {
        let waits =
            self.session(id).is_some_and(|session| matches!(session.link, Link::Waiting(_)));
        if waits {
            self.stop_waiting(id);
            if let Some(session) = self.sessions.get_mut(id.index()) {
                session.offline = Some(Box::new(Offline::refused(Arc::clone(error))));
            }
            self.wake(id);
        }
    }

    pub(crate) fn wake_logins(&mut self, pool: PoolId) {
        for login in std::mem::take(&mut self.pools[pool.index()].logins) {
            self.wake(login);
        }
    }

    /// The driver has said good-bye to a server connection and seen its end.
    pub fn closed(&mut self, id: ServerId, now: Instant) {
        if let Some(server) = self.forget(id) {
            let pool = server.pool;
            drop(server);
            self.dial_if_wanted(pool, now);
        }
    }

    /// A server connection has ended, or cannot be used any more, without a good-bye. Its session
    /// is told what `plan` then holds for the client.
    pub fn server_gone(&mut self, id: ServerId, now: Instant, plan: &mut Plan) -> Aftermath {
        let Some(mut server) = self.forget(id) else { return Aftermath::Survives };
        let pool = &mut self.pools[server.pool.index()];
        pool.stats.server_closes += 1;
        let mut aftermath = Aftermath::Survives;
        let session = server.session().and_then(|session| self.sessions.get_mut(session.index()));
        if let Some(session) = session {
            let keeps_state =
                session.pin.is_set() || pool.config.pool.mode == pgimbal_config::PoolMode::Session;
            aftermath = part_from_dead(session, &mut server, keeps_state, plan);
            session.settings.rollback(&mut self.tables.settings);
            session.link = Link::Unlinked;
        }
        let pool = server.pool;
        drop(server);
        self.dial_if_wanted(pool, now);
        aftermath
    }

    /// Takes a server connection out of every list.
    fn forget(&mut self, id: ServerId) -> Option<Server> {
        self.server(id)?;
        let mut server = self.servers.remove(id.index());
        self.tables.settings.assign(&mut server.settings, crate::settings::SettingsId::EMPTY);
        if matches!(server.state, ServerState::Idle(_)) {
            let pool = &mut self.pools[server.pool.index()];
            pool.idle.retain(|idle| *idle != id);
            pool.publish_idle(self.worker);
        }
        Some(server)
    }
}

/// Writes what the client of a dead server connection is told, and puts its session in order.
fn part_from_dead(
    session: &mut Session,
    server: &mut Server,
    keeps_state: bool,
    plan: &mut Plan,
) -> Aftermath {
    undo_owed(session, server);
    session.bound_effects.clear();
    session.close_after_sync.clear();
    if session.presence != Presence::Here {
        return Aftermath::Ends;
    }
    if matches!(session.link, Link::Fresh(_) | Link::Setup(_)) && session.offline.is_none() {
        // Nothing of the client's was forwarded: its message goes elsewhere.
        return Aftermath::Survives;
    }
    let error = last_words(server);
    if keeps_state {
        plan.make_for_client(|out| error::with_severity(&error, Severity::Fatal, out));
        return Aftermath::Ends;
    }
    if server.body != Body::None {
        // A message to the client was cut in half: nothing can follow it.
        return Aftermath::Ends;
    }
    if let ClientBody::Plain(Body::Forward(missing)) | ClientBody::Text(missing, _) = session.body {
        session.body = ClientBody::Plain(Body::Drop(missing));
    }
    if session.phase == Phase::Barrier {
        session.phase = Phase::Open;
    }
    answer_owed(session, server, error, plan);
    Aftermath::Survives
}

/// The error that tells of the server's end: its own if it sent one.
fn last_words(server: &mut Server) -> Arc<[u8]> {
    match server.last_words.take() {
        Some(body) => body.into(),
        None => error_body(
            &Report::error(
                SqlState::CONNECTION_FAILURE,
                "the server closed the connection unexpectedly",
            )
            .detail("Whether the statement took effect is not known.")
            .hint("Check the server's log; the next statement gets another connection."),
        ),
    }
}

/// Each Query and each Sync that was sent gets its answer: the error once, then that the
/// transaction has failed if there was one.
fn answer_owed(session: &mut Session, server: &mut Server, error: Arc<[u8]>, plan: &mut Plan) {
    let in_transaction = server.status != TransactionStatus::Idle;
    let status = if in_transaction { TransactionStatus::Failed } else { TransactionStatus::Idle };
    // The error that ends what runs now may have been told already.
    let mut failed = server.since_ready.failed;
    let mut told = failed;
    let mut entries = server.owed.take_all().into_iter().peekable();
    while let Some(entry) = entries.next() {
        let is_answer = match entry {
            Owed::Sync | Owed::Query(_) => true,
            // The last of them stands for the client's own.
            Owed::Own(OwnQuery::Restore) => {
                !matches!(entries.peek(), Some(Owed::Own(OwnQuery::Restore)))
            }
            _ => false,
        };
        if !is_answer {
            continue;
        }
        if !std::mem::take(&mut failed) {
            plan.make_for_client(|out| match in_transaction && told {
                true => aborted().encode_error(out),
                false => error::with_severity(&error, Severity::Error, out),
            });
        }
        told = true;
        plan.make_for_client(|out| encode::ready_for_query(out, status));
    }
    if server.since_ready.segment_open {
        // The client is in the middle of a segment: as after any error, what follows up to Sync is
        // skipped.
        if session.phase != Phase::Skipping {
            plan.make_for_client(|out| error::with_severity(&error, Severity::Error, out));
            session.phase = Phase::Skipping;
        }
        told = true;
    }
    if in_transaction {
        session.offline = Some(Box::new(Offline::lost((!told).then_some(error))));
    }
}

const fn aborted() -> Report<'static> {
    Report::error(
        SqlState::IN_FAILED_SQL_TRANSACTION,
        "current transaction is aborted, commands ignored until end of transaction block",
    )
}

/// What was noted ahead for the client's names is undone: none of it was confirmed.
fn undo_owed(session: &mut Session, server: &Server) {
    let Some(names) = session.statements.as_mut() else { return };
    let entries: Vec<&Owed> = server.owed.iter().collect();
    for entry in entries.into_iter().rev() {
        let change = match entry {
            Owed::Parse(parse) => parse.change.as_ref(),
            Owed::Closed(change) => Some(&**change),
            _ => None,
        };
        if let Some(change) = change {
            names.set(&change.name, change.before.clone());
        }
    }
}
