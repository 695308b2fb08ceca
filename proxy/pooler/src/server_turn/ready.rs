//! ReadyForQuery: what is settled by it, and what comes next for the server connection.

use pgimbal_config::PoolMode;
use pgimbal_wire::encode::{self, NameKind, TransactionStatus};

use super::{Fate, Freed, ServerTurn};
use crate::owed::{Owed, OwnQuery};
use crate::pin::PinReason;
use crate::plan::Stop;
use crate::pooler::Tables;
use crate::prepared::write_server_name;
use crate::rerun::Rerun;
use crate::server::{Ending, ReadingsKnown, Restore, Setup, SinceReady};
use crate::server_statements::Found;
use crate::session::{Link, LocalSettings, Presence, RefusedSettings, Session, Trial};
use crate::settings::SettingsId;
use crate::sql::Kinds;
use crate::state::books::Asked;
use crate::state::reset;
use crate::{arrival, link};

impl ServerTurn<'_> {
    pub(super) fn ready(&mut self, body: &[u8]) -> Result<Fate, Stop> {
        let [status] = body else { return Err(Stop::Fault) };
        let Some(status) = TransactionStatus::from_byte(*status) else { return Err(Stop::Fault) };
        let Some(settled) = self.server.owed.take_ready() else { return Err(Stop::Fault) };
        self.server.status = status;
        self.server.copy_in = false;
        let since = self.server.since_ready;
        let idle = self.server.owed.is_empty() && !since.segment_open;
        self.settle_transaction(since.failed, idle);
        self.server.since_ready = SinceReady {
            segment_open: since.segment_open,
            // It may be a later one of a pipeline.
            ending: match self.server.owed.is_empty() {
                true => Ending::No,
                false => since.ending,
            },
            ..SinceReady::default()
        };
        self.server.in_flight.settled(idle);
        if idle {
            // Everything that was run is reported now.
            self.server.readings = ReadingsKnown::Yes;
        }
        if matches!(settled, Owed::Query(_)) {
            self.server.lend_error = None;
        }
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
                let fate = self.restore_settings(since.failed);
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
        let Some(session) = self.session.as_deref_mut() else { return };
        if idle {
            session.local = LocalSettings::Known;
            session.portals.clear();
            // What a question has not been answered about is asked about again.
            if session.raised.is_empty() && !session.pin.has(PinReason::Unknown) {
                session.custom.clear();
            }
            let unsettled = std::mem::take(&mut self.server.unsettled);
            self.server.surplus.extend(unsettled);
        }
        if session.settings.changed_in_transaction() {
            let table = &mut self.tables.settings;
            if failed {
                session.settings.rollback(table);
            } else {
                session.settings.commit(table);
            }
            link::settings_changed(session, self.server, self.pool, self.tables, self.now);
        }
    }

    /// After RESET the server stands at its own defaults, the client expects those it came with:
    /// they are set before it is told that its statement is done.
    fn restore_settings(&mut self, failed: bool) -> Fate {
        if !self.server.restore.may_be_due() {
            return Fate::Pass;
        }
        let Restore { mut names, mut queries, in_segment } =
            std::mem::take(&mut self.server.restore);
        if failed {
            names.extend(in_segment);
        }
        if self.server.status == TransactionStatus::Failed {
            // The settings come back with the rollback, a statement's end does not.
            self.server.restore.queries = queries;
            return Fate::Pass;
        }
        if let Some(session) = self.session.as_deref() {
            queries.extend(link::restoring(&session.settings, &names, self.tables));
        }
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
        let may_fail = matches!(
            kind,
            OwnQuery::Setup
                | OwnQuery::SetupFirst
                | OwnQuery::SetupOne
                | OwnQuery::Question
                | OwnQuery::Facts
                | OwnQuery::RerunEnd
        );
        let may_fail = may_fail || (kind == OwnQuery::Restore && self.status_is_idle());
        if failed && !may_fail {
            if matches!(kind, OwnQuery::Heal | OwnQuery::ResetAhead) {
                self.tables.rejected = Some(self.pool.id);
            }
            // Nobody can say in which state it is.
            return Err(Stop::Fault);
        }
        match kind {
            OwnQuery::SetupFirst if failed => {
                self.freed = Freed::No;
                self.server.setup = Setup::Refused;
            }
            OwnQuery::Setup if failed || matches!(self.server.setup, Setup::Refused) => {
                self.setup_failed();
            }
            OwnQuery::ResetAhead | OwnQuery::SetupFirst | OwnQuery::Setup | OwnQuery::Heal => {
                self.setup_goes_on();
            }
            OwnQuery::SetupOne => self.setting_answered(failed)?,
            OwnQuery::Question => self.question_answered(failed),
            OwnQuery::Facts => self.facts_answered(failed),
            OwnQuery::Restore => return Ok(self.restored(failed)),
            OwnQuery::RerunEnd => {
                self.pool.count_transaction();
                if let Some(session) = self.session.as_deref_mut() {
                    session.rerun = Rerun::No;
                }
                return Ok(Fate::Pass);
            }
            OwnQuery::RerunBegin => self.freed = Freed::No,
            OwnQuery::Rollback if self.is_setting_up() => self.setup_goes_on(),
            OwnQuery::Rollback
            | OwnQuery::CustomReset
            | OwnQuery::Reset
            | OwnQuery::Deallocate
            | OwnQuery::Clean
            | OwnQuery::Untimed => {}
        }
        if kind == OwnQuery::Reset {
            self.tables.settings.assign(&mut self.server.settings, SettingsId::EMPTY);
            self.server.residue.remove(Kinds::ANYTHING);
            link::forget_statements(self.server);
        }
        Ok(Fate::Swallow)
    }

    /// A part of what the client came with is set again, or refused.
    fn restored(&mut self, failed: bool) -> Fate {
        if failed {
            // It is told when it needs it.
            self.server.residue.insert(Kinds::SETTINGS);
        }
        if matches!(self.server.owed.front(), Some(Owed::Own(OwnQuery::Restore))) {
            return Fate::Swallow;
        }
        if let Some(session) = self.session.as_deref_mut() {
            link::tell_reported(session, self.server, self.plan);
        }
        // It stands for the client's own.
        Fate::Pass
    }

    fn status_is_idle(&self) -> bool {
        self.server.status == TransactionStatus::Idle
    }

    /// The settings were refused, all at once. The query was one implicit transaction: nothing of it
    /// holds.
    fn setup_failed(&mut self) {
        self.freed = Freed::No;
        if let Some(session) = self.session.as_deref() {
            link::heal(session, self.server, self.tables, self.plan);
        }
    }

    /// Whether the session waits for its server connection to stand where it does.
    fn is_setting_up(&self) -> bool {
        self.session.as_deref().is_some_and(|session| {
            matches!(session.link, Link::Setup(_)) && session.presence == Presence::Here
        })
    }

    /// A part of the way to the session's settings is done.
    fn setup_goes_on(&mut self) {
        self.freed = Freed::No;
        if matches!(self.server.owed.front(), Some(Owed::Own(_))) {
            return;
        }
        let Some(session) = self.session.as_deref_mut() else { return };
        let current = session.settings.current();
        self.setup_ended(current, None);
    }

    /// One setting by itself was taken or refused.
    fn setting_answered(&mut self, failed: bool) -> Result<(), Stop> {
        self.freed = Freed::No;
        if failed && self.server.status != TransactionStatus::Idle {
            link::send_own(self.server, OwnQuery::Rollback, b"ROLLBACK", self.plan);
        }
        let Setup::OneByOne { settings, done, refused } = &mut self.server.setup else {
            return Ok(());
        };
        *done += 1;
        if *done < settings.len() {
            return Ok(());
        }
        let refused = refused.take();
        let settings = std::mem::take(settings);
        self.server.setup = Setup::Whole;
        let is_used = self.server.transaction > 2 * settings.len() as u64 + 3;
        let names = refused.as_ref().map_or(&[][..], |refused| &refused.names);
        if is_used && names.iter().any(|name| **name == *b"temp_buffers") {
            // It can be set only before temporary tables are used: another connection takes it.
            return Err(Stop::Fault);
        }
        let taken = settings.into_iter().filter(|s| !names.iter().any(|name| **name == *s.name));
        let Ok(at) = self.tables.settings.intern(taken.collect()) else {
            return Err(Stop::Fault);
        };
        self.setup_ended(at, refused);
        self.tables.settings.release(at);
        Ok(())
    }

    /// The server connection stands at `at`, which is where the session does but for what is
    /// `refused`.
    fn setup_ended(&mut self, at: SettingsId, refused: Option<RefusedSettings>) {
        let Some(session) = self.session.as_deref_mut() else { return };
        self.tables.settings.assign(&mut self.server.settings, at);
        if matches!(session.link, Link::Ready(_)) {
            // Its last statement was asked about.
            self.freed = Freed::Perhaps;
        }
        session.link = Link::Ready(self.server.id);
        if refused.is_some() {
            // Its settings are set anew for whatever it does next.
            self.server.residue.insert(Kinds::SETTINGS);
        }
        session.refused = refused.map(Box::new);
        match session.trial {
            Trial::Due => {
                arrival::greet_tried(session, self.server, self.pool, self.tables, self.plan);
                self.freed = Freed::Perhaps;
            }
            Trial::None => link::tell_reported(session, self.server, self.plan),
        }
    }

    /// The server was asked about its database.
    fn facts_answered(&mut self, failed: bool) {
        if self.server.status != TransactionStatus::Idle {
            link::send_own(self.server, OwnQuery::Rollback, b"ROLLBACK", self.plan);
        }
        if failed {
            self.server.own_statements.doubt();
        }
        let asking = self.server.asking.take();
        let answer = asking.and_then(|(asking, _)| asking.answer()).filter(|_| !failed);
        let session = answer.and_then(|answer| answer.session);
        let facts = &self.pool.shared.database.facts;
        // Without an answer the worst is believed, for as long as an answer would be.
        let (event_triggers, other_set_config) = session
            .map_or((true, true), |session| (session.event_triggers, session.other_set_config));
        facts.learn(event_triggers, other_set_config, self.now);
        // The session's own message comes next.
        self.freed = Freed::No;
        if self.is_setting_up() {
            self.setup_goes_on();
        }
    }

    /// The server was asked what the session has left on it.
    fn question_answered(&mut self, failed: bool) {
        if self.server.status != TransactionStatus::Idle {
            // It broke off in the middle of its transaction.
            link::send_own(self.server, OwnQuery::Rollback, b"ROLLBACK", self.plan);
        }
        let mut plan = std::mem::take(self.plan);
        if let Some(mut books) = self.books() {
            books.answered(failed, &mut plan);
        }
        // What code has reset stands at the client's startup values, and the client is told so.
        if let Some(session) = self.session.as_deref_mut()
            && session.presence == Presence::Here
            && self.server.asking.is_none()
        {
            let wanted = session.settings.current();
            link::send_settings(self.server, wanted, self.tables, &mut plan);
        }
        *self.plan = plan;
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
        if !link::is_between(session, self.server) {
            return Ok(());
        }
        if self.server.residue.meets(Kinds::STATEMENTS) {
            self.server.residue.remove(Kinds::STATEMENTS);
            let text = reset::without_waiting(b"DEALLOCATE ALL;");
            link::send_own(self.server, OwnQuery::Deallocate, &text, self.plan);
            link::forget_statements(self.server);
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
        if !link::may_release(session, self.server, self.pool) {
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
            link::start_reset(self.server, self.pool, self.tables, self.plan);
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
        link::send_own(self.server, OwnQuery::Untimed, text, self.plan);
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
