//! The replies before ReadyForQuery: what each settles.

use std::rc::Rc;

use pgimbal_wire::error::{self, ErrorFields, Severity, SqlState};
use pgimbal_wire::frame::HEADER_LEN;

use super::{Fate, ServerTurn};
use crate::effect::Effect;
use crate::link;
use crate::owed::{DescribeInFlight, NameChange, Origin, Owed, OwnQuery, Reply, UnnamedBefore};
use crate::plan::{HOLD_LIMIT, Stop};
use crate::pool::Place;
use crate::pooler::Tables;
use crate::rerun::{self, Rerun};
use crate::server::{Server, UnnamedStatement};
use crate::session::{Link, Phase, Session};
use crate::topology::Nudge;

impl ServerTurn<'_> {
    /// CommandComplete: the last reply of an Execute, or one of a query's.
    pub(super) fn command_complete(&mut self, body: &[u8]) -> Result<Fate, Stop> {
        self.server.copy_in = false;
        self.server.in_flight.completed();
        if self.session.as_ref().is_some_and(|session| session.settings.changed_in_transaction()) {
            self.transaction_tag(body);
        }
        match self.server.owed.front() {
            Some(Owed::Query(_)) => Ok(Fate::Pass),
            Some(Owed::Own(_)) => Ok(Fate::Swallow),
            _ => self.reply(body),
        }
    }

    /// The last reply to a message of the extended protocol.
    pub(super) fn reply(&mut self, body: &[u8]) -> Result<Fate, Stop> {
        // EmptyQueryResponse also answers simple queries.
        if self.answers_query() {
            return Ok(self.rows());
        }
        match self.server.owed.take_reply() {
            Some(Reply::Pass) => Ok(Fate::Pass),
            Some(Reply::Swallow) => Ok(Fate::Swallow),
            Some(Reply::Evict(id)) => {
                self.server.statements.left(id);
                Ok(Fate::Swallow)
            }
            Some(Reply::Parse(parse)) => {
                if let Some(statement) = &parse.statement {
                    self.server.statements.arrived(statement.id);
                }
                Ok(if parse.change.is_some() { Fate::Pass } else { Fate::Swallow })
            }
            Some(Reply::Describe(describe)) => {
                self.described(&describe, body);
                Ok(Fate::Swallow)
            }
            Some(Reply::Execute(effect)) => {
                self.apply(&effect);
                Ok(Fate::Pass)
            }
            None => Err(Stop::Fault),
        }
    }

    /// What a statement's rows look like is known: the client may share another's from now on.
    fn described(&mut self, describe: &DescribeInFlight, body: &[u8]) {
        // Of an enormous description its beginning must do; it has thousands of columns then.
        let seen = &body[..body.len().min(HOLD_LIMIT - HEADER_LEN)];
        let rows = self.tables.statements.fingerprint([(&b"rows"[..], seen)].into_iter());
        let Some(newest) = self.tables.statements.described(&describe.statement, rows) else {
            return;
        };
        self.pool.stats.parses_shared += 1;
        self.server.surplus.push(describe.statement.id);
        let names = self.session.as_deref_mut().and_then(|session| session.statements.as_mut());
        if let Some(names) = names
            && names.get(&describe.name).is_some_and(|own| Rc::ptr_eq(own, &describe.statement))
        {
            names.set(&describe.name, Some(newest));
        }
    }

    pub(super) fn apply(&mut self, effect: &Effect) {
        if let Some(session) = self.session.as_deref_mut() {
            link::apply(effect, session, self.server, self.pool, self.tables);
        }
    }

    /// In a transaction that has changed settings: did it commit or roll back?
    fn transaction_tag(&mut self, body: &[u8]) {
        let Some(session) = self.session.as_deref_mut() else { return };
        match body {
            b"COMMIT\0" => session.settings.commit(&mut self.tables.settings),
            b"ROLLBACK\0" if !is_rollback_to(self.server.owed.front()) => {
                session.settings.rollback(&mut self.tables.settings);
                link::settings_changed(session, self.server, self.pool, self.tables);
            }
            _ => {}
        }
    }

    pub(super) fn error(&mut self, body: &[u8]) -> Result<Fate, Stop> {
        let Ok(fields) = ErrorFields::parse(body) else { return Err(Stop::Fault) };
        self.pool.stats.error(fields.code);
        if matches!(fields.severity, Severity::Fatal | Severity::Panic) {
            // The connection ends now; what the client is told depends on its state then.
            self.server.last_words = Some(body.into());
            return Ok(Fate::Swallow);
        }
        if fields.code == SqlState::FEATURE_NOT_SUPPORTED && is_stale_plan(body) {
            self.pool.shared.database.schema_changed();
        }
        if fields.code == SqlState::READ_ONLY_SQL_TRANSACTION
            && let Some(epoch) = self.server.epoch
            && self.pool.key.place == Place::Primary
        {
            self.tables.nudge = Some((self.pool.id, Nudge::ReadOnly(epoch.node)));
        }
        self.server.since_ready.failed = true;
        self.server.copy_in = false;
        let fate = self.error_of_statement(fields.code);
        match self.server.owed.front() {
            Some(Owed::Query(_)) => Ok(fate),
            // It stands for the client's own end.
            Some(Owed::Own(OwnQuery::RerunEnd)) => Ok(Fate::Pass),
            Some(Owed::Own(OwnQuery::Setup | OwnQuery::SetupFirst)) => {
                self.refuse_session(body);
                Ok(Fate::Swallow)
            }
            Some(Owed::Own(_)) => Ok(Fate::Swallow),
            Some(_) => {
                self.skip_to_sync();
                Ok(fate)
            }
            None if self.session.is_some() => Ok(Fate::Pass),
            None => Err(Stop::Fault),
        }
    }

    /// An error of the client's statement passes; that of one which is run again may prove nothing.
    fn error_of_statement(&mut self, code: SqlState) -> Fate {
        let tries = match self.session.as_ref().map(|session| session.rerun) {
            Some(Rerun::Running(tries)) if rerun::proves_nothing(code) => tries,
            _ => return Fate::Pass,
        };
        let report = match tries.rolled_back {
            true => rerun::rolled_back(self.pool.lost_transaction_code()),
            false => rerun::outcome_unknown(),
        };
        self.plan.make_for_client(|out| report.encode_error(out));
        Fate::Swallow
    }

    /// The server skips everything up to Sync: undoes what was noted ahead for it.
    fn skip_to_sync(&mut self) {
        let (skipped, sync_is_owed) = self.server.owed.take_skipped();
        for (index, entry) in skipped.into_iter().enumerate().rev() {
            match entry {
                Owed::Unnamed(origin, before) => self.undo_unnamed(index == 0, origin, before),
                Owed::Parse(parse) => {
                    if let Some(statement) = &parse.statement {
                        self.server.statements.remove(statement.id);
                    }
                    if let Some(change) = parse.change {
                        self.undo(change);
                    }
                }
                Owed::Closed(change) => self.undo(*change),
                // The Close was skipped, so the statement is still there.
                Owed::Evict(id) => self.server.statements.stays(id),
                _ => {}
            }
        }
        let Some(session) = self.session.as_deref_mut() else { return };
        if !sync_is_owed {
            session.phase = Phase::Skipping;
            self.server.since_ready.segment_open = true;
        }
        link::refresh_statement_pins(session, self.tables, None);
    }

    /// A Parse of the unnamed statement that failed has destroyed it; one that was skipped has
    /// changed nothing.
    fn undo_unnamed(&mut self, failed: bool, origin: Origin, before: Option<Box<UnnamedBefore>>) {
        if self.server.owed.changes_unnamed() {
            // A later segment has changed it since.
            return;
        }
        let session = self.session.as_deref_mut();
        if failed {
            self.server.unnamed = UnnamedStatement::Absent;
            if let Some(session) = session.filter(|_| origin == Origin::Client) {
                session.set_unnamed(None);
            }
        } else if let Some(before) = before {
            self.server.unnamed = before.server;
            if let (Some(session), Some((client, is_unkept))) = (session, before.client) {
                session.set_unnamed(client);
                session.unnamed_is_unkept = is_unkept;
                // The server still has it.
                if is_unkept {
                    self.server.unnamed = session.own_unnamed();
                }
            }
        }
    }

    fn undo(&mut self, change: NameChange) {
        if let Some(names) =
            self.session.as_deref_mut().and_then(|s: &mut Session| s.statements.as_mut())
        {
            names.set(&change.name, change.before);
        }
    }

    /// The session's settings cannot be set: its next statement is answered with the reason.
    fn refuse_session(&mut self, body: &[u8]) {
        if let Some(session) = self.session.as_deref_mut() {
            session.refuse(body.into());
        }
    }

    pub(super) fn parameter_status(&mut self, body: &[u8]) -> Result<Fate, Stop> {
        let mut parts = body.split(|&byte| byte == 0);
        let (Some(name), Some(value)) = (parts.next(), parts.next()) else {
            return Err(Stop::Fault);
        };
        note_hot_standby(self.server, self.tables, name);
        self.server.reported = self.tables.reported.with(&self.server.reported, name, value);
        let own = self.answers_own().is_some();
        let Some(session) = self.session.as_deref_mut() else { return Ok(Fate::Swallow) };
        if own || !matches!(session.link, Link::Ready(_)) {
            // Told when the session's own messages begin, if it still differs by then.
            return Ok(Fate::Swallow);
        }
        let resets = match self.server.owed.front() {
            Some(Owed::Query(Some(effects))) => effects.0.iter().any(Effect::resets),
            _ => false,
        };
        if resets || !self.server.restore.is_empty() {
            // Told at ReadyForQuery, when the client's own defaults are set again.
            return Ok(Fate::Swallow);
        }
        link::know_reported(session, &Rc::clone(&self.server.reported));
        Ok(Fate::Pass)
    }
}

/// A server that begins or ends to be a standby says so on its connections (PostgreSQL 14 on).
pub(super) fn note_hot_standby(server: &Server, tables: &mut Tables, name: &[u8]) {
    if name == b"in_hot_standby"
        && let Some(epoch) = server.epoch
    {
        tables.nudge = Some((server.pool, Nudge::HotStandbyChanged(epoch.node)));
    }
}

fn is_rollback_to(front: Option<&Owed>) -> bool {
    match front {
        Some(Owed::Query(Some(effects))) => matches!(effects.0[..], [Effect::RollbackTo(_)]),
        Some(Owed::Execute(effect)) => matches!(**effect, Effect::RollbackTo(_)),
        _ => false,
    }
}

/// "cached plan must not change result type", told by the routine that raises it: the message may
/// be in any language.
fn is_stale_plan(body: &[u8]) -> bool {
    error::fields(body).any(|(kind, value)| kind == b'R' && value == b"RevalidateCachedQuery")
}
