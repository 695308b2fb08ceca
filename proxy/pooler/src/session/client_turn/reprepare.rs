//! A statement that a server connection lacks, reprepared where its client needs it.

use std::rc::Rc;

use pgimbal_wire::encode;

use super::{ClientTurn, Step};
use crate::plan::Stop;
use crate::server::pending::{DescribeInFlight, ParseInFlight, Pending};
use crate::server::prepared::{Origin, Statement, StatementId};
use crate::server::statements::StatementLookup;
use crate::session::pin::PinReason;
use crate::sql;

impl ClientTurn<'_> {
    /// Puts a Parse of a kept statement in front of the message that needs it. Where the client was
    /// told what it looks like, the server describes it too, and the message waits for that: a
    /// statement whose shape has changed must not be run.
    ///
    /// # Errors
    /// [`Stop::Wait`] until the server has answered.
    pub(super) fn reprepare(&mut self, name: &[u8], statement: &Rc<Statement>) -> Step {
        if statement.body.is_none() {
            return Ok(());
        }
        self.make_room()?;
        self.pool.stats.reprepares += 1;
        let is_known = self.settings_are_known();
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
            server.pending.push(Pending::Evict(Box::new(victim)));
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
        let class = classified.into();
        let current = self.tables.statements.under(&statement, settings, changes, class);
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
