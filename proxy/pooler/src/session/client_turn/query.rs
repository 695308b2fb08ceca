//! A client's simple query.

use pgimbal_config::{PoolMode, Verify};
use pgimbal_wire::encode::{self, TransactionStatus};
use pgimbal_wire::error::{Report, Severity, SqlState};
use pgimbal_wire::frame::Header;

use super::{ClientTurn, Message, Step, emit_made};
use crate::cluster::route;
use crate::error::error_body;
use crate::plan::Stop;
use crate::recovery::effects::SegmentEffects;
use crate::server::pending::Pending;
use crate::server::{Body, ReadingsKnown, UnnamedStatement};
use crate::session::effect::Script;
use crate::session::setup;
use crate::session::{ClientBody, Phase};
use crate::sql::{
    self, Calls, Classified, Encoding, Followed, Form, Kinds, Operand, Readings, Scanner, SetBy,
};

/// Kinds of state for which a session will keep its server connection as soon as it has them.
const PINNING: Kinds =
    Kinds::TEMPORARY.union(Kinds::LOCKS).union(Kinds::CHANNELS).union(Kinds::CURSORS);

impl ClientTurn<'_> {
    pub(super) fn query(&mut self, header: Header) -> Step {
        let message = self.held(header, 0)?;
        if self.is_refused_ahead(message.query_text()) {
            return Ok(());
        }
        self.ready_link()?;
        self.settled_name(&[])?;
        if !message.is_whole() {
            return self.long_query(message);
        }
        let Some((0, text)) = message.body.split_last() else {
            return Err(self.violation("invalid string in message"));
        };
        let read = self.read(text);
        let step = self.query_read(message, text, &read.classified);
        self.keep_if_waits(message, Some(read));
        step
    }

    fn query_read(&mut self, message: Message<'_>, text: &[u8], classified: &Classified) -> Step {
        if self.is_refused(classified) || self.admit(classified)?.is_refused() {
            // Answered in place of the server, as is the rest of its segment.
            return Ok(());
        }
        self.await_facts(classified)?;
        if self.session.unnamed.is_some() && self.server()?.pending.may_skip() {
            // Whether it destroys the unnamed statement depends on what is in front of it.
            self.await_replies()?;
        }
        let temporary = self.name_for_query(text, classified)?;
        let escaped = self.escape(text, classified);
        // A PREPARE is followed if its name is closed behind it.
        let script = self.script_of(classified, if temporary.is_empty() { b"" } else { text });
        self.raise(classified, text);
        self.effects = SegmentEffects::of_query(classified);
        self.send_query(message, script, escaped.as_deref());
        self.take_back(temporary);
        Ok(())
    }

    /// A FunctionCall is answered as a query is.
    pub(super) fn function_call(&mut self, header: Header) -> Step {
        let message = self.linked(header, 0)?;
        if !is_large_object(message.body) && self.pool.config.pool.mode != PoolMode::Session {
            // The protocol shows a number; what the function does to the session, nobody can see.
            self.session.raised.insert(Kinds::ANYTHING);
            self.doubt_readings();
        }
        let server = self.server()?;
        server.pending.push(Pending::Query(None));
        server.in_flight.ended();
        server.since_ready.segment_open = false;
        self.pool.stats.queries += 1;
        self.forward(message);
        Ok(())
    }

    /// How the server will read what is sent now.
    pub(super) fn readings(&self) -> Readings {
        match self.server.as_deref().map(|server| server.readings) {
            Some(ReadingsKnown::No) => Readings::Any,
            _ => Readings::One(self.session.reading),
        }
    }

    /// Which calls of functions are looked at.
    pub(super) fn calls(&self) -> Calls {
        match self.pool.config.pool.verify {
            Verify::Calls => Calls::Functions,
            Verify::Text | Verify::Always => Calls::Text,
        }
    }

    pub(super) fn doubt_readings(&mut self) {
        if let Some(server) = self.server.as_deref_mut() {
            server.readings = ReadingsKnown::No;
        }
    }

    /// Whether nothing of the client's is under way on its server connection.
    pub(super) fn is_fresh(&self) -> bool {
        self.server.as_deref().is_some_and(|server| {
            server.status == TransactionStatus::Idle
                && server.pending.is_empty()
                && !server.since_ready.segment_open
        })
    }

    /// Whether settings of the session that no server connection takes stand in the way of a text;
    /// then its error is what comes next. A text that replaces them or resets everything passes.
    pub(super) fn is_refused(&mut self, classified: &Classified) -> bool {
        let Some(refused) = self.session.refused_error().filter(|_| self.is_fresh()) else {
            return false;
        };
        if mends(classified, &refused.names) {
            return false;
        }
        let error = std::sync::Arc::clone(&refused.error);
        self.session.refuse(error);
        true
    }

    /// Lets the server tell about its database first, if what a text leaves depends on that.
    ///
    /// # Errors
    /// [`Stop::Wait`] until it has.
    pub(super) fn await_facts(&mut self, classified: &Classified) -> Step {
        let depends =
            |step: &sql::Step| matches!(step.form, Form::Set(_, SetBy::UnqualifiedFunction));
        let depends =
            classified.marks.may_change_schema() || classified.steps().iter().any(depends);
        if !depends || self.pool.config.pool.mode == PoolMode::Session {
            return Ok(());
        }
        let due = self.pool.shared.database.facts.want(self.now);
        if !due || !self.is_fresh() {
            return Ok(());
        }
        let Some(server) = self.server.as_deref_mut() else { return Ok(()) };
        setup::send_facts_question(server, self.pool, self.now, self.plan);
        self.session.phase = Phase::Barrier;
        Err(Stop::Wait)
    }

    /// Whether a text begins a transaction block where the pool has none; then its error is what
    /// comes next.
    pub(super) fn refuses_block(&mut self, classified: &Classified) -> bool {
        let refuses =
            self.pool.config.pool.mode == PoolMode::Statement && classified.marks.begins();
        if refuses {
            self.session.refuse(error_body(
                &Report::error(
                    SqlState::FEATURE_NOT_SUPPORTED,
                    "transaction blocks are not allowed in statement pooling",
                )
                .hint("Use a pool in transaction mode (pool_mode = \"transaction\")."),
            ));
        }
        refuses
    }

    /// Whether the pool lets a text through.
    ///
    /// # Errors
    /// [`Stop::WaitForPlace`] when it has to wait for a place among the pinned sessions.
    pub(super) fn admit(&mut self, classified: &Classified) -> Result<Admission, Stop> {
        if self.refuses_block(classified) {
            return Ok(Admission::Refused);
        }
        if let Some(wrong) = route::misnamed_in(classified).filter(|_| self.is_fresh()) {
            self.session.refuse(wrong.body(Severity::Error));
            return Ok(Admission::Refused);
        }
        let raises = classified.raises();
        let will_pin = raises.meets(PINNING)
            && !raises.meets(Kinds::UNNAMED_SETTINGS)
            && !classified.marks.begins()
            && self.pool.config.pool.mode == PoolMode::Transaction;
        if will_pin {
            self.take_place()?;
        }
        Ok(Admission::Let)
    }

    /// Lets a text through that is too long to be looked at first. It may leave anything, so it
    /// needs a place among the pinned sessions, which it gives back if it has left nothing.
    ///
    /// # Errors
    /// [`Stop::WaitForPlace`] when it has to wait for one.
    pub(super) fn admit_unread(&mut self) -> Result<(), Stop> {
        match self.pool.config.pool.mode {
            PoolMode::Transaction => self.take_place(),
            PoolMode::Session | PoolMode::Statement => Ok(()),
        }
    }

    fn take_place(&mut self) -> Result<(), Stop> {
        // In the middle of a transaction it does not wait: it holds a server connection.
        if self.session.pin.has_slot() || !self.is_fresh() {
            return Ok(());
        }
        let slot = self.pool.shared.pin(self.pool.config.max_pinned).ok_or(Stop::WaitForPlace)?;
        self.session.pin.hold(slot);
        Ok(())
    }

    /// The statements of a text, if the books follow one of them. `text` is empty where a PREPARE
    /// is not followed.
    pub(super) fn script_of(&mut self, classified: &Classified, text: &[u8]) -> Option<Script> {
        let open = self.session.settings.changed_in_transaction();
        let is_followed = |step: &sql::Step| match step.form.followed() {
            Followed::No => false,
            Followed::WithSettings => open,
            Followed::Always => true,
        };
        let steps = classified.steps();
        let runs = |step: &sql::Step| self.run_by_execute(step).is_some();
        if !steps.iter().any(|step| is_followed(step) || runs(step)) {
            return None;
        }
        let mut steps = steps.to_vec();
        for step in &mut steps {
            if let Some(form) = self.run_by_execute(step) {
                step.form = form.clone();
            }
        }
        let mut script = Script::new(steps, text);
        if self.session.refused.is_none() && script.resets() {
            let base = self.tables.settings.settings(self.session.settings.base());
            let base: Vec<&[u8]> = base.iter().map(|setting| &*setting.name).collect();
            let left = script.leave_resets(&base, |step, name| self.may_set_unseen(step, name));
            if left {
                self.session.raised.insert(Kinds::SETTINGS.union(Kinds::ROLE));
            }
        }
        Some(script)
    }

    /// The DEALLOCATE that a statement runs by SQL EXECUTE, whose tag says so.
    fn run_by_execute(&self, step: &sql::Step) -> Option<&Form> {
        let Form::Execute(name) = &step.form else { return None };
        let statement = self.session.statements.as_ref()?.get(name)?;
        let form = statement.class.not_plain()?.only()?;
        matches!(form, Form::Deallocate(_) | Form::DeallocateAll).then_some(form)
    }

    /// Whether a statement may set `name` without being followed.
    fn may_set_unseen(&self, step: &sql::Step, name: &[u8]) -> bool {
        match &step.form {
            // A function of the name that is not PostgreSQL's and sets something else than it is
            // told is not thought of.
            Form::Set(list, SetBy::UnqualifiedFunction) => {
                !self.pool.shared.database.facts.set_config_is_builtin(self.now)
                    && list.iter().any(|assignment| match &assignment.name {
                        Operand::Text(set) => set.eq_ignore_ascii_case(name),
                        _ => true,
                    })
            }
            Form::Execute(_) | Form::Fetch => true,
            _ => step.raises.meets(Kinds::SETTINGS),
        }
    }

    fn send_query(&mut self, message: Message<'_>, script: Option<Script>, text: Option<&[u8]>) {
        let is_refused = message.is_whole() && self.is_refused_as_text(message.body);
        if !is_refused {
            self.destroy_unnamed();
        }
        let restores = self.server.as_deref().is_some_and(|server| server.restore.may_be_due());
        // What names mean behind code that may deallocate all, the answer to a question tells.
        let forgets = self.session.raised.meets(Kinds::STATEMENTS);
        if script.is_some() || restores || forgets {
            self.session.phase = Phase::Barrier;
        }
        if let Some(server) = self.server.as_deref_mut() {
            // A query in a segment that fails in front of it is skipped: the server keeps whatever
            // it has.
            match server.pending.may_skip() {
                true => server.unnamed = UnnamedStatement::Foreign,
                false if is_refused => {}
                false => server.unnamed = UnnamedStatement::Absent,
            }
            server.pending.push(Pending::Query(script.map(Box::new)));
            server.in_flight.ended();
            // Its own end settles what came before it, too.
            server.since_ready.segment_open = false;
        }
        self.pool.stats.queries += 1;
        match text {
            Some(text) => {
                self.plan.make_for_server(|out| encode::query(out, text));
                self.at = message.end();
            }
            None => self.forward(message),
        }
    }

    /// A simple query destroys the unnamed statement.
    fn destroy_unnamed(&mut self) {
        let was_unkept = self.session.unnamed_is_unkept;
        self.session.set_unnamed(None);
        if was_unkept {
            self.refresh_statement_pins();
        }
    }

    /// Whether the server refuses a text before it does anything, since it is not UTF-8.
    fn is_refused_as_text(&self, text: &[u8]) -> bool {
        self.session.reading.encoding == Encoding::Utf8
            && !text.is_ascii()
            && std::str::from_utf8(text).is_err()
    }

    /// A text above the limit passes while it is classified; nothing of it can be refused any more.
    fn long_query(&mut self, message: Message<'_>) -> Step {
        self.admit_unread()?;
        let mut scanner = Box::new(Scanner::new(self.readings(), self.calls()));
        scanner.feed(message.body);
        self.send_query(message, None, None);
        self.session.body = ClientBody::Text(message.missing(), scanner);
        Ok(())
    }

    /// The end of a long text has passed; so many bytes of its message are to come.
    pub(super) fn long_text_ended(&mut self, left: u32) {
        let rest = if left > 0 { Body::Forward(left) } else { Body::None };
        let body = std::mem::replace(&mut self.session.body, ClientBody::Plain(rest));
        if let ClientBody::Text(_, mut scanner) = body {
            let classified = scanner.finish();
            self.raise_unfollowed(&classified);
        }
    }

    /// Stops in front of a message that depends on pending replies.
    pub(super) fn await_replies(&mut self) -> Step {
        let Some(server) = self.server.as_deref_mut() else { return Err(Stop::Checkout) };
        // No reply of the server's would lead to those that are made here.
        emit_made(server, self.plan);
        if server.pending.is_empty() {
            return Ok(());
        }
        if server.since_ready.segment_open {
            // Without it the server may sit on the replies for which we wait.
            self.plan.make_for_server(encode::flush);
        }
        self.session.phase = Phase::Barrier;
        Err(Stop::Wait)
    }
}

