//! A query of the proxy's own is done: what follows from its answer.

use pgimbal_wire::encode::TransactionStatus;

use super::{Fate, Freed, ServerTurn};
use crate::plan::Stop;
use crate::recovery::tries::Rerun;
use crate::server::Setup;
use crate::server::pending::{OwnQuery, Pending};
use crate::session::settings::{RefusedSettings, SettingsId};
use crate::session::{Link, Presence, Trial, arrival, setup};
use crate::sql::Kinds;

impl ServerTurn<'_> {
    /// A query of the proxy's own is done; `failed` if an error came.
    pub(super) fn own_query_ended(&mut self, kind: OwnQuery, failed: bool) -> Result<Fate, Stop> {
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
            setup::forget_statements(self.server);
        }
        Ok(Fate::Swallow)
    }

    /// A part of what the client came with is set again, or refused.
    fn restored(&mut self, failed: bool) -> Fate {
        if failed {
            // It is told when it needs it.
            self.server.residue.insert(Kinds::SETTINGS);
        }
        if matches!(self.server.pending.front(), Some(Pending::Own(OwnQuery::Restore))) {
            return Fate::Swallow;
        }
        if let Some(session) = self.session.as_deref_mut() {
            setup::tell_reported(session, self.server, self.plan);
        }
        // It stands for the client's own.
        Fate::Pass
    }

    fn status_is_idle(&self) -> bool {
        self.server.status == TransactionStatus::Idle
    }

    /// The settings were refused, all at once. The query was one implicit transaction: nothing of
    /// it holds.
    fn setup_failed(&mut self) {
        self.freed = Freed::No;
        if let Some(session) = self.session.as_deref() {
            setup::heal(session, self.server, self.tables, self.plan);
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
        if matches!(self.server.pending.front(), Some(Pending::Own(_))) {
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
            setup::send_own(self.server, OwnQuery::Rollback, b"ROLLBACK", self.plan);
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
            Trial::None => setup::tell_reported(session, self.server, self.plan),
        }
    }

    /// The server was asked about its database.
    fn facts_answered(&mut self, failed: bool) {
        if self.server.status != TransactionStatus::Idle {
            setup::send_own(self.server, OwnQuery::Rollback, b"ROLLBACK", self.plan);
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
            setup::send_own(self.server, OwnQuery::Rollback, b"ROLLBACK", self.plan);
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
            setup::send_settings(self.server, wanted, self.tables, &mut plan);
        }
        *self.plan = plan;
    }
}
