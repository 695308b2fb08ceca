//! One step on what a server sent: which replies pass, what they settle, when it is free again.

mod errors;
mod own_query;
mod ready;
mod replies;

use std::time::Instant;

use pgimbal_wire::error::{ErrorFields, Severity, SqlState};
use pgimbal_wire::frame::{self, HEADER_LEN, Header};
use pgimbal_wire::tag::backend;

use crate::core::Core;
use crate::ids::{ServerId, SessionId};
use crate::plan::{Body, HOLD_LIMIT, Plan, Processed, Stop};
use crate::pool::Pool;
use crate::recovery::in_flight::Progress;
use crate::server::Server;
use crate::server::pending::{OwnQuery, Owner, Pending};
use crate::session::Session;
use crate::session::client_turn::turn::emit_made;
use crate::tables::Tables;

/// The longest message that is processed by its whole body: a reported setting. Rows, notices and
/// errors of any length stream.
const LONGEST_JUDGED: usize = 1024 * 1024;

/// Everything that one step touches, borrowed apart.
pub(crate) struct ServerTurn<'a> {
    pub(crate) server: &'a mut Server,
    /// The session that the message at hand is for; `None` if it is nobody's, or has left.
    pub(crate) session: Option<&'a mut Session>,
    /// Whose that message is.
    pub(crate) whose: Owner,
    /// Whom the server connection serves.
    pub(crate) linked: Owner,
    pub(crate) pool: &'a mut Pool,
    pub(crate) tables: &'a mut Tables,
    pub(crate) now: Instant,
    pub(crate) buf: &'a [u8],
    pub(crate) at: usize,
    pub(crate) plan: &'a mut Plan,
    pub(crate) freed: Freed,
    /// Whether no other reply was pending at the last ReadyForQuery.
    pub(crate) idle: bool,
    /// Whether it remains to be seen if that has freed the server connection.
    pub(crate) ready_due: bool,
}

/// Why a turn ends, or is interrupted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Halt {
    /// It is over.
    Stop(Stop),
    /// It goes on with what is this owner's.
    TurnTo(Owner),
}

impl From<Stop> for Halt {
    fn from(stop: Stop) -> Self {
        Self::Stop(stop)
    }
}

/// Whether the last ReadyForQuery may have freed the server connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Freed {
    /// The session's own messages come next.
    No,
    /// If nothing is in the way.
    Perhaps,
}

/// Whether a message passes to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Pass,
    Swallow,
}

pub(crate) fn process(
    core: &mut Core,
    id: ServerId,
    now: Instant,
    buf: &[u8],
    plan: &mut Plan,
) -> Processed {
    let Some(server) = core.servers.get_mut(id) else {
        return Processed { taken: buf.len() as u32, stop: Stop::Drained };
    };
    let pool = &mut core.pools[server.pool];
    let linked = server.session().map_or(Owner::PGIMBAL, Owner::of);
    let (mut whose, mut at, mut freed, mut idle, mut ready_due) =
        (linked, 0, Freed::No, false, false);
    let stop = loop {
        let session = whose.session().and_then(|id| core.sessions.get_mut(id));
        let mut turn = ServerTurn {
            server: &mut *server,
            session,
            whose,
            linked,
            pool: &mut *pool,
            tables: &mut core.tables,
            now,
            buf,
            at,
            plan: &mut *plan,
            freed,
            idle,
            ready_due,
        };
        match turn.run() {
            Halt::Stop(stop) => {
                at = turn.at;
                break stop;
            }
            Halt::TurnTo(owner) => {
                (at, freed, idle, ready_due) = (turn.at, turn.freed, turn.idle, turn.ready_due);
                whose = owner;
            }
        }
    };
    pool.stats.server_bytes_in += at as u64;
    pool.stats.server_bytes_out += plan.to_server().bytes();
    pool.stats.client_bytes_out += plan.bytes_to_sessions();
    Processed { taken: at as u32, stop }
}

/// What an idle server connection said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdleWord {
    /// Notices, notifications and reported settings, up to so many bytes: it may be used.
    Harmless(u32),
    /// An error or anything else: it must not be used.
    Dead,
}

