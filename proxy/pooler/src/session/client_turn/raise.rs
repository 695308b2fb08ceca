//! What a text that is sent may leave in its session.

use pgimbal_config::{PoolMode, Verify};
use pgimbal_wire::encode::{self, TransactionStatus};

use super::ClientTurn;
use crate::recovery::block::Block;
use crate::server::pending::{NameFor, Pending};
use crate::server::{Commits, Ending};
use crate::session::LocalSettings;
use crate::session::state::books::Books;
use crate::sql::{self, Chain, Classified, Form, Kinds, SetBy, Steps};

/// Kinds of state that only functions of these names make: code has to name them, or to call what
/// does. Where that cannot be seen, they are not looked for: one cannot be asked about, and the
/// others take privileges that few have.
const BY_NAME: Kinds = Kinds::ORIGIN.union(Kinds::SLOTS).union(Kinds::DBLINK);

impl ClientTurn<'_> {
    /// Notes what a text that is sent now may leave in the session.
    pub(super) fn raise(&mut self, classified: &Classified, text: &[u8]) {
        if let Some(server) = self.server.as_deref_mut() {
            server.since_ready.ending = ending(server.since_ready.ending, classified);
            server.schema_change |= classified.marks.may_change_schema();
            if classified.marks.may_commit_on_its_way() {
                server.since_ready.commits = Commits::OnItsWay;
            }
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
            if step.local && !self.executes_plain(step) {
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
        // What stands in front of it in the same text may have changed the path.
        let path_changes =
            kinds.meets(Kinds::SETTINGS) || classified.steps().iter().any(may_lead_to_temporary);
        if (path_changes || self.creates_may_be_temporary()) && !classified.only_ends_or_begins() {
            kinds.insert(Kinds::TEMPORARY);
        }
        // Another function of the name may do anything, in whatever form it is called.
        if kinds.meets(Kinds::SETTINGS)
            && sql::has_word(text, b"set_config")
            && !self.pool.shared.database.facts.set_config_is_builtin(self.now)
        {
            kinds.insert(Kinds::ANYTHING);
        }
        if self.pool.config.pool.verify == Verify::Always && classified.may_run_code() {
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
            true => NameFor::Segment,
            false => NameFor::Query,
        };
        for _ in 0..server.own_statements.write_witness(self.plan) {
            server.pending.push(Pending::Witness(to));
        }
        if !server.since_ready.segment_open {
            server.pending.push(Pending::OwnSync);
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

    /// Whether it runs a statement of the client's that only reads or writes rows.
    fn executes_plain(&self, step: &sql::Step) -> bool {
        let Form::Execute(name) = &step.form else { return false };
        let known = self.session.statements.as_ref().and_then(|names| names.get(name));
        known.is_some_and(|statement| statement.body.is_some() && statement.classified.is_none())
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
                        Some(inner) => {
                            self.session.custom.add_from(statement.text());
                            inner.raises().union(Kinds::SETTINGS).union(Kinds::ROLE)
                        }
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

    /// Applies the effects of a text that has already been sent to the server, so that it can no
    /// longer be refused, and of which no statement is followed.
    pub(super) fn raise_unfollowed(&mut self, classified: &Classified) {
        if let Some(server) = self.server.as_deref_mut() {
            let block = Block::of(classified);
            // That of a Query has been ended with it, that of a Parse has not.
            match server.since_ready.segment_open {
                true => server.in_flight.does(block),
                false => server.in_flight.did(block),
            }
        }
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
}

/// Whether a statement sets a search path under which relations are created in the temporary
/// schema.
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
