//! The replies before ReadyForQuery: what each settles.

use std::rc::Rc;

use pgimbal_config::PoolMode;
use pgimbal_wire::encode;
use pgimbal_wire::error::{self, ErrorFields, Severity, SqlState};
use pgimbal_wire::frame::{HEADER_LEN, Header};
use pgimbal_wire::tag::backend;

use super::{Fate, ServerTurn};
use crate::link;
use crate::owed::{
    DescribeInFlight, LentTo, NameChange, Origin, Owed, OwnQuery, Reply, UnnamedBefore,
};
use crate::plan::{HOLD_LIMIT, Stop};
use crate::pool::Place;
use crate::pooler::Tables;
use crate::prepared::{SERVER_NAME_PREFIX, Shape};
use crate::rerun::{self, Rerun};
use crate::server::{Server, Setup, UnnamedStatement};
use crate::session::{Link, Phase, RefusedSettings, Session, ShapeCheck};
use crate::sql::{Kinds, Step};
use crate::state::books::Books;
use crate::topology::Nudge;

impl ServerTurn<'_> {
    /// CommandComplete: the last reply of an Execute, or one of a query's.
    pub(super) fn command_complete(&mut self, body: &[u8]) -> Result<Fate, Stop> {
        self.server.copy_in = false;
        self.server.in_flight.completed();
        match self.server.owed.front_mut() {
            Some(Owed::Query(None)) => Ok(Fate::Pass),
            Some(Owed::Query(Some(script))) => {
                if let Some(step) = script.next_step() {
                    let text = script.prepared_text().map(<[u8]>::to_vec);
                    self.done(&step, text.as_deref(), tag_of(body));
                } else {
                    // More was answered than was read.
                    self.done(&Step::UNREADABLE, None, None);
                }
                Ok(Fate::Pass)
            }
            Some(Owed::Own(OwnQuery::Question | OwnQuery::Facts)) => {
                if let Some((asking, _)) = &mut self.server.asking {
                    asking.completed();
                }
                Ok(Fate::Swallow)
            }
            Some(Owed::Own(_)) => Ok(Fate::Swallow),
            _ => self.reply(backend::COMMAND_COMPLETE, body),
        }
    }

    /// The last reply to a message of the extended protocol.
    pub(super) fn reply(&mut self, tag: u8, body: &[u8]) -> Result<Fate, Stop> {
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
                self.described(*describe, tag, body);
                Ok(Fate::Swallow)
            }
            Some(Reply::ShapeCheck(check)) => {
                self.shape_checked(*check, tag, body);
                Ok(Fate::Swallow)
            }
            Some(Reply::DescribeUnnamed(serial, parameters)) => {
                self.unnamed_described(serial, parameters, tag, body);
                Ok(Fate::Pass)
            }
            Some(Reply::UnnamedCheck(serial, parameters)) => {
                self.unnamed_checked(serial, parameters, tag, body);
                Ok(Fate::Swallow)
            }
            Some(Reply::Execute(mut script)) => {
                let tag = match tag {
                    backend::COMMAND_COMPLETE => tag_of(body),
                    backend::PORTAL_SUSPENDED => None,
                    // EmptyQueryResponse.
                    _ => Some(&b""[..]),
                };
                if let Some(step) = script.next_step() {
                    let text = script.prepared_text().map(<[u8]>::to_vec);
                    self.done(&step, text.as_deref(), tag);
                }
                Ok(Fate::Pass)
            }
            None => Err(Stop::Fault),
        }
    }

    /// ParameterDescription: the first of the two replies to a Describe of a statement.
    pub(super) fn parameter_description(&mut self, header: Header, body: &[u8]) -> Fate {
        let whole = body.len() == header.body_len() as usize;
        let types = || whole.then(|| Box::from(body));
        match self.server.owed.front_mut() {
            Some(Owed::Describe(describe) | Owed::ShapeCheck(describe)) => {
                describe.parameters = types();
            }
            Some(Owed::DescribeUnnamed(_, parameters) | Owed::UnnamedCheck(_, parameters)) => {
                *parameters = types();
            }
            _ => {}
        }
        self.rows()
    }

    /// What a statement looks like; `None` if it has more parameters than are kept.
    fn shape(&self, parameters: Option<Box<[u8]>>, tag: u8, body: &[u8]) -> Option<Shape> {
        // Of an enormous description its beginning must do; it has thousands of columns then.
        let seen = &body[..body.len().min(HOLD_LIMIT - HEADER_LEN)];
        let description = (tag == backend::ROW_DESCRIPTION).then_some(seen);
        Some(Shape { parameters: parameters?, rows: self.tables.statements.rows(description) })
    }

    /// What a statement looks like is known: the client may share another's from now on.
    fn described(&mut self, describe: DescribeInFlight, tag: u8, body: &[u8]) {
        let DescribeInFlight { name, statement, parameters } = describe;
        let Some(shape) = self.shape(parameters, tag, body) else { return };
        let Some(newest) = self.tables.statements.described(&statement, shape) else { return };
        self.pool.stats.parses_shared += 1;
        self.server.surplus.push(statement.id);
        let names = self.session.as_deref_mut().and_then(|session| session.statements.as_mut());
        if let Some(names) = names
            && names.get(&name).is_some_and(|own| Rc::ptr_eq(own, &statement))
        {
            names.set(&name, Some(newest));
        }
    }

    /// A statement that was put in again: does it still look as the client was told?
    fn shape_checked(&mut self, check: DescribeInFlight, tag: u8, body: &[u8]) {
        let shape = self.shape(check.parameters, tag, body);
        let same = shape.is_none() || check.statement.shape.get() == shape.as_ref();
        if let Some(session) = self.session.as_deref_mut().filter(|_| !same) {
            session.shape = ShapeCheck::Changed;
        }
    }

    fn unnamed_described(
        &mut self,
        serial: u32,
        parameters: Option<Box<[u8]>>,
        tag: u8,
        body: &[u8],
    ) {
        let shape = self.shape(parameters, tag, body);
        let Some(session) = self.session.as_deref_mut() else { return };
        if session.unnamed_serial == serial
            && let Some(unnamed) = &mut session.unnamed
        {
            unnamed.shape = shape.map(Box::new);
        }
    }

    fn unnamed_checked(
        &mut self,
        serial: u32,
        parameters: Option<Box<[u8]>>,
        tag: u8,
        body: &[u8],
    ) {
        let shape = self.shape(parameters, tag, body);
        let Some(session) = self.session.as_deref_mut() else { return };
        let told = session.unnamed.as_ref().and_then(|unnamed| unnamed.shape.as_deref());
        if session.unnamed_serial == serial && shape.is_some() && told != shape.as_ref() {
            session.shape = ShapeCheck::Changed;
            // Whoever needs it next is told the same, unless it has changed back.
            self.server.unnamed = UnnamedStatement::Foreign;
        }
    }

    fn done(&mut self, step: &Step, text: Option<&[u8]>, tag: Option<&[u8]>) {
        if let Some(mut books) = self.books() {
            books.done(step, text, tag);
        }
    }

    /// The books of the session that is linked.
    pub(super) fn books(&mut self) -> Option<Books<'_>> {
        let session = self.session.as_deref_mut()?;
        let (server, pool, tables) = (&mut *self.server, &mut *self.pool, &mut *self.tables);
        Some(Books { session, server, pool, tables, now: self.now })
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
            Some(Owed::Query(_)) => Ok(self.error_after_lending(fields.code, fate)),
            // It stands for the client's own end.
            Some(Owed::Own(OwnQuery::RerunEnd)) => Ok(Fate::Pass),
            Some(Owed::Own(OwnQuery::SetupOne)) => {
                self.setting_refused(fields.code, body);
                Ok(Fate::Swallow)
            }
            Some(Owed::Own(OwnQuery::Question)) => {
                if let Some((asking, _)) = &mut self.server.asking {
                    asking.refused(fields.code);
                }
                Ok(Fate::Swallow)
            }
            Some(Owed::Own(_)) => Ok(Fate::Swallow),
            Some(Owed::Lend(LentTo::Query)) => {
                // What needs the name fails with it too, and is told why.
                self.server.lend_error = Some(body.into());
                self.skip_to_sync(fields.code);
                Ok(Fate::Swallow)
            }
            Some(Owed::Witness(LentTo::Query)) => {
                self.skip_to_sync(fields.code);
                Ok(Fate::Swallow)
            }
            Some(Owed::Changed) => {
                self.plan.make_for_client(encode_changed);
                self.skip_to_sync(fields.code);
                Ok(Fate::Swallow)
            }
            Some(_) => {
                if fields.code == SqlState::INVALID_SQL_STATEMENT_NAME
                    && self.pool.config.pool.mode != PoolMode::Session
                    && names_own(body)
                {
                    // What was believed to be there is not: nothing else is believed either.
                    self.server.residue.insert(Kinds::STATEMENTS);
                }
                self.skip_to_sync(fields.code);
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
    fn skip_to_sync(&mut self, code: SqlState) {
        let (skipped, sync_is_owed) = self.server.owed.take_skipped();
        for (index, entry) in skipped.into_iter().enumerate().rev() {
            match entry {
                Owed::Unnamed(origin, before) => {
                    // A text that cannot be converted is refused before anything is destroyed.
                    let kept = code == SqlState::CHARACTER_NOT_IN_REPERTOIRE && before.is_some();
                    let failed = index == 0 && !kept;
                    self.undo_unnamed(failed, origin, before);
                }
                Owed::Parse(parse) => {
                    if let Some(statement) = &parse.statement {
                        self.server.statements.remove(statement.id);
                    }
                    if let Some(change) = parse.change {
                        self.undo(change);
                    }
                }
                Owed::Closed(change) => self.undo(*change),
                Owed::Witness(_) => self.server.own_statements.doubt(),
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
        link::refresh_statement_pins(session, self.pool, self.tables, self.now);
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

    /// An error that follows from a name that could not be lent is told as the reason of that.
    fn error_after_lending(&mut self, code: SqlState, fate: Fate) -> Fate {
        let follows = code == SqlState::INVALID_SQL_STATEMENT_NAME
            || code == SqlState::IN_FAILED_SQL_TRANSACTION;
        match self.server.lend_error.take() {
            Some(error) if follows && fate == Fate::Pass => {
                self.plan.make_for_client(|out| {
                    error::with_severity(&error, Severity::Error, out);
                });
                Fate::Swallow
            }
            _ => fate,
        }
    }

    /// One of the session's settings is refused by itself.
    fn setting_refused(&mut self, code: SqlState, body: &[u8]) {
        let Setup::OneByOne { settings, done, refused } = &mut self.server.setup else { return };
        let Some(setting) = settings.get(*done) else { return };
        if code == SqlState::INVALID_NAME {
            // PostgreSQL has dropped it: a placeholder whose library has come since.
            if let Some(session) = self.session.as_deref_mut() {
                session.settings.forget(&mut self.tables.settings, &setting.name);
            }
            return;
        }
        refused
            .get_or_insert_with(|| RefusedSettings { names: Vec::new(), error: body.into() })
            .names
            .push(setting.name[..].into());
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
            Some(Owed::Query(Some(script))) => script.resets(),
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

/// The tag in the body of a CommandComplete, without its NUL.
fn tag_of(body: &[u8]) -> Option<&[u8]> {
    Some(body.strip_suffix(b"\0").unwrap_or(body))
}

/// Whether an error names a statement of pgimbal's own. A client's name that looks like one is
/// escaped by a colon in front of it.
fn names_own(body: &[u8]) -> bool {
    const LENGTH: usize = SERVER_NAME_PREFIX.len() + 32;
    let is_own = |name: &[u8]| {
        let digits = name.strip_prefix(b":").is_none().then(|| &name[1..]);
        let digits = digits.and_then(|name| name.strip_prefix(SERVER_NAME_PREFIX));
        digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    };
    error::fields(body).any(|(kind, value)| kind == b'M' && value.windows(LENGTH + 1).any(is_own))
}

/// PostgreSQL's own error for a statement whose rows look otherwise than when it was parsed
/// (plancache.c).
fn encode_changed(out: &mut Vec<u8>) {
    encode::message(out, backend::ERROR_RESPONSE, |out| {
        for (kind, value) in [
            (b'S', "ERROR"),
            (b'V', "ERROR"),
            (b'C', "0A000"),
            (b'M', "cached plan must not change result type"),
            (b'F', "plancache.c"),
            (b'R', "RevalidateCachedQuery"),
        ] {
            out.push(kind);
            out.extend_from_slice(value.as_bytes());
            out.push(0);
        }
        out.push(0);
    });
}

/// "cached plan must not change result type", told by the routine that raises it: the message may
/// be in any language.
fn is_stale_plan(body: &[u8]) -> bool {
    error::fields(body).any(|(kind, value)| kind == b'R' && value == b"RevalidateCachedQuery")
}
