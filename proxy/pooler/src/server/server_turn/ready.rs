//! ReadyForQuery: what is settled by it, and what comes next for the server connection.

use pgimbal_config::PoolMode;
use pgimbal_wire::encode::{self, NameKind, TransactionStatus};

use super::{Fate, Freed, ServerTurn};
use crate::plan::Stop;
use crate::recovery::in_flight::Whose;
use crate::recovery::tries::Rerun;
use crate::server::pending::{OwnQuery, Pending};
use crate::server::prepared::write_server_name;
use crate::server::statements::StatementLookup;
use crate::server::{Commits, Ending, ReadingsKnown, Restore, SinceReady};
use crate::session::pin::PinReason;
use crate::session::settings::SettingsId;
use crate::session::state::books::Asked;
use crate::session::state::reset;
use crate::session::{Link, LocalSettings, Presence, Session, setup};
use crate::sql::Kinds;
use crate::tables::Tables;

impl ServerTurn<'_> {
    pub(super) fn ready(&mut self, body: &[u8]) -> Result<Fate, Stop> {
        let [status] = body else { return Err(Stop::Fault) };
        let Some(status) = TransactionStatus::from_byte(*status) else { return Err(Stop::Fault) };
        let pending = &mut self.server.pending;
        let Some(owner) = pending.front_owner() else { return Err(Stop::Fault) };
        let Some(settled) = pending.take_ready() else { return Err(Stop::Fault) };
        // What follows from it is its owner's too.
        pending.add_for(owner);
        self.server.status = status;
        self.server.copy_in = false;
        let since = self.server.since_ready;
        let idle = self.server.pending.is_empty() && !since.segment_open;
        // A client that leaves in a transaction has it rolled back.
        let rolled_back = since.failed || matches!(settled, Pending::Own(OwnQuery::Rollback));
        self.idle = idle;
        self.settle_transaction(rolled_back, idle);
        self.server.since_ready = SinceReady {
            segment_open: since.segment_open,
            // It may be a later one of a pipeline.
            ending: match self.server.pending.is_empty() {
                true => Ending::No,
                false => since.ending,
            },
            commits: match self.server.pending.is_empty() {
                true => Commits::AtEnd,
                false => since.commits,
            },
            ..SinceReady::default()
        };
        let whose = match settled {
            Pending::Sync | Pending::Query(_) if self.is_linked() => Whose::Client,
            _ => Whose::Proxy,
        };
        self.server.in_flight.settled(whose, idle);
        if idle {
            // Everything that was run is reported now.
            self.server.readings = ReadingsKnown::Yes;
        }
        if matches!(settled, Pending::Query(_)) {
            self.server.lend_error = None;
        }
        self.freed = Freed::Perhaps;
        match settled {
            // The end of the transaction around it is the client's ReadyForQuery.
            Pending::Sync | Pending::Query(_) if self.runs_again() => Ok(Fate::Swallow),
            Pending::Sync | Pending::Query(_) => {
                if status == TransactionStatus::Idle {
                    self.pool.count_transaction();
                }
                if !self.server.newly_set.is_empty()
                    && let Some(session) = self.session.as_deref_mut()
                {
                    setup::adopt_spelling(session, self.server, self.tables);
                }
                let fate = self.restore_settings(since);
                if fate == Fate::Pass
                    && let Some(session) = self.session.as_deref_mut()
                {
                    setup::tell_reported(session, self.server, self.plan);
                }
                self.close_surplus();
                Ok(fate)
            }
            Pending::Own(kind) => self.own_query_ended(kind, since.failed),
            _ => Ok(Fate::Swallow),
        }
    }

    fn runs_again(&self) -> bool {
        let session = self.session.as_deref();
        session.is_some_and(|session| matches!(session.rerun, Rerun::Running(_)))
    }

    /// The settings and the schema follow the fate of the transaction. What was noted ahead for
    /// messages that are still on their way stays until the server connection is `idle`.
    fn settle_transaction(&mut self, failed: bool, idle: bool) {
        if self.server.schema_change {
            self.pool.shared.database.schema_changed();
        }
        if self.server.status != TransactionStatus::Idle {
            return;
        }
        self.server.schema_change &= !idle;
        self.server.transaction += 1;
        self.settle_idle();
        if idle {
            let unsettled = std::mem::take(&mut self.server.unsettled);
            self.server.surplus.extend(unsettled);
        }
        let Some(session) = self.session.as_deref_mut() else { return };
        if session.settings.changed_in_transaction() {
            let table = &mut self.tables.settings;
            if failed {
                session.settings.rollback(table);
            } else {
                session.settings.commit(table);
            }
            setup::settings_changed(session, self.server, self.pool, self.tables, self.now);
        }
    }

    /// The session's transactions have ended, if no reply is pending any more.
    pub(super) fn settle_idle(&mut self) {
        let ended = self.idle && self.server.status == TransactionStatus::Idle;
        let Some(session) = self.session.as_deref_mut().filter(|_| ended) else { return };
        session.local = LocalSettings::Known;
        session.portals.clear();
        // What a question has not been answered about is asked about again.
        if session.raised.is_empty() && !session.pin.has(PinReason::Unknown) {
            session.custom.clear();
        }
    }

    /// After RESET the server stands at its own defaults, the client expects those it came with:
    /// they are set before it is told that its statement is done.
    fn restore_settings(&mut self, since: SinceReady) -> Fate {
        if !self.server.restore.may_be_due() {
            return Fate::Pass;
        }
        let Restore { mut names, mut queries, local, in_segment, in_block } =
            std::mem::take(&mut self.server.restore);
        // Code that commits keeps what was brought back before it, and may have set it since.
        let may_be_undone =
            (since.failed || since.ending != Ending::No) && since.commits == Commits::AtEnd;
        if may_be_undone {
            names.extend(in_segment);
        }
        if self.server.status != TransactionStatus::Idle {
            self.server.restore.in_block = in_block;
        } else if may_be_undone {
            names.extend(in_block);
        }
        if self.server.status == TransactionStatus::Failed {
            // The settings come back with the rollback, a statement's end does not.
            self.server.restore.queries = queries;
            return Fate::Pass;
        }
        if let Some(session) = self.session.as_deref() {
            queries.extend(setup::restoring(&session.settings, &names, self.tables));
        }
        if self.server.status == TransactionStatus::InTransaction {
            queries.extend(local);
            self.server.restore.remember(&names);
        }
        if queries.is_empty() {
            return Fate::Pass;
        }
        for sql in queries {
            setup::send_own(self.server, OwnQuery::Restore, &sql, self.plan);
        }
        Fate::Swallow
    }

    /// Closes the statements in whose place the client shares another's. No portal is open then.
    fn close_surplus(&mut self) {
        let free =
            self.server.status == TransactionStatus::Idle && !self.server.since_ready.segment_open;
        // Half a message of the client's must not be interrupted.
        let between = self.is_linked()
            && self.session.as_deref().is_none_or(Session::between_server_messages);
        if self.server.surplus.is_empty() || !free || !between {
            return;
        }
        for id in std::mem::take(&mut self.server.surplus) {
            if self.server.statements.find(id) != StatementLookup::Here {
                continue;
            }
            self.server.statements.leave(id);
            self.server.pending.push_own(Pending::Evict(Box::new(id)));
            let mut name = Vec::with_capacity(48);
            write_server_name(id, &mut name);
            self.plan.make_for_server(|out| encode::close(out, NameKind::Statement, &name));
        }
        self.server.pending.push_own(Pending::OwnSync);
        self.plan.make_for_server(encode::sync);
    }

    /// ReadyForQuery has been dealt with: is the server connection free? Asked in the turn of the
    /// session that is linked.
    pub(super) fn after_ready(&mut self) -> Result<(), Stop> {
        self.server.pending.add_for(self.linked);
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
        if !setup::is_between(session, self.server) {
            return Ok(());
        }
        if self.server.residue.meets(Kinds::STATEMENTS) {
            self.server.residue.remove(Kinds::STATEMENTS);
            let text = reset::without_waiting(b"DEALLOCATE ALL;");
            setup::send_own(self.server, OwnQuery::Deallocate, &text, self.plan);
            setup::forget_statements(self.server);
            return Ok(());
        }
        if !session.raised.is_empty() {
            let mut plan = std::mem::take(self.plan);
            let asked = self.books().map(|mut books| books.ask(&mut plan));
            *self.plan = plan;
            if asked == Some(Asked::Sent) {
                return Ok(());
            }
        }
        let Some(session) = self.session.as_deref_mut() else { return Ok(()) };
        if !setup::may_release(session, self.server, self.pool) {
            if self.server.settings != session.settings.current()
                && self.pool.config.pool.mode != PoolMode::Session
            {
                // Code has brought the server to its own defaults: the client's are set again.
                session.link = Link::Fresh(self.server.id);
            }
            return Ok(());
        }
        if self.pool.config.pool.reset_query_always {
            session.link = Link::Cleaning(self.server.id);
            setup::start_reset(self.server, self.pool, self.tables, self.plan);
            return Ok(());
        }
        if self.take_idle_limit_off() { Ok(()) } else { Err(Stop::Checkin) }
    }

    /// A limit on idle time would end the connection while it serves nobody. Returns whether one is
    /// being taken off.
    fn take_idle_limit_off(&mut self) -> bool {
        const LIMIT: &[u8] = b"idle_session_timeout";
        let table = &mut self.tables.settings;
        if self.server.settings == SettingsId::EMPTY
            || table.get(self.server.settings, LIMIT).is_none()
        {
            return false;
        }
        if let Some(session) = self.session.as_deref_mut() {
            // What it sends next finds its settings set anew.
            session.link = Link::Cleaning(self.server.id);
        }
        let without = table.without(self.server.settings, |name| name == LIMIT);
        table.release(std::mem::replace(&mut self.server.settings, without));
        let text = b"RESET SESSION AUTHORIZATION;RESET ROLE;RESET idle_session_timeout";
        setup::send_own(self.server, OwnQuery::Untimed, text, self.plan);
        let without = table_without_identity(self.tables, self.server.settings);
        let table = &mut self.tables.settings;
        table.release(std::mem::replace(&mut self.server.settings, without));
        true
    }
}

/// `settings` without what says who the session is; the caller owns the reference.
fn table_without_identity(tables: &mut Tables, settings: SettingsId) -> SettingsId {
    let is_identity = |name: &[u8]| matches!(name, b"role" | b"session_authorization");
    tables.settings.without(settings, is_identity)
}
