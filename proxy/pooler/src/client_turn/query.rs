//! A client's simple query.

use pgimbal_config::{PoolMode, Verify};
use pgimbal_wire::encode::{self, TransactionStatus};
use pgimbal_wire::error::{Report, SqlState};
use pgimbal_wire::frame::Header;

use super::{ClientTurn, Message, Step};
use crate::effect::Script;
use crate::link;
use crate::owed::{LentTo, Owed};
use crate::plan::Stop;
use crate::pooler::error_body;
use crate::server::{Body, Ending, ReadingsKnown, UnnamedStatement};
use crate::session::{ClientBody, LocalSettings, Phase};
use crate::sql::{self, Calls, Chain, Classified, Form, Kinds, Readings, Scanner, SetBy, Steps};
use crate::state::books::Books;

/// Kinds of state for which a session will keep its server connection as soon as it has them.
const PINNING: Kinds =
    Kinds::TEMPORARY.union(Kinds::LOCKS).union(Kinds::CHANNELS).union(Kinds::CURSORS);

/// Kinds of state that only functions of these names make: code has to name them, or to call what
/// does. Where that cannot be seen, they are not looked for: one cannot be asked about, and the
/// others take privileges that few have.
const BY_NAME: Kinds = Kinds::ORIGIN.union(Kinds::SLOTS).union(Kinds::DBLINK);

