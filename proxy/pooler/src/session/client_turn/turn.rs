//! One turn of a client: what it borrows, and the steps that every message takes.

use std::time::Instant;

use pgimbal_config::Verify;
use pgimbal_wire::encode::{self, TransactionStatus};
use pgimbal_wire::error::{Report, SqlState};
use pgimbal_wire::extended::{Bind, Malformed, StatementOrPortal};
use pgimbal_wire::frame::{HEADER_LEN, Header};
use pgimbal_wire::tag::frontend;

use super::restore;
use crate::plan::{Body, HOLD_LIMIT, Plan, Stop};
use crate::pool::Pool;
use crate::recovery::effects::SegmentEffects;
use crate::recovery::proof::Rerun;
use crate::recovery::rerun;
use crate::server::{ReadingsKnown, Server};
use crate::session::front::{FrontMessage, ReadText};
use crate::session::{ClientBody, Link, Phase, Session, setup};
use crate::sql::{Calls, Readings, StatementClass};
use crate::tables::Tables;

/// The longest message that is held because of a name in it, of which 63 bytes count. PostgreSQL
/// has no limit but memory; here every client may have one held.
const LONGEST_HELD: usize = 64 * 1024;

/// Everything that one step touches, borrowed apart.
pub(crate) struct ClientTurn<'a> {
    pub(crate) session: &'a mut Session,
    pub(crate) server: Option<&'a mut Server>,
    pub(crate) pool: &'a mut Pool,
    pub(crate) tables: &'a mut Tables,
    pub(crate) now: Instant,
    pub(crate) buf: &'a [u8],
    pub(crate) at: usize,
    pub(crate) plan: &'a mut Plan,
    /// What the message in hand adds to its segment once it is sent.
    pub(crate) effects: SegmentEffects,
}

/// A message that can be processed: whole, or its first [`HOLD_LIMIT`] bytes at least.
#[derive(Clone, Copy)]
pub(crate) struct Message<'a> {
    pub(crate) header: Header,
    /// What of the body is in the buffer.
    pub(crate) body: &'a [u8],
    /// Where the message begins in the buffer.
    pub(crate) start: usize,
}

impl<'a> Message<'a> {
    pub(crate) const fn body_len(&self) -> usize {
        self.header.body_len() as usize
    }

    pub(crate) const fn is_whole(&self) -> bool {
        self.body.len() == self.body_len()
    }

    /// The text of a Query, without its NUL; `None` if not all of it is here.
    pub(crate) fn query_text(&self) -> Option<&'a [u8]> {
        self.body.split_last().filter(|_| self.is_whole()).map(|(_, text)| text)
    }

    /// Where what is in the buffer of it ends.
    pub(crate) const fn end(&self) -> usize {
        self.start + HEADER_LEN + self.body.len()
    }

    /// Bytes that have not arrived yet.
    pub(crate) const fn missing(&self) -> u32 {
        (self.body_len() - self.body.len()) as u32
    }
}

/// Whether the step goes on behind a message, or ends before it.
pub(crate) type Step = Result<(), Stop>;

impl<'a> ClientTurn<'a> {
    /// What the client's statement of this name is; `None` where nobody knows it.
    pub(crate) fn class_of(&self, name: &[u8]) -> Option<&StatementClass> {
        match name {
            [] => self.session.unnamed.as_ref().map(|unnamed| &unnamed.class),
            _ => {
                let known = self.session.statements.as_ref()?.get(name)?;
                Some(&known.class)
            }
        }
    }