/// Processes what came from a server connection while it was idle. A FATAL is kept as its last
/// words.
pub(crate) fn process_idle(core: &mut Core, id: ServerId, buf: &[u8]) -> IdleWord {
    let Some(server) = core.servers.get_mut(id) else { return IdleWord::Dead };
    let mut at = 0;
    loop {
        let rest = &buf[at..];
        let Ok(header) = frame::peek(rest) else { return IdleWord::Dead };
        let Some(header) = header.filter(|header| header.total as usize <= rest.len()) else {
            return IdleWord::Harmless(at as u32);
        };
        let body = &rest[HEADER_LEN..header.total as usize];
        match header.tag {
            backend::NOTICE_RESPONSE | backend::NOTIFICATION_RESPONSE => {}
            backend::PARAMETER_STATUS => {
                let mut parts = body.split(|&byte| byte == 0);
                let (Some(name), Some(value)) = (parts.next(), parts.next()) else {
                    return IdleWord::Dead;
                };
                replies::note_hot_standby(server, &mut core.tables, name);
                server.reported = core.tables.reported.with(&server.reported, name, value);
            }
            backend::ERROR_RESPONSE => {
                server.shutdown_notice = Some(body.into());
                return IdleWord::Dead;
            }
            _ => return IdleWord::Dead,
        }
        at += header.total as usize;
    }
}

