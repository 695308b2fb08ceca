//! When a session is asked about, and what the books learn from the answer.

use std::time::Duration;

use pgimbal_config::{HiddenState, PoolMode};

use super::Books;
use crate::plan::Plan;
use crate::server::pending::{OwnQuery, Pending};
use crate::session::pin::PinReason;
use crate::session::state::answer::Answer;
use crate::session::state::asking::{Asking, Waiting};
use crate::session::state::custom;
use crate::session::{Phase, setup};
use crate::sql::Kinds;

/// How long an answer about what pins a session is left to stand while only plain statements run:
/// a function may have taken it away.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// What became of the wish to ask the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// There is nothing to ask.
    Nothing,
    /// The question is on its way.
    Sent,
}

impl Books<'_> {
    /// The client is between two transactions: asks what it has left, if anything may be.
    pub(crate) fn ask(&mut self, plan: &mut Plan) -> Asked {
        let raised = self.session.raised;
        if raised.is_empty() {
            return Asked::Nothing;
        }
        if self.pool.config().pool.mode == PoolMode::Session {
            // It keeps its server connection, whatever is there, until that is reset.
            self.session.raised = Kinds::NONE;
            return Asked::Nothing;
        }
        self.keep_hidden(raised.and(Kinds::HIDDEN));
        if raised.meets(Kinds::DBLINK) {
            // No function of PostgreSQL's shows its connections.
            self.session.pin.set(PinReason::Dblink, true, self.now);
        }
        let denied = self.pool.shared().database.facts.denied();
        let asked = raised.and(Kinds::ASKED).without(Kinds::DBLINK);
        if asked.meets(denied) {
            self.session.pin.deny(asked.and(denied), self.now);
        }
        let asked = asked.without(denied);
        self.session.raised = asked;
        if asked.is_empty() {
            setup::hold_place(self.session, self.pool);
            return Asked::Nothing;
        }
        self.send_question(Asking::about(asked), plan);
        Asked::Sent
    }

    /// What no query shows is taken off before the next transaction, unless its client is to keep
    /// it.
    fn keep_hidden(&mut self, hidden: Kinds) {
        if hidden.is_empty() {
            return;
        }
        match self.pool.config().pool.hidden_state {
            HiddenState::Reset => self.server.residue_mut().insert(hidden),
            HiddenState::Pin => {
                self.server.residue_mut().insert(hidden);
                self.session.pin.set(PinReason::HiddenState, true, self.now);
                setup::hold_place(self.session, self.pool);
            }
        }
    }

    fn send_question(&mut self, asking: Asking, plan: &mut Plan) {
        if self.server.residue().meets(Kinds::UNNAMED_SETTINGS) {
            // Code sets what the others set, likely.
            let custom = &mut self.session.custom;
            self.pool.shared().database.facts.each_custom(|name| custom.add(name));
        }
        let custom = self.custom_names();
        for question in asking.questions() {
            if let Some(label) = question.label() {
                *self.pool.stats_mut().questions.entry(label).or_default() += 1;
            }
        }
        let own = self.server.own_statements_mut();
        plan.make_for_server(|out| asking.write(own, &custom, out));
        self.server.pending_mut().push(Pending::Own(OwnQuery::Question));
        self.server.statements_mut().end_segment();
        self.server.begin_asking(asking, self.now);
        // What it sends next depends on the answer.
        self.session.phase = Phase::Barrier;
    }

    /// The custom settings that are asked about by name, with commas between them.
    fn custom_names(&self) -> Vec<u8> {
        let table = &self.tables.settings;
        let settings = [self.session.settings.current(), self.session.settings.base()]
            .into_iter()
            .flat_map(|id| table.settings(id));
        let mut names: Vec<&[u8]> = settings
            .map(|setting| &*setting.name)
            .filter(|name| custom::is_custom(name))
            .chain(self.session.custom.iter())
            .collect();
        names.sort_unstable();
        names.dedup();
        names.join(&b',')
    }

    /// The answer to a question is complete; `failed` if an error came. Returns whether the same
    /// question is asked once more.
    pub(crate) fn answered(&mut self, failed: bool, plan: &mut Plan) -> Asked {
        let Some(asking) = self.server.end_asking(self.now) else { return Asked::Nothing };
        let client = asking.client();
        let (kinds, refusal, again) = (asking.kinds(), asking.refusal(), asking.may_ask_again());
        let answer = asking.answer().filter(|_| !failed);
        let Some(answer) = answer else {
            self.pool.stats_mut().questions_failed += 1;
            self.server.own_statements_mut().doubt();
            match refusal {
                Some(refusal) if refusal.is_missing_statement() && again => {
                    // All were deallocated, by code: the client's are gone with pgimbal's.
                    self.forget_all_statements();
                    self.send_question(Asking::about(kinds).last(), plan);
                    return Asked::Sent;
                }
                Some(refusal) if refusal.is_denied() => {
                    if self.pool.shared().database.facts.deny(kinds) {
                        self.tables.denied = Some((self.pool.id(), kinds));
                    }
                    self.session.pin.deny(kinds, self.now);
                }
                _ => {}
            }
            self.settle(kinds, client);
            self.session.pin.set(PinReason::Unknown, true, self.now);
            setup::hold_place(self.session, self.pool);
            return Asked::Nothing;
        };
        self.settle(kinds, client);
        if self.session.raised.is_empty() {
            self.session.custom.clear();
        }
        self.learn(kinds, &answer);
        Asked::Nothing
    }

    /// A question about `kinds` has its answer. What a client sends that has not waited for it may
    /// have changed them since.
    fn settle(&mut self, kinds: Kinds, client: Waiting) {
        if client == Waiting::Yes {
            self.session.raised.remove(kinds);
        }
    }

    fn learn(&mut self, kinds: Kinds, answer: &Answer) {
        if let Some(session) = &answer.session {
            let facts = &self.pool.shared().database.facts;
            facts.learn(session.event_triggers, session.other_set_config, self.now);
        }
        for shown in answer.settings.iter().flatten().filter(|shown| !shown.value.is_empty()) {
            self.remember_custom(&shown.name);
        }
        if answer.settings.is_some() || answer.session.is_some() {
            let login = self.pool.config().user.as_bytes();
            let table = &mut self.tables.settings;
            match self.session.settings.shown(table, answer, login) {
                Ok(at) => {
                    self.server.adopt_settings(table, at);
                    let (pool, tables) = (&*self.pool, &*self.tables);
                    setup::refresh_settings_pins(self.session, pool, tables, self.now);
                }
                Err(untracked) => self.note_tracked(Err(untracked)),
            }
        }
        if let Some(counts) = answer.statements {
            let believed = self.server.statements().len() as u64
                + self.server.own_statements().count()
                + self.session.statements.as_ref().map_or(0, |names| names.uncached_count());
            if counts.parsed != believed {
                // Code has closed or made some: nothing that was believed of them holds.
                self.server.residue_mut().insert(Kinds::STATEMENTS);
            }
        }
        let mut shown = answer.shown();
        if let Some(session) = &answer.session
            && kinds.meets(Kinds::CHANNELS)
        {
            // What the shared connection carries does not keep its client here.
            if self.session.channels.shown(&session.channels) {
                shown.remove(Kinds::CHANNELS);
            }
            self.tables.channel_work.note_session(self.session.id);
        }
        self.session.pin.answered(self.now);
        self.session.pin.show(kinds, shown, self.now);
        if !setup::hold_place(self.session, self.pool) {
            self.pool.stats_mut().pins_by_question += 1;
        }
    }

    /// Whether plain statements are a reason to ask again what pins the session.
    pub(crate) fn is_answer_old(&self) -> bool {
        self.server.asked_at().is_none_or(|asked| self.now - asked >= ASK_AGAIN)
    }
}