    /// A message of which `view` must see the names, on a linked server connection.
    pub(crate) fn view<V>(
        &mut self,
        header: Header,
        view: impl FnOnce(&'a [u8], usize) -> Result<Option<V>, Malformed>,
    ) -> Result<(Message<'a>, V), Stop> {
        let message = self.linked(header, 0)?;
        match view(message.body, message.body_len()) {
            Ok(Some(seen)) => Ok((message, seen)),
            Ok(None) => Err(self.hold_more(message)),
            Err(malformed) => Err(self.violation(&malformed.to_string())),
        }
    }

    /// Waits until every pending reply has come, then goes on.
    pub(crate) fn raise_barrier(&mut self) {
        self.session.phase = Phase::Barrier;
    }

    /// How the server will read what is sent now.
    pub(crate) fn readings(&self) -> Readings {
        match self.server.as_deref().map(|server| server.readings()) {
            Some(ReadingsKnown::No) => Readings::Any,
            _ => Readings::One(self.session.reading),
        }
    }

    /// Which calls of functions are looked at.
    pub(crate) fn calls(&self) -> Calls {
        match self.pool.config().pool.verify {
            Verify::Calls => Calls::Functions,
            Verify::Text | Verify::Always => Calls::Text,
        }
    }

    pub(crate) fn doubt_readings(&mut self) {
        if let Some(server) = self.server.as_deref_mut() {
            server.doubt_readings();
        }
    }

    /// Whether nothing of the client's is under way on its server connection.
    pub(crate) fn is_fresh(&self) -> bool {
        self.server.as_deref().is_some_and(|server| {
            server.status() == TransactionStatus::Idle
                && server.pending().is_empty()
                && !server.has_open_segment()
        })
    }

    /// Stops in front of a message that depends on pending replies.
    pub(crate) fn await_replies(&mut self) -> Step {
        let Some(server) = self.server.as_deref_mut() else { return Err(Stop::Checkout) };
        // No reply of the server's would lead to those that are made here.
        emit_made(server, self.plan);
        if server.pending().is_empty() {
            return Ok(());
        }
        if server.has_open_segment() {
            // Without it the server may sit on the replies for which we wait.
            self.plan.make_for_server(encode::flush);
        }
        self.session.phase = Phase::Barrier;
        Err(Stop::Wait)
    }

    /// Holds more of a message whose names are not complete in what was held so far.
    pub(crate) fn hold_more(&mut self, message: Message<'_>) -> Stop {
        let have = HEADER_LEN + message.body.len();
        if have >= LONGEST_HELD {
            return self.violation("a name in a message is longer than 64 KiB");
        }
        Stop::Need((have * 2).min(message.header.total as usize) as u32)
    }

    /// The message at the front once it is whole, or has [`HOLD_LIMIT`] bytes, or `least` of its
    /// bytes if that is more; and once a server connection is ready for it.
    pub(crate) fn linked(&mut self, header: Header, least: usize) -> Result<Message<'a>, Stop> {
        let message = self.held(header, least)?;
        if self.session.link == Link::Unlinked {
            self.look_ahead(message);
        }
        self.ready_link()?;
        Ok(message)
    }

    /// Notes whether the prepared statement that a message names reads or writes: a server
    /// connection is about to be chosen for it.
    pub(crate) fn look_ahead(&mut self, message: Message<'_>) {
        let (body, len) = (message.body, message.body_len());
        let named = match message.header.tag {
            frontend::BIND => Bind::view(body, len).ok().flatten().map(|bind| bind.statement),
            frontend::DESCRIBE => match StatementOrPortal::view(body, len) {
                Ok(Some(StatementOrPortal::Statement(name))) => Some(name),
                _ => None,
            },
            _ => None,
        };
        let class = named.and_then(|name| self.class_of(name));
        let access = class.map(StatementClass::access);
        self.session.front = access.map_or(FrontMessage::Unread, FrontMessage::Known);
    }

    /// What the text of the message in hand is, classified now if it was not before.
    pub(crate) fn read(&mut self, text: &[u8]) -> ReadText {
        let (readings, calls) = (self.readings(), self.calls());
        self.session.front.take(text, readings, calls)
    }

    /// Keeps what the text of a message is, unless the message was taken.
    pub(crate) fn keep_if_waits(&mut self, message: Message<'_>, read: Option<ReadText>) {
        if self.at == message.start {
            self.session.front = read.map_or(FrontMessage::Unread, FrontMessage::from);
        }
    }