impl ServerTurn<'_> {
    fn run(&mut self) -> Halt {
        let begins = self.at == 0 && self.is_linked();
        if begins && self.pool.outlives_server() && self.dies_unanswered() {
            return Stop::Fault.into();
        }
        if std::mem::take(&mut self.ready_due) {
            self.settle_idle();
            if let Err(stop) = self.after_ready() {
                return stop.into();
            }
        }
        loop {
            if let Err(halt) = self.step() {
                return halt;
            }
        }
    }

    /// Whether the server takes its leave in what has come before it has answered anything: then
    /// nothing of it is forwarded, so that the statement can be run again.
    fn dies_unanswered(&mut self) -> bool {
        const READY: [u8; 5] = *b"Z\0\0\0\x05";
        let answers = self.buf.len() >= 6 && self.buf[self.buf.len() - 6..].starts_with(&READY);
        if answers
            || self.session.is_none()
            || self.server.body != Body::None
            || self.server.in_flight.progress() != Progress::Unanswered
        {
            return false;
        }
        let (mut at, mut completed) = (self.at, false);
        while let Ok(Some(header)) = frame::peek(&self.buf[at..]) {
            let Some(body) = self.buf.get(at + HEADER_LEN..at + header.total as usize) else {
                return false;
            };
            match header.tag {
                backend::READY_FOR_QUERY => return false,
                backend::COMMAND_COMPLETE => completed = true,
                backend::NOTICE_RESPONSE if is_last_notice(body) => return true,
                backend::ERROR_RESPONSE => {
                    let fatal = ErrorFields::parse(body).is_ok_and(|error| {
                        matches!(error.severity, Severity::Fatal | Severity::Panic)
                    });
                    if fatal && !completed {
                        self.server.shutdown_notice = Some(body.into());
                    }
                    return fatal;
                }
                _ => {}
            }
            at += header.total as usize;
        }
        false
    }

    fn step(&mut self) -> Result<(), Halt> {
        if self.server.body != Body::None {
            self.stream_body()?;
            emit_made(self.server, self.plan);
            return Ok(());
        }
        let rest = &self.buf[self.at..];
        let header = match frame::peek(rest) {
            Ok(Some(header)) => header,
            Ok(None) if rest.is_empty() => return Err(Stop::Drained.into()),
            Ok(None) => return Err(Stop::Need(HEADER_LEN as u32).into()),
            Err(_) => return Err(Stop::Fault.into()),
        };
        let total = header.total as usize;
        let wanted = match header.tag {
            backend::PARAMETER_STATUS if total > LONGEST_JUDGED => return Err(Stop::Fault.into()),
            backend::PARAMETER_STATUS => total,
            _ => total.min(HOLD_LIMIT),
        };
        if rest.len() < wanted {
            return Err(Stop::Need(wanted as u32).into());
        }
        let body = &rest[HEADER_LEN..total.min(rest.len())];
        let start = self.at;
        self.turn_to(self.addressee(header.tag))?;
        let fate = self.message(header, body)?;
        self.at = start;
        self.take(header, fate);
        emit_made(self.server, self.plan);
        if header.tag == backend::READY_FOR_QUERY {
            self.ready_due = true;
            self.turn_to(self.linked)?;
            self.ready_due = false;
            self.after_ready()?;
        }
        Ok(())
    }

    /// Whom a message is for: whoever awaits the next reply; what is no reply, and what comes when
    /// none is pending, is for the session that is linked. A notice is that of what runs.
    #[inline]
    fn addressee(&self, tag: u8) -> Owner {
        match tag {
            backend::NOTIFICATION_RESPONSE | backend::PARAMETER_STATUS => self.linked,
            _ => self.server.pending.front_owner().unwrap_or(self.linked),
        }
    }

    /// Interrupts the turn where what follows is not that owner's already.
    #[inline]
    fn turn_to(&self, owner: Owner) -> Result<(), Halt> {
        if owner == self.whose { Ok(()) } else { Err(Halt::TurnTo(owner)) }
    }

    /// Whether the message at hand is for the session that is linked.
    #[inline]
    fn is_linked(&self) -> bool {
        self.whose == self.linked
    }

    #[inline]
    fn session_id(&self) -> Option<SessionId> {
        self.session.as_deref().map(|session| session.id)
    }

    /// Decides one message, of which `body` is what has arrived.
    fn message(&mut self, header: Header, body: &[u8]) -> Result<Fate, Stop> {
        match header.tag {
            backend::DATA_ROW if self.server.asking.is_some() => Ok(self.answer_row(body)),
            backend::DATA_ROW | backend::COPY_DATA | backend::COPY_DONE => Ok(self.rows()),
            backend::ROW_DESCRIPTION if self.answers_query() => Ok(self.rows()),
            backend::COMMAND_COMPLETE => self.command_complete(body),
            backend::READY_FOR_QUERY => self.ready(body),
            backend::ROW_DESCRIPTION
            | backend::NO_DATA
            | backend::PARSE_COMPLETE
            | backend::BIND_COMPLETE
            | backend::CLOSE_COMPLETE
            | backend::PORTAL_SUSPENDED
            | backend::EMPTY_QUERY_RESPONSE => self.reply(header.tag, body),
            backend::PARAMETER_DESCRIPTION => Ok(self.parameter_description(header, body)),
            backend::FUNCTION_CALL_RESPONSE => Ok(self.rows()),
            backend::COPY_IN_RESPONSE => {
                let begun = self.server.pending.copy_begins();
                self.server.copy_in = !begun.ended;
                self.server.since_ready.segment_open |= begun.lost_sync;
                Ok(self.rows())
            }
            backend::COPY_OUT_RESPONSE | backend::COPY_BOTH_RESPONSE => Ok(self.rows()),
            backend::ERROR_RESPONSE => self.error(body),
            backend::NOTICE_RESPONSE if is_last_notice(body) => Ok(Fate::Swallow),
            backend::NOTICE_RESPONSE | backend::NOTIFICATION_RESPONSE => {
                Ok(self.asynchronous(header.tag))
            }
            backend::PARAMETER_STATUS => self.parameter_status(body),
            _ => Err(Stop::Fault),
        }
    }

    /// Rows and the like belong to whatever is at the front of the queue.
    fn rows(&self) -> Fate {
        match self.server.pending.front() {
            Some(
                Pending::Own(_)
                | Pending::Describe(_)
                | Pending::ShapeCheck(_)
                | Pending::UnnamedCheck(..)
                | Pending::TemporaryName(..)
                | Pending::Swallow(_),
            )
            | None => Fate::Swallow,
            Some(_) => Fate::Pass,
        }
    }

    /// What the server says on its own account passes to whoever is linked, unless the proxy's own
    /// query caused it.
    fn asynchronous(&self, tag: u8) -> Fate {
        match self.server.pending.front() {
            // What was notified while the server was asked is the client's.
            Some(Pending::Own(OwnQuery::Question))
                if tag == backend::NOTIFICATION_RESPONSE && self.session.is_some() =>
            {
                Fate::Pass
            }
            _ if tag == backend::NOTICE_RESPONSE && self.server.pending.is_proxys_own() => {
                Fate::Swallow
            }
            Some(Pending::Own(_)) => Fate::Swallow,
            _ if self.session.is_some() => Fate::Pass,
            _ => Fate::Swallow,
        }
    }

    /// A row of the answer to a question, or of what runs before it.
    fn answer_row(&mut self, body: &[u8]) -> Fate {
        if matches!(self.answers_own(), Some(OwnQuery::Question | OwnQuery::Facts))
            && let Some((asking, _)) = &mut self.server.asking
        {
            asking.row(body);
        }
        self.rows()
    }

    fn answers_query(&self) -> bool {
        matches!(self.server.pending.front(), Some(Pending::Query(_) | Pending::Own(_)))
    }

    /// Takes a processed message off the buffer; the rest of a long one shares its fate.
    fn take(&mut self, header: Header, fate: Fate) {
        let have = (header.total as usize).min(self.buf.len() - self.at);
        let missing = header.total - have as u32;
        match fate {
            Fate::Pass => {
                if begins_answer(header.tag) && self.is_linked() {
                    self.server.in_flight.answered();
                }
                match self.own_notification(header) {
                    Some(process_id) => self.renamed_notification(process_id, have),
                    None => self.pass(self.at, self.at + have),
                }
            }
            Fate::Swallow => {}
        }
        if missing > 0 {
            self.server.body_of = self.whose;
            self.server.body = match fate {
                Fate::Pass => Body::Forward(missing),
                Fate::Swallow => Body::Drop(missing),
            };
        }
        self.at += have;
    }

    fn stream_body(&mut self) -> Result<(), Halt> {
        let have = self.buf.len() - self.at;
        if have == 0 {
            return Err(Stop::Drained.into());
        }
        self.turn_to(self.server.body_of)?;
        let (Body::Forward(missing) | Body::Drop(missing)) = self.server.body else {
            return Ok(());
        };
        let taken = have.min(missing as usize);
        let left = missing - taken as u32;
        if matches!(self.server.body, Body::Forward(_)) {
            self.pass(self.at, self.at + taken);
        }
        self.server.body = match self.server.body {
            _ if left == 0 => Body::None,
            Body::Forward(_) => Body::Forward(left),
            _ => Body::Drop(left),
        };
        self.at += taken;
        Ok(())
    }

    /// Lets `write` append made bytes for whom the message is for, if it is still there.
    fn tell(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        if let Some(session) = self.session_id() {
            self.plan.make_for_session(session, write);
        }
    }

    /// Passes bytes `from..to` of the buffer on to whom the message is for, if it is still there.
    fn pass(&mut self, from: usize, to: usize) {
        if let Some(session) = self.session_id() {
            self.plan.span_to_session(session, from, to);
        }
    }

    /// Whether the proxy's own query of this kind is being answered.
    fn answers_own(&self) -> Option<OwnQuery> {
        match self.server.pending.front() {
            Some(Pending::Own(kind)) => Some(*kind),
            _ => None,
        }
    }
}

/// Whether a message is a part of an answer that is not complete by it.
const fn begins_answer(tag: u8) -> bool {
    !matches!(
        tag,
        backend::NOTICE_RESPONSE
            | backend::NOTIFICATION_RESPONSE
            | backend::PARAMETER_STATUS
            | backend::READY_FOR_QUERY
    )
}

/// Whether a notice says that the server goes down: it proves nothing of what was running (a row
/// may be committed behind it), and the client is told what is known when the connection ends.
fn is_last_notice(body: &[u8]) -> bool {
    ErrorFields::parse(body).is_ok_and(|notice| {
        notice.code == SqlState::ADMIN_SHUTDOWN || notice.code == SqlState::CRASH_SHUTDOWN
    })
}

#[cfg(test)]
mod tests;
