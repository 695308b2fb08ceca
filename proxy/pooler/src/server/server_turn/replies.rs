//! The replies before ReadyForQuery: what each settles.

use std::rc::Rc;

use pgimbal_wire::frame::{HEADER_LEN, Header};
use pgimbal_wire::tag::backend;

use super::{Fate, ServerTurn};
use crate::plan::{HOLD_LIMIT, Stop};
use crate::server::Server;
use crate::server::pending::{DescribeInFlight, OwnQuery, Pending, Reply};
use crate::server::prepared::{Shape, UnnamedStatement};
use crate::session::state::books::Books;
use crate::session::{Link, ShapeCheck, setup};
use crate::sql::Step;
use crate::tables::Tables;
use crate::topology::ProbeHint;

impl ServerTurn<'_> {
    /// CommandComplete: the last reply of an Execute, or one of a query's.
    pub(super) fn command_complete(&mut self, body: &[u8]) -> Result<Fate, Stop> {
        self.server.copy_in = false;
        if self.is_linked() {
            self.server.in_flight.completed();
        }
        match self.server.pending.front_mut() {
            Some(Pending::Query(None)) => Ok(Fate::Pass),
            Some(Pending::Query(Some(script))) => {
                if let Some(step) = script.next_step() {
                    let text = script.prepared_text().map(<[u8]>::to_vec);
                    self.done(&step, text.as_deref(), tag_of(body));
                } else {
                    // More was answered than was read.
                    self.done(&Step::UNREADABLE, None, None);
                }
                Ok(Fate::Pass)
            }
            Some(Pending::Own(OwnQuery::Question | OwnQuery::Facts)) => {
                if let Some((asking, _)) = &mut self.server.asking {
                    asking.completed();
                }
                Ok(Fate::Swallow)
            }
            Some(Pending::Own(_)) => Ok(Fate::Swallow),
            _ => self.reply(backend::COMMAND_COMPLETE, body),
        }
    }

    /// The last reply to a message of the extended protocol.
    pub(super) fn reply(&mut self, tag: u8, body: &[u8]) -> Result<Fate, Stop> {
        // EmptyQueryResponse also answers simple queries.
        if self.answers_query() {
            return Ok(self.rows());
        }
        match self.server.pending.take_reply() {
            Some(Reply::Pass) => Ok(Fate::Pass),
            Some(Reply::Swallow) => Ok(Fate::Swallow),
            Some(Reply::Evict(id)) => {
                self.server.statements.left(*id);
                Ok(Fate::Swallow)
            }
            Some(Reply::TemporaryName(name)) => {
                self.made(&name);
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

    /// A name of the client's is real until it is closed behind Sync.
    fn made(&mut self, name: &[u8]) {
        let session = self.session.as_deref_mut();
        let names = session.into_iter().flat_map(|session| &mut session.close_after_sync);
        names.filter(|known| *known.name == *name).for_each(|known| known.is_made = true);
    }

    /// ParameterDescription: the first of the two replies to a Describe of a statement.
    pub(super) fn parameter_description(&mut self, header: Header, body: &[u8]) -> Fate {
        let whole = body.len() == header.body_len() as usize;
        let types = || whole.then(|| Box::from(body));
        match self.server.pending.front_mut() {
            Some(Pending::Describe(describe) | Pending::ShapeCheck(describe)) => {
                describe.parameters = types();
            }
            Some(
                Pending::DescribeUnnamed(_, parameters) | Pending::UnnamedCheck(_, parameters),
            ) => {
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

    /// Whether a statement that was reprepared no longer looks as its client was told.
    fn has_changed(
        &self,
        told: Option<&Shape>,
        parameters: Option<Box<[u8]>>,
        tag: u8,
        body: &[u8],
    ) -> bool {
        let shape = self.shape(parameters, tag, body);
        shape.is_some() && told != shape.as_ref()
    }

    fn shape_checked(&mut self, check: DescribeInFlight, tag: u8, body: &[u8]) {
        let told = check.statement.shape.get();
        let changed = self.has_changed(told, check.parameters, tag, body);
        if let Some(session) = self.session.as_deref_mut().filter(|_| changed) {
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
        let Some(session) = self.session.as_deref() else { return };
        let told = session.unnamed.as_ref().and_then(|unnamed| unnamed.shape.as_deref());
        let is_it = session.unnamed_serial == serial;
        if is_it
            && self.has_changed(told, parameters, tag, body)
            && let Some(session) = self.session.as_deref_mut()
        {
            session.shape = ShapeCheck::Changed;
            // Whoever needs it next is told the same, unless it has changed back.
            self.server.unnamed = UnnamedStatement::Foreign;
        }
    }

    /// The process id by which the client knows itself, when the message at hand is a notification
    /// that the client's own backend has sent: libraries tell their own by it.
    pub(super) fn own_notification(&self, header: Header) -> Option<u32> {
        if header.tag != backend::NOTIFICATION_RESPONSE {
            return None;
        }
        let sender = self.buf.get(self.at + HEADER_LEN..)?.first_chunk::<4>()?;
        let is_own = u32::from_be_bytes(*sender) == self.server.backend_key.process_id;
        self.session.as_deref().filter(|_| is_own).map(|session| session.key.process_id)
    }

    /// Passes a notification of `have` bytes on with another sender.
    pub(super) fn renamed_notification(&mut self, process_id: u32, have: usize) {
        let sender = self.at + HEADER_LEN;
        self.pass(self.at, sender);
        self.tell(|out| out.extend_from_slice(&process_id.to_be_bytes()));
        self.pass(sender + 4, self.at + have);
    }

    fn done(&mut self, step: &Step, text: Option<&[u8]>, tag: Option<&[u8]>) {
        if let Some(mut books) = self.books() {
            books.done(step, text, tag);
        }
    }

    /// The books of the session that the message at hand is for.
    pub(super) fn books(&mut self) -> Option<Books<'_>> {
        let session = self.session.as_deref_mut()?;
        let (server, pool, tables) = (&mut *self.server, &mut *self.pool, &mut *self.tables);
        Some(Books { session, server, pool, tables, now: self.now })
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
        let resets = match self.server.pending.front() {
            Some(Pending::Query(Some(script))) => script.resets(),
            _ => false,
        };
        if resets || !self.server.restore.is_empty() {
            // Told at ReadyForQuery, when the client's own defaults are set again.
            return Ok(Fate::Swallow);
        }
        setup::know_reported(session, &Rc::clone(&self.server.reported));
        Ok(Fate::Pass)
    }
}

/// A server that begins or ends to be a standby says so on its connections (PostgreSQL 14 on).
pub(super) fn note_hot_standby(server: &Server, tables: &mut Tables, name: &[u8]) {
    if name == b"in_hot_standby"
        && let Some(epoch) = server.epoch
    {
        tables.probe_hint = Some((server.pool, ProbeHint::HotStandbyChanged(epoch.node)));
    }
}

/// The tag in the body of a CommandComplete, without its NUL.
fn tag_of(body: &[u8]) -> Option<&[u8]> {
    Some(body.strip_suffix(b"\0").unwrap_or(body))
}