impl ClientTurn<'_> {
    pub(super) fn query(&mut self, header: Header) -> Step {
        let message = self.linked(header, 0)?;
        self.settled_name(&[])?;
        if !message.is_whole() {
            return self.long_query(message);
        }
        let Some((0, text)) = message.body.split_last() else {
            return Err(self.violation("invalid string in message"));
        };
        let classified = sql::classify(text, self.readings(), self.calls());
        if self.is_refused(&classified) || self.admit(&classified)?.is_refused() {
            // Answered in place of the server, as is the rest of its segment.
            return Ok(());
        }
        self.await_facts(&classified)?;
        if self.session.unnamed.is_some() && self.server()?.owed.may_skip() {
            // Whether it destroys the unnamed statement depends on what is in front of it.
            self.await_owed()?;
        }
        let lent = self.lend_for_query(text, &classified)?;
        let escaped = self.escape(text, &classified);
        // A PREPARE is followed if its name is closed behind it.
        let script = self.script_of(&classified, if lent.is_empty() { b"" } else { text });
        self.raise(&classified, text);
        self.send_query(message, script, escaped.as_deref());
        self.take_back(lent);
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
        server.owed.push(Owed::Query(None));
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

    fn doubt_readings(&mut self) {
        if let Some(server) = self.server.as_deref_mut() {
            server.readings = ReadingsKnown::No;
        }
    }

    /// Whether nothing of the client's is under way on its server connection.
    fn is_fresh(&self) -> bool {
        self.server.as_deref().is_some_and(|server| {
            server.status == TransactionStatus::Idle
                && server.owed.is_empty()
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
    /// [`Stop::Full`] until it has.
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
        link::send_facts_question(server, self.pool, self.now, self.plan);
        self.session.phase = Phase::Barrier;
        Err(Stop::Full)
    }

    /// Whether the pool lets a text through.
    ///
    /// # Errors
    /// [`Stop::Place`] when it has to wait for a place among the pinned sessions.
    pub(super) fn admit(&mut self, classified: &Classified) -> Result<Admission, Stop> {
        if self.pool.config.pool.mode == PoolMode::Statement && classified.marks.begins() {
            self.session.refuse(error_body(
                &Report::error(
                    SqlState::FEATURE_NOT_SUPPORTED,
                    "transaction blocks are not allowed in statement pooling",
                )
                .hint("Use a pool in transaction mode (pool_mode = \"transaction\")."),
            ));
            return Ok(Admission::Refused);
        }
        let raises = classified.raises();
        let will_pin = raises.meets(PINNING)
            && !raises.meets(Kinds::UNNAMED_SETTINGS)
            && !classified.marks.begins()
            && self.pool.config.pool.mode == PoolMode::Transaction;
        // In the middle of a transaction it does not wait: it holds a server connection.
        if !will_pin || self.session.pin.has_slot() || !self.is_fresh() {
            return Ok(Admission::Let);
        }
        match self.pool.shared.pin(self.pool.config.max_pinned) {
            Some(slot) => {
                self.session.pin.hold(slot);
                Ok(Admission::Let)
            }
            None => Err(Stop::Place),
        }
    }

    /// Notes what a text that is sent now may leave in the session.
    pub(super) fn raise(&mut self, classified: &Classified, text: &[u8]) {
        if let Some(server) = self.server.as_deref_mut() {
            server.since_ready.ending = ending(server.since_ready.ending, classified);
            server.schema_change |= classified.marks.may_change_schema();
        }
        if self.pool.config.pool.mode == PoolMode::Session {
            return;
        }
        let mut kinds = Kinds::NONE;
        if !classified.only_ends_or_begins() {
            kinds.insert(self.raised_by_portals(classified));
        }
        for step in classified.steps() {
            kinds.insert(self.raised_by(step));
            if step.local {
                self.local_settings_may_hold(text);
            }
        }
        if classified.steps == Steps::Unreadable {
            kinds.insert(sql::Step::UNREADABLE.raises);
            self.local_settings_may_hold(text);
        }
        if classified.marks.may_change_schema() {
            kinds.insert(self.raised_by_ddl(text));
        }
        if kinds.meets(Kinds::SETTINGS.union(Kinds::UNNAMED_SETTINGS)) {
            self.session.custom.add_from(text);
        }
        let path_changes = classified.steps().iter().any(may_lead_to_temporary);
        if (path_changes || self.creates_may_be_temporary()) && !classified.only_ends_or_begins() {
            kinds.insert(Kinds::TEMPORARY);
        }
        if self.pool.config.pool.verify == Verify::Always {
            kinds.insert(Kinds::ANYTHING);
        }
        if kinds.meets(Kinds::UNNAMED_SETTINGS) {
            kinds = kinds.without(BY_NAME).union(named(text));
        }
        if kinds.meets(Kinds::UNNAMED_SETTINGS) {
            self.leave_a_witness();
        }
        kinds.insert(self.asked_again(classified));
        if kinds.meets(Kinds::SETTINGS) || self.session.local != LocalSettings::Known {
            self.doubt_readings();
        }
        self.session.raised.insert(kinds);
    }

    /// Code may deallocate all statements: one of pgimbal's own tells by its absence.
    fn leave_a_witness(&mut self) {
        let Some(server) = self.server.as_deref_mut() else { return };
        if server.own_statements.count() > 0 || server.status == TransactionStatus::Failed {
            return;
        }
        let to = match server.since_ready.segment_open {
            true => LentTo::Segment,
            false => LentTo::Query,
        };
        for _ in 0..server.own_statements.write_witness(self.plan) {
            server.owed.push(Owed::Witness(to));
        }
        if !server.since_ready.segment_open {
            server.owed.push(Owed::OwnSync);
            server.statements.end_segment();
            self.plan.make_for_server(encode::sync);
        }
    }

    /// A text may close a portal whose statement is followed, and put another in its place.
    fn raised_by_portals(&mut self, classified: &Classified) -> Kinds {
        let may_close =
            |step: &sql::Step| matches!(step.form, Form::Declare | Form::Other | Form::DiscardAll);
        if self.session.portals.is_empty() || !classified.steps().iter().any(may_close) {
            return Kinds::NONE;
        }
        for assignments in self.session.portals.assignments() {
            self.session.custom.add_all(assignments);
        }
        self.session.portals.forget();
        Kinds::ANYTHING
    }

    fn raised_by(&mut self, step: &sql::Step) -> Kinds {
        match &step.form {
            Form::Fetch => {
                for assignments in self.session.portals.assignments() {
                    self.session.custom.add_all(assignments);
                }
                step.raises.union(self.session.portals.fetched())
            }
            Form::Declare => {
                self.session.portals.declare(step.raises.without(Kinds::CURSORS));
                step.raises
            }
            Form::Execute(name) => {
                let known = self.session.statements.as_ref().and_then(|names| names.get(name));
                match known {
                    Some(statement) => match statement.classified.as_deref() {
                        None => Kinds::NONE,
                        // A set_config that is run by EXECUTE is not followed.
                        Some(inner) => inner.raises().union(Kinds::SETTINGS).union(Kinds::ROLE),
                    },
                    None => step.raises,
                }
            }
            Form::Set(_, SetBy::UnqualifiedFunction) => {
                let builtin = self.pool.shared.database.facts.set_config_is_builtin(self.now);
                // Another function of the name may do anything.
                if builtin { step.raises } else { Kinds::ANYTHING }
            }
            _ => step.raises,
        }
    }

    /// What DDL may leave: whatever an event trigger does.
    fn raised_by_ddl(&self, text: &[u8]) -> Kinds {
        let facts = &self.pool.shared.database.facts;
        let runs_code = facts.may_have_event_triggers(self.now);
        if sql::has_word(text, b"event") || sql::has_word(text, b"extension") {
            facts.forget();
        }
        if sql::has_word(text, b"set_config") {
            facts.forget();
        }
        if runs_code { Kinds::ANYTHING } else { Kinds::NONE }
    }

    /// Whether relations may be created in the temporary schema without a word of it in the text.
    fn creates_may_be_temporary(&self) -> bool {
        let path = self.tables.settings.get(self.session.settings.current(), b"search_path");
        path.is_some_and(|path| sql::has_word(path, b"pg_temp"))
            || self.session.raised.meets(Kinds::SETTINGS)
            || self.session.local != LocalSettings::Known
    }

    /// A text may set settings until its transaction ends that are not followed.
    fn local_settings_may_hold(&mut self, text: &[u8]) {
        let names = |word| sql::has_word(text, word);
        let named = names(b"local") || names(b"set_config") || text.is_empty();
        self.session.local = match named || self.session.local == LocalSettings::Named {
            true => LocalSettings::Named,
            false => LocalSettings::Unknown,
        };
    }

    /// What pins the session is asked about again when it may have been taken away.
    fn asked_again(&mut self, classified: &Classified) -> Kinds {
        let kinds = self.session.pin.kinds();
        if kinds.is_empty() {
            return Kinds::NONE;
        }
        let Some(server) = self.server.as_deref_mut() else { return Kinds::NONE };
        let (session, pool, tables) = (&mut *self.session, &mut *self.pool, &mut *self.tables);
        let books = Books { session, server, pool, tables, now: self.now };
        if !classified.is_plain() || books.is_answer_old() { kinds } else { Kinds::NONE }
    }

    /// The statements of a text, if the books follow one of them. `text` is empty where a PREPARE is
    /// not followed.
    pub(super) fn script_of(&self, classified: &Classified, text: &[u8]) -> Option<Script> {
        let open = self.session.settings.changed_in_transaction();
        let is_followed = |step: &sql::Step| match &step.form {
            Form::Plain
            | Form::Other
            | Form::Fetch
            | Form::Declare
            | Form::Begin
            | Form::Copy
            | Form::Discard
            | Form::UnlockAll
            | Form::Execute(_) => false,
            Form::Commit(_)
            | Form::Rollback(_)
            | Form::PrepareTransaction
            | Form::Savepoint(_)
            | Form::RollbackTo(_)
            | Form::Release(_) => open,
            _ => true,
        };
        let steps = classified.steps();
        steps.iter().any(is_followed).then(|| Script::new(steps.to_vec(), text))
    }

    fn send_query(&mut self, message: Message<'_>, script: Option<Script>, text: Option<&[u8]>) {
        // A simple query destroys the unnamed statement.
        let was_unkept = self.session.unnamed_is_unkept;
        self.session.set_unnamed(None);
        if was_unkept {
            self.refresh_statement_pins();
        }
        let restores = self.server.as_deref().is_some_and(|server| server.restore.may_be_due());
        if script.is_some() || restores {
            self.session.phase = Phase::Barrier;
        }
        if let Some(server) = self.server.as_deref_mut() {
            // A query in a segment that fails in front of it is skipped: the server keeps whatever
            // it has.
            server.unnamed = match server.owed.may_skip() {
                true => UnnamedStatement::Foreign,
                false => UnnamedStatement::Absent,
            };
            server.owed.push(Owed::Query(script.map(Box::new)));
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

    /// A text above the limit passes while it is classified; nothing of it can be refused any more.
    fn long_query(&mut self, message: Message<'_>) -> Step {
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

    /// Applies the effects of a text that has already been sent to the server, so that it can no
    /// longer be refused, and of which no statement is followed.
    pub(super) fn raise_unfollowed(&mut self, classified: &Classified) {
        self.raise(classified, b"event extension");
        let session_mode = self.pool.config.pool.mode == PoolMode::Session;
        if !session_mode && !classified.is_plain() && !classified.only_ends_or_begins() {
            self.session.raised.insert(Kinds::ANYTHING);
            self.session.local = LocalSettings::Unknown;
            self.doubt_readings();
        } else if self.session.settings.changed_in_transaction() {
            self.session.raised.insert(Kinds::SETTINGS.union(Kinds::ROLE));
        }
    }

    /// Stops in front of a message that depends on what is owed.
    pub(super) fn await_owed(&mut self) -> Step {
        let server = self.server()?;
        if server.owed.is_empty() {
            return Ok(());
        }
        if server.since_ready.segment_open {
            // Without it the server may sit on the replies for which we wait.
            self.plan.make_for_server(encode::flush);
        }
        self.session.phase = Phase::Barrier;
        Err(Stop::Full)
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

/// Whether a statement sets a search path under which relations are created in the temporary schema.
fn may_lead_to_temporary(step: &sql::Step) -> bool {
    let leads = |assignment: &sql::Assignment| match (&assignment.name, &assignment.value) {
        (sql::Operand::Text(name), sql::Operand::Text(value)) => {
            name.eq_ignore_ascii_case(b"search_path") && sql::has_word(value, b"pg_temp")
        }
        _ => true,
    };
    matches!(&step.form, Form::Set(list, _) if list.iter().any(leads))
}

/// The kinds of [`BY_NAME`] whose functions a text names, wherever.
fn named(text: &[u8]) -> Kinds {
    let mut kinds = Kinds::NONE;
    sql::words(text, |word| match word {
        b"dblink_connect" | b"dblink_connect_u" | b"dblink_open" => kinds.insert(Kinds::DBLINK),
        b"pg_replication_origin_session_setup" => kinds.insert(Kinds::ORIGIN),
        b"pg_create_physical_replication_slot"
        | b"pg_create_logical_replication_slot"
        | b"pg_copy_physical_replication_slot"
        | b"pg_copy_logical_replication_slot" => kinds.insert(Kinds::SLOTS),
        _ => {}
    });
    kinds
}

/// What a text adds to what is known of the end of a transaction block.
fn ending(before: Ending, classified: &Classified) -> Ending {
    let rolls_back = matches!(classified.only(), Some(Form::Rollback(Chain::No)));
    match before {
        _ if !classified.marks.may_commit() => before,
        Ending::No if rolls_back => Ending::Rollback,
        _ => Ending::MayCommit,
    }
}
