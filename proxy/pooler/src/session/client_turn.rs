//! One step on what a client sent: framing, linking, and which message is processed where.

mod bind;
mod copy;
mod extended;
mod names;
mod parse;
mod query;
mod raise;
mod reprepare;
mod restore;
mod room;
mod values;

use std::time::Instant;

use pgimbal_wire::encode::{self, TransactionStatus};
use pgimbal_wire::error::{Report, SqlState};
use pgimbal_wire::extended::{Bind, Target};
use pgimbal_wire::frame::{self, HEADER_LEN, Header};
use pgimbal_wire::tag::frontend;

use crate::core::Core;
use crate::ids::SessionId;
use crate::plan::{HOLD_LIMIT, Plan, Processed, Stop};
use crate::pool::Pool;
use crate::recovery::aborted;
use crate::recovery::effects::SegmentEffects;
use crate::recovery::in_flight;
use crate::recovery::rerun;
use crate::recovery::rerun::Rerun;
use crate::server::pending::Owner;
use crate::server::{Body, Server};
use crate::session::arrival;
use crate::session::front::{FrontMessage, ReadText};
use crate::session::setup;
use crate::session::state::books::{Asked, Books};
use crate::session::{ClientBody, Link, Phase, Session, Trial};
use crate::sql::StatementClass;
use crate::tables::Tables;

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
    effects: SegmentEffects,
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

pub(crate) fn process(
    core: &mut Core,
    id: SessionId,
    now: Instant,
    buf: &[u8],
    plan: &mut Plan,
) -> Processed {
    let Some(session) = core.sessions.get_mut(id) else {
        return Processed { taken: 0, stop: Stop::Fault };
    };
    let mut server = session.link.server().and_then(|server| core.servers.get_mut(server));
    if let Some(server) = &mut server {
        server.pending.add_for(Owner::of(id));
    }
    let pool = &mut core.pools[session.pool];
    let tables = &mut core.tables;
    let effects = SegmentEffects::NONE;
    ClientTurn { session, server, pool, tables, now, buf, at: 0, plan, effects }.run()
}

impl<'a> ClientTurn<'a> {
    fn run(mut self) -> Processed {
        if self.session.trial == Trial::Due {
            let stop = arrival::try_settings(&mut self);
            return Processed { taken: 0, stop };
        }
        let stop = loop {
            let from = self.at;
            if let Err(stop) = self.step() {
                break stop;
            }
            self.note_sent(from);
            if self.at != from {
                self.session.front = FrontMessage::Unread;
            }
        };
        if let Some(server) = self.server.as_deref_mut() {
            emit_made(server, self.plan);
        }
        let stop = self.released(stop);
        let stats = &mut self.pool.stats;
        stats.client_bytes_in += self.at as u64;
        stats.server_bytes_out += self.plan.to_server().bytes();
        stats.client_bytes_out += self.plan.bytes_to_sessions();
        Processed { taken: self.at as u32, stop }
    }

    /// Keeps what was taken since `from` for the case that the server connection breaks, and ends
    /// the transaction around a segment that is run again.
    fn note_sent(&mut self, from: usize) {
        let effects = std::mem::take(&mut self.effects);
        let Some(server) = self.server.as_deref_mut() else { return };
        if !matches!(self.session.link, Link::Ready(_)) || self.session.aborted.is_some() {
            return;
        }
        let taken = self.buf.get(from..self.at).filter(|taken| !taken.is_empty());
        let Some(message) = taken else { return };
        let passes = !self.session.between_messages();
        server.in_flight.sent(message[0], message, passes, effects);
        if matches!(self.session.rerun, Rerun::Running(_)) && in_flight::is_end(message[0]) {
            rerun::end(server, self.plan);
            self.session.phase = Phase::Barrier;
        }
    }

