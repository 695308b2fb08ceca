//! ReadyForQuery: what is settled by it, and what comes next for the server connection.

use pgimbal_wire::encode::{self, NameKind, TransactionStatus};

use super::{Fate, Freed, ServerTurn};
use crate::link;
use crate::owed::{Owed, OwnQuery};
use crate::plan::Stop;
use crate::prepared::write_server_name;
use crate::rerun::Rerun;
use crate::server::{Ending, SinceReady};
use crate::server_statements::Found;
use crate::session::{Link, Presence, Session};
use crate::settings::SettingsId;

impl ServerTurn<'_> {
    pub(super) fn ready(&mut self, body: &[u8]) -> Result<Fate, Stop> {
        let [status] = body else { return Err(Stop::Fault) };
        let Some(status) = TransactionStatus::from_byte(*status) else { return Err(Stop::Fault) };
        let Some(settled) = self.server.owed.take_ready() else { return Err(Stop::Fault) };
        if let (Owed::Query(Some(effects)), false) = (&settled, self.server.since_ready.failed) {
            for effect in &effects.0 {
                self.apply(effect);
            }
        }
        self.server.status = status;
        self.server.copy_in = false;
        let since = self.server.since_ready;
        self.settle_transaction(since.failed);
        self.server.since_ready = SinceReady {
            segment_open: since.segment_open,
            // It may be a later one of a pipeline.
            ending: match self.server.owed.is_empty() {
                true => Ending::No,
                false => since.ending,
            },
            ..SinceReady::default()
        };
        self.server.in_flight.settled(self.server.owed.is_empty() && !since.segment_open);
        self.freed = Freed::Perhaps;
        match settled {
            // The end of the transaction around it is the client's ReadyForQuery.
            Owed::Sync | Owed::Query(_) if self.runs_again() => Ok(Fate::Swallow),
            Owed::Sync | Owed::Query(_) => {
                if status == TransactionStatus::Idle {
                    self.pool.count_transaction();
                }
                if !self.server.newly_set.is_empty()
                    && let Some(session) = self.session.as_deref_mut()
                {
                    link::adopt_spelling(session, self.server, self.tables);
                }
                let fate = self.restore_settings();
                if fate == Fate::Pass
                    && let Some(session) = self.session.as_deref_mut()
                {
                    link::tell_reported(session, self.server, self.plan);
                }
                self.close_surplus();
                Ok(fate)
            }
            Owed::Own(kind) => self.own_query_ended(kind, since.failed),
            _ => Ok(Fate::Swallow),
        }
    }

    fn runs_again(&self) -> bool {
        let session = self.session.as_deref();
        session.is_some_and(|session| matches!(session.rerun, Rerun::Running(_)))
    }

    /// The settings and the schema follow the fate of the transaction.
    fn settle_transaction(&mut self, failed: bool) {
        if self.server.schema_change {
            self.pool.shared.database.schema_changed();
        }
        if self.server.status != TransactionStatus::Idle {
            return;
        }
        self.server.schema_change = false;
        self.server.transaction += 1;
        let Some(session) = self.session.as_deref_mut() else { return };
        if session.settings.changed_in_transaction() {
            let table = &mut self.tables.settings;
            if failed {
                session.settings.rollback(table);
            } else {
                session.settings.commit(table);
            }
            link::settings_changed(session, self.server, self.pool, self.tables);
        }
    }

    /// After RESET the server stands at its own defaults, the client expects those it came with:
    /// they are set before it is told that its statement is done.
    fn restore_settings(&mut self) -> Fate {
        if self.server.status == TransactionStatus::Failed {
            // The settings come back with the rollback, a statement's end does not.
            self.server.restore.retain(|sql| sql.starts_with(b"DEALLOCATE "));
            return Fate::Pass;
        }
        let queries = std::mem::take(&mut self.server.restore);
        if queries.is_empty() {
            return Fate::Pass;
        }
        for sql in queries {
            link::send_own(self.server, OwnQuery::Restore, &sql, self.plan);
        }
        Fate::Swallow
    }

    /// Closes the statements in whose place the client shares another's. No portal is open then.
    fn close_surplus(&mut self) {
        let free =
            self.server.status == TransactionStatus::Idle && !self.server.since_ready.segment_open;
        // Half a message of the client's must not be interrupted.
        let between = self.session.as_deref().is_none_or(Session::between_server_messages);
        if self.server.surplus.is_empty() || !free || !between {
            return;
        }
        for id in std::mem::take(&mut self.server.surplus) {
            if self.server.statements.find(id) != Found::Here {
                continue;
            }
            self.server.statements.leave(id);
            self.server.owed.push(Owed::Evict(id));
            let mut name = Vec::with_capacity(48);
            write_server_name(id, &mut name);
            self.plan.make_for_server(|out| encode::close(out, NameKind::Statement, &name));
        }
        self.server.owed.push(Owed::OwnSync);
        self.plan.make_for_server(encode::sync);
    }

    fn own_query_ended(&mut self, kind: OwnQuery, failed: bool) -> Result<Fate, Stop> {
        if failed && !matches!(kind, OwnQuery::Setup | OwnQuery::RerunEnd) {
            // Nobody can say in which state it is.
            return Err(Stop::Fault);
        }
        match kind {
            OwnQuery::Setup => self.setup_ended(failed),
            OwnQuery::Restore => {
                if matches!(self.server.owed.front(), Some(Owed::Own(OwnQuery::Restore))) {
                    return Ok(Fate::Swallow);
                }
                if let Some(session) = self.session.as_deref_mut() {
                    link::tell_reported(session, self.server, self.plan);
                }
                // It stands for the client's own.
                return Ok(Fate::Pass);
            }
            OwnQuery::RerunEnd => {
                self.pool.count_transaction();
                if let Some(session) = self.session.as_deref_mut() {
                    session.rerun = Rerun::No;
                }
                return Ok(Fate::Pass);
            }
            OwnQuery::SetupFirst | OwnQuery::RerunBegin => self.freed = Freed::No,
            OwnQuery::Rollback | OwnQuery::CustomReset | OwnQuery::Reset => {}
        }
        if kind == OwnQuery::Reset {
            self.tables.settings.assign(&mut self.server.settings, SettingsId::EMPTY);
            self.server.statements.clear();
        }
        Ok(Fate::Swallow)
    }

    fn setup_ended(&mut self, failed: bool) {
        let Some(session) = self.session.as_deref_mut() else { return };
        if failed {
            // One implicit transaction: nothing of it holds, and the session has no use for it.
            session.link = Link::Ready(self.server.id);
            return;
        }
        self.freed = Freed::No;
        self.tables.settings.assign(&mut self.server.settings, session.settings.current());
        session.link = Link::Ready(self.server.id);
        link::tell_reported(session, self.server, self.plan);
    }

    /// ReadyForQuery has been dealt with: is the server connection free?
    pub(super) fn after_ready(&mut self) -> Result<(), Stop> {
        let Some(session) = self.session.as_deref_mut() else { return Ok(()) };
        if session.presence != Presence::Here
            || self.freed == Freed::No
            || !self.server.is_settled()
        {
            return Ok(());
        }
        session.active_at = self.now;
        if matches!(session.link, Link::Cleaning(_)) {
            return Err(Stop::Checkin);
        }
        if !link::may_release(session, self.server, self.pool) {
            return Ok(());
        }
        if self.pool.config.pool.reset_query_always {
            session.link = Link::Cleaning(self.server.id);
            link::start_reset(self.server, self.pool, self.plan);
            return Ok(());
        }
        Err(Stop::Checkin)
    }
}