    /// As [`Self::linked`], without a need of a server connection.
    pub(crate) fn held(&self, header: Header, least: usize) -> Result<Message<'a>, Stop> {
        let rest = &self.buf[self.at..];
        let total = header.total as usize;
        let wanted = total.min(HOLD_LIMIT.max(least));
        if rest.len() < wanted {
            return Err(Stop::Need(wanted as u32));
        }
        let body = &rest[HEADER_LEN..total.min(rest.len())];
        Ok(Message { header, body, start: self.at })
    }

    /// Brings the server connection to the session's settings.
    ///
    /// # Errors
    /// [`Stop::Wait`] until the server has answered, where anything had to be sent.
    pub(crate) fn enter(&mut self) -> Step {
        let Some(server) = self.server.as_deref_mut() else { return Err(Stop::Checkout) };
        setup::enter(self.session, server, self.pool, self.tables, self.now, self.plan)
    }

    /// Makes sure that a server connection is ready for the next message.
    pub(crate) fn ready_link(&mut self) -> Step {
        match self.session.link {
            Link::Ready(_) => {}
            Link::Unlinked => return Err(Stop::Checkout),
            Link::Fresh(_) => self.enter()?,
            Link::Waiting(_)
            | Link::AwaitingPlace(_)
            | Link::AwaitingRead(_)
            | Link::Setup(_)
            | Link::Cleaning(_) => {
                return Err(Stop::Wait);
            }
        }
        let Some(server) = self.server.as_deref_mut() else { return Err(Stop::Wait) };
        server.note_sending(self.now);
        if let Rerun::Due(_) = self.session.rerun {
            rerun::begin(self.session, server, self.plan);
        }
        if self.session.phase == Phase::Barrier {
            emit_made(server, self.plan);
            if !server.pending().is_empty() {
                return Err(Stop::Wait);
            }
            self.session.phase = Phase::Open;
            if server.has_open_segment() && !server.restore().is_empty() {
                restore::restore_in_segment(self.session, server, self.tables, self.plan);
            }
        }
        if server.pending().is_empty() {
            self.session.active_at = self.now;
        }
        if server.pending().is_full() {
            // Without it the server may sit on the replies for which we wait.
            if server.has_open_segment() {
                self.plan.make_for_server(encode::flush);
            }
            return Err(Stop::Wait);
        }
        Ok(())
    }

    /// Forwards what is in the buffer of `message`; the rest will follow.
    pub(crate) fn forward(&mut self, message: Message<'_>) {
        self.forward_from(message, message.start);
    }

    /// As [`Self::forward`], from offset `from` of the buffer on.
    pub(crate) fn forward_from(&mut self, message: Message<'_>, from: usize) {
        self.plan.span_to_server(from, message.end());
        self.at = message.end();
        if message.missing() > 0 {
            self.session.body = ClientBody::Plain(Body::Forward(message.missing()));
        }
    }

    /// Takes the message off the buffer without forwarding it; the rest will be dropped too.
    pub(crate) fn drop_message(&mut self, header: Header) {
        let have = (header.total as usize).min(self.buf.len() - self.at);
        self.at += have;
        let missing = header.total - have as u32;
        if missing > 0 {
            self.session.body = ClientBody::Plain(Body::Drop(missing));
        }
    }

    /// A fault of the client's that ends its connection: writes the FATAL, unless a message to the
    /// client is half-way, which nothing can follow.
    pub(crate) fn violation(&mut self, message: &str) -> Stop {
        let report = Report::fatal(SqlState::PROTOCOL_VIOLATION, message);
        self.pool.stats_mut().error(SqlState::PROTOCOL_VIOLATION);
        let id = self.session.id;
        if !self.server.as_deref().is_some_and(|server| server.is_passing_to(id)) {
            self.tell(|out| report.encode_error(out));
        }
        Stop::Fault
    }

    /// Lets `write` append made bytes for the session's client.
    pub(crate) fn tell(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        self.plan.make_for_session(self.session.id, write);
    }

    /// The server of a turn that [`Self::linked`] has let through.
    pub(crate) fn server(&mut self) -> Result<&mut Server, Stop> {
        self.server.as_deref_mut().ok_or(Stop::Checkout)
    }
}

/// Emits the made replies at the front of a server's queue, but never in the middle of a message.
#[inline]
pub(crate) fn emit_made(server: &mut Server, plan: &mut Plan) {
    if server.pending_mut().is_made() && server.is_between_messages() {
        emit_all_made(server, plan);
    }
}

#[cold]
fn emit_all_made(server: &mut Server, plan: &mut Plan) {
    while let Some(owner) = server.pending_mut().take_made() {
        let Some(session) = owner.session() else { continue };
        if server.session() == Some(session) {
            server.in_flight_mut().answered();
        }
        plan.make_for_session(session, encode::close_complete);
    }
}