    /// A turn that left nothing for the server to do gives the server back, once it has said what
    /// the session has left on it.
    pub(crate) fn released(&mut self, stop: Stop) -> Stop {
        let Some(server) = self.server.as_deref_mut() else { return stop };
        let idle = matches!(stop, Stop::Drained | Stop::Need(_))
            && setup::is_between(self.session, server)
            && self.session.aborted.is_none();
        if !idle {
            let refused = matches!(stop, Stop::Drained | Stop::Need(_))
                && setup::may_release(self.session, server, self.pool);
            return if refused { Stop::Checkin } else { stop };
        }
        let (session, pool, tables) = (&mut *self.session, &mut *self.pool, &mut *self.tables);
        let mut books = Books { session, server, pool, tables, now: self.now };
        if books.ask(self.plan) == Asked::Sent {
            return stop;
        }
        match setup::may_release(self.session, server, self.pool) {
            true => Stop::Checkin,
            false => stop,
        }
    }

    /// Processes the rest of a streaming message or one message.
    fn step(&mut self) -> Step {
        if !self.session.between_messages() {
            return self.stream_body();
        }
        let header = match frame::peek(&self.buf[self.at..]) {
            Ok(Some(header)) => header,
            Ok(None) if self.at == self.buf.len() => return Err(Stop::Drained),
            Ok(None) => return Err(Stop::Need(HEADER_LEN as u32)),
            Err(bad) => return Err(self.violation(&bad.to_string())),
        };
        match header.tag {
            frontend::SYNC | frontend::FLUSH | frontend::TERMINATE | frontend::COPY_DONE
                if header.body_len() != 0 =>
            {
                Err(self.violation("invalid message format"))
            }
            frontend::TERMINATE => {
                self.at += (header.total as usize).min(self.buf.len() - self.at);
                Err(Stop::Terminate)
            }
            _ if self.session.aborted.is_some() => aborted::process(self, header),
            _ if self.session.phase == Phase::Skipping && header.tag != frontend::SYNC => {
                self.drop_message(header);
                Ok(())
            }
            frontend::COPY_DATA | frontend::COPY_DONE | frontend::COPY_FAIL => self.copy(header),
            frontend::SYNC | frontend::FLUSH if self.session.link == Link::Unlinked => {
                self.unlinked_sync(header);
                Ok(())
            }
            frontend::QUERY => self.query(header),
            frontend::PARSE => self.parse(header),
            frontend::BIND => self.bind(header),
            frontend::DESCRIBE => self.describe(header),
            frontend::EXECUTE => self.execute(header),
            frontend::CLOSE => self.close(header),
            frontend::SYNC => self.sync(header),
            frontend::FLUSH => self.flush(header),
            frontend::FUNCTION_CALL => self.function_call(header),
            tag => Err(self.violation(&format!("invalid frontend message type {tag}"))),
        }
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
    fn look_ahead(&mut self, message: Message<'_>) {
        let (body, len) = (message.body, message.body_len());
        let named = match message.header.tag {
            frontend::BIND => Bind::view(body, len).ok().flatten().map(|bind| bind.statement),
            frontend::DESCRIBE => match Target::view(body, len) {
                Ok(Some(Target::Statement(name))) => Some(name),
                _ => None,
            },
            _ => None,
        };
        let class = named.and_then(|name| self.class_of(name));
        let access = class.map(StatementClass::access);
        self.session.front = access.map_or(FrontMessage::Unread, FrontMessage::Known);
    }

    /// Classifies the text of a message (`None` if it is not held as a whole, or has none that can
    /// be read) while the session has no server connection, and keeps that until there is one. Says
    /// whether the pool refuses the text, whatever server it would get: then its error is what comes
    /// next.
    pub(super) fn is_refused_ahead(&mut self, text: Option<&[u8]>) -> bool {
        if self.session.link != Link::Unlinked {
            return false;
        }
        let read = text.map(|text| self.read(text));
        let refused = read.as_ref().is_some_and(|read| self.refuses_block(&read.classified));
        self.session.front = read.map_or(FrontMessage::Unread, FrontMessage::from);
        refused
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

    /// Makes sure that a server connection is ready for the next message.
    pub(super) fn ready_link(&mut self) -> Step {
        match self.session.link {
            Link::Ready(_) => {}
            Link::Unlinked => return Err(Stop::Checkout),
            Link::Fresh(_) => setup::enter(self)?,
            Link::Waiting(_) | Link::AwaitingPlace(_) | Link::Setup(_) | Link::Cleaning(_) => {
                return Err(Stop::Wait);
            }
        }
        let Some(server) = self.server.as_deref_mut() else { return Err(Stop::Wait) };
        if let Rerun::Due(_) = self.session.rerun {
            rerun::begin(self.session, server, self.plan);
        }
        if self.session.phase == Phase::Barrier {
            emit_made(server, self.plan);
            if !server.pending.is_empty() {
                return Err(Stop::Wait);
            }
            self.session.phase = Phase::Open;
            if server.since_ready.segment_open && !server.restore.is_empty() {
                restore::restore_in_segment(self.session, server, self.tables, self.plan);
            }
        }
        if server.pending.is_empty() {
            self.session.active_at = self.now;
        }
        if server.pending.is_full() {
            // Without it the server may sit on the replies for which we wait.
            if server.since_ready.segment_open {
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

    fn stream_body(&mut self) -> Step {
        let have = self.buf.len() - self.at;
        if have == 0 {
            return Err(Stop::Drained);
        }
        let from = self.at;
        match &mut self.session.body {
            ClientBody::Plain(Body::None) => {}
            ClientBody::Plain(Body::Forward(missing)) => {
                let taken = have.min(*missing as usize);
                *missing -= taken as u32;
                self.at += taken;
                self.plan.span_to_server(from, from + taken);
                if *missing == 0 {
                    self.session.body = ClientBody::Plain(Body::None);
                }
            }
            ClientBody::Plain(Body::Drop(missing)) => {
                let taken = have.min(*missing as usize);
                *missing -= taken as u32;
                self.at += taken;
                if *missing == 0 {
                    self.session.body = ClientBody::Plain(Body::None);
                }
            }
            ClientBody::Text(missing, scanner) => {
                let taken = have.min(*missing as usize);
                *missing -= taken as u32;
                let left = *missing;
                self.at += taken;
                self.plan.span_to_server(from, from + taken);
                let text = &self.buf[from..from + taken];
                let end = text.iter().position(|&byte| byte == 0);
                scanner.feed(&text[..end.unwrap_or(taken)]);
                if end.is_some() || left == 0 {
                    self.long_text_ended(left);
                }
            }
        }
        Ok(())
    }

    /// Sync or Flush of a client that needs no server connection for it.
    fn unlinked_sync(&mut self, header: Header) {
        self.drop_message(header);
        if header.tag == frontend::SYNC {
            self.session.phase = Phase::Open;
            self.tell(|out| encode::ready_for_query(out, TransactionStatus::Idle));
        }
    }

    /// A fault of the client's that ends its connection: writes the FATAL, unless a message to the
    /// client is half-way, which nothing can follow.
    pub(crate) fn violation(&mut self, message: &str) -> Stop {
        let report = Report::fatal(SqlState::PROTOCOL_VIOLATION, message);
        self.pool.stats.error(SqlState::PROTOCOL_VIOLATION);
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
    if server.pending.is_made() && server.body == Body::None {
        emit_all_made(server, plan);
    }
}

#[cold]
fn emit_all_made(server: &mut Server, plan: &mut Plan) {
    while let Some(owner) = server.pending.take_made() {
        let Some(session) = owner.session() else { continue };
        if server.session() == Some(session) {
            server.in_flight.answered();
        }
        plan.make_for_session(session, encode::close_complete);
    }
}

#[cfg(test)]
mod tests;
