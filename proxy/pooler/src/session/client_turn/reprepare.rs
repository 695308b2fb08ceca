//! A statement that a server connection lacks, reprepared where its client needs it.

use std::rc::Rc;
use std::sync::Arc;

use pgimbal_wire::encode::{self, TransactionStatus};

use super::{ClientTurn, Step};
use crate::plan::Stop;
use crate::server::pending::{DescribeInFlight, NameFor, ParseInFlight, Pending};
use crate::server::prepared::{Origin, ParsedUnder, Statement, StatementId};
use crate::server::statements::StatementLookup;
use crate::session::pin::PinReason;
use crate::session::settings::{
    Setting, assign_local, is_looked_at_again, is_read_at_parse, reset_local,
};
use crate::sql;

/// What is set around a Parse, each in a statement of its own.
#[derive(Debug, Default)]
pub(super) struct Detour {
    pub(super) there: Vec<Vec<u8>>,
    pub(super) back: Vec<Vec<u8>>,
}

fn local(name: &[u8], setting: Option<&Setting>) -> Vec<u8> {
    let mut sql = Vec::new();
    match setting {
        Some(setting) => assign_local(setting, &mut sql),
        None => reset_local(name, &mut sql),
    }
    sql
}

impl ClientTurn<'_> {
    /// Puts a Parse of a kept statement in front of the message that needs it. Where the client was
    /// told what it looks like, the server describes it too, and the message waits for that: a
    /// statement whose shape has changed must not be run.
    ///
    /// # Errors
    /// [`Stop::Wait`] until the server has answered.
    pub(super) fn reprepare(
        &mut self,
        name: &[u8],
        statement: &Rc<Statement>,
        detour: Detour,
    ) -> Step {
        if statement.body.is_none() {
            return Ok(());
        }
        self.make_room()?;
        self.pool.stats.reprepares += 1;
        let is_known = self.settings_are_known();
        self.set_on_the_way(&detour.there, NameFor::Segment)?;
        let server = self.server()?;
        server.statements.insert(statement.id);
        if !is_known {
            // Others share it, who mean the settings of when they parsed it.
            server.unsettled.push(statement.id);
        }
        server.pending.push(Pending::Parse(Box::new(ParseInFlight {
            statement: Some(Rc::clone(statement)),
            change: None,
            is_probed: false,
        })));
        let mut server_name = Vec::with_capacity(48);
        statement.write_server_name(&mut server_name);
        self.plan.make_for_server(|out| {
            encode::message(out, pgimbal_wire::tag::frontend::PARSE, |out| {
                out.extend_from_slice(&server_name);
                out.push(0);
                statement.write_body(out);
            });
        });
        self.set_on_the_way(&detour.back, NameFor::Segment)?;
        if statement.shape.get().is_none() {
            return Ok(());
        }
        self.pool.stats.shape_checks += 1;
        let statement = Rc::clone(statement);
        let check = DescribeInFlight { name: name.into(), statement, parameters: None };
        self.server()?.pending.push(Pending::ShapeCheck(Box::new(check)));
        self.plan.make_for_server(|out| {
            encode::describe(out, encode::NameKind::Statement, &server_name);
        });
        self.await_replies()
    }

    /// Closes the least recently used statements while the server has as many as it may. It has
    /// more for a while when all of them are needed; those that are not sure to be there yet are
    /// waited for.
    pub(super) fn make_room(&mut self) -> Step {
        let limit = self.pool.config.pool.max_prepared_statements.max(1) as usize;
        if self.server()?.statements.len() < limit {
            return Ok(());
        }
        let kept = self.not_to_evict();
        loop {
            let server = self.server()?;
            let Some(victim) = server.statements.to_evict(limit, server.transaction, &kept) else {
                let unsure = server.statements.len() >= limit && server.statements.any_unsure();
                return if unsure { self.await_replies() } else { Ok(()) };
            };
            server.statements.leave(victim);
            server.pending.push(Pending::Evict(victim));
            let mut name = Vec::with_capacity(48);
            crate::server::prepared::write_server_name(victim, &mut name);
            self.plan.make_for_server(|out| encode::close(out, encode::NameKind::Statement, &name));
        }
    }

    /// The client's statements that might not be the same if they were parsed again now, in order.
    fn not_to_evict(&self) -> Vec<StatementId> {
        let session = &self.session;
        let Some(names) = session.statements.as_deref() else { return Vec::new() };
        if !self.settings_are_known() {
            return names.kept();
        }
        if session.pin.has(PinReason::StatementUnderOlderSettings) {
            let settings = self.tables.parse_fingerprint(session.settings.current());
            return names.fixed_otherwise(settings);
        }
        Vec::new()
    }

    /// The way to the settings under which the text of `statement` is to be read, and back, where
    /// it was parsed under others than those of now. Nothing of it is left behind the transaction,
    /// nor in it.
    pub(super) fn detour(&self, statement: &Statement) -> Option<Detour> {
        let then = statement.parsed_under.get()?;
        let server = self.server.as_deref()?;
        if server.status == TransactionStatus::Failed || !self.may_need_detour(statement) {
            return None;
        }
        let table = &self.tables.settings;
        let now = table.settings(table.parse_affecting(self.session.settings.current()));
        let path = |set: &[Setting]| set.iter().find(|s| *s.name == *b"search_path").cloned();
        // Under another path PostgreSQL reads the constants again, the text never.
        let analysed_anew = path(then) != path(now);
        let is_read = |s: &&Setting| is_read_at_parse(&s.name, analysed_anew);
        let read = then.iter().chain(now.iter()).filter(is_read);
        if read.clone().any(Setting::depends_on_encoding) {
            return None;
        }
        let mut detour = Detour::default();
        for setting in read {
            let find = |set: &[Setting]| set.iter().find(|s| s.name == setting.name).cloned();
            let (old, new) = (find(then), find(now));
            if old == new {
                continue;
            }
            let there = local(&setting.name, old.as_ref());
            if !detour.there.contains(&there) {
                detour.there.push(there);
                detour.back.push(local(&setting.name, new.as_ref()));
            }
        }
        (!detour.there.is_empty()).then_some(detour)
    }

    /// Whether a statement was parsed under other settings than those of now. What these are is
    /// sure when every reply has come.
    pub(super) fn may_need_detour(&self, statement: &Statement) -> bool {
        let Some(then) = statement.parsed_under.get() else { return false };
        let table = &self.tables.settings;
        let now = table.parse_affecting(self.session.settings.current());
        self.settings_are_known() && **then != *table.settings(now)
    }

    pub(super) fn set_on_the_way(&mut self, queries: &[Vec<u8>], to: NameFor) -> Step {
        for sql in queries {
            self.run_own(sql, to, None)?;
        }
        Ok(())
    }

    /// A statement that is about to be parsed on another server under the settings of then: what
    /// PostgreSQL looks at again is that of now.
    pub(super) fn under_older_settings(
        &mut self,
        name: &[u8],
        statement: Rc<Statement>,
    ) -> Rc<Statement> {
        let Some(then) = statement.parsed_under.get() else { return statement };
        let table = &self.tables.settings;
        let now = table.settings(table.parse_affecting(self.session.settings.current()));
        let looked_at = |s: &&Setting| is_looked_at_again(&s.name);
        let ParsedUnder::Settings { fixed, .. } = statement.settings else { return statement };
        if then.iter().filter(looked_at).eq(now.iter().filter(looked_at)) {
            return statement;
        }
        let settings = ParsedUnder::Settings { all: self.next_unkept().0 as u64, fixed };
        let changes = self.pool.shared.database.schema_changes();
        let classified = statement.classified.clone();
        let own = self.tables.statements.under(&statement, settings, changes, classified);
        let _ = own.parsed_under.set(Arc::clone(then));
        self.rename(name, Some(Rc::clone(&own)));
        own
    }

    /// A statement that is about to be parsed on another server is from then on one that was
    /// parsed under the settings of that time: nobody else may take it for one under the old ones.
    pub(super) fn under_current_settings(
        &mut self,
        name: &[u8],
        statement: Rc<Statement>,
    ) -> Rc<Statement> {
        let settings = self.tables.parse_fingerprint(self.session.settings.current());
        if statement.body.is_none()
            || statement.origin == Origin::Sql
            || statement.settings == settings
        {
            return statement;
        }
        let changes = self.pool.shared.database.schema_changes();
        // The server reads it under the settings of now.
        let classified = sql::classify(statement.text(), self.readings(), self.calls());
        let classified = (!classified.is_plain()).then(|| Box::new(classified));
        let current = self.tables.statements.under(&statement, settings, changes, classified);
        if self.settings_are_known() {
            self.note_parsed_under(&current);
        }
        self.rename(name, Some(Rc::clone(&current)));
        self.refresh_statement_pins();
        current
    }

    /// Whether the server has a statement, once that is sure.
    pub(super) fn found(&mut self, statement: &Statement) -> Result<StatementLookup, Stop> {
        if self.server()?.statements.find(statement.id) == StatementLookup::Unsure {
            self.await_replies()?;
        }
        Ok(self.server()?.statements.find(statement.id))
    }
}