/// Whether the pool lets a text through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    Let,
    /// Its error is what comes next.
    Refused,
}

impl Admission {
    pub(super) fn is_refused(self) -> bool {
        self == Self::Refused
    }
}

/// Whether a text replaces or resets all of the settings `names` before it does anything else.
fn mends(classified: &Classified, names: &[Box<[u8]>]) -> bool {
    for step in classified.steps() {
        match &step.form {
            Form::ResetAll | Form::DiscardAll => return true,
            Form::Reset(name, _) if replaces(name, names) => return true,
            Form::Set(list, _) => {
                let sets = |assignment: &sql::Assignment| match &assignment.name {
                    sql::Operand::Text(name) => replaces(&name.to_ascii_lowercase(), names),
                    _ => false,
                };
                if list.iter().any(sets) {
                    return true;
                }
            }
            Form::Reset(..) => {}
            _ => return false,
        }
    }
    false
}

/// Whether setting `name` leaves nothing of the settings `refused`.
fn replaces(name: &[u8], refused: &[Box<[u8]>]) -> bool {
    // The role goes with the session's user.
    let with_role = name == b"session_authorization";
    refused.iter().all(|refused| **refused == *name || (with_role && **refused == *b"role"))
}

/// Whether a FunctionCall is one of the large-object functions that drivers call so: they are bound
/// to the transaction. OIDs of built-in functions never change (pg_proc.dat).
fn is_large_object(body: &[u8]) -> bool {
    let Some(oid) = body.first_chunk::<4>() else { return true };
    matches!(
        u32::from_be_bytes(*oid),
        715 | 764 | 945 | 952..=958 | 964 | 1004 | 3170..=3172 | 3457..=3460
    )
}
