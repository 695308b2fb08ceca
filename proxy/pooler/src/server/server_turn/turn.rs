//! One turn of a server connection: what it borrows, and whom its messages are for.

use std::time::Instant;

use crate::ids::SessionId;
use crate::plan::{Plan, Stop};
use crate::pool::Pool;
use crate::server::Server;
use crate::server::pending::{OwnQuery, Owner, Pending};
use crate::session::Session;
use crate::session::state::books::Books;
use crate::tables::Tables;

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
pub(super) enum Halt {
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
pub(crate) enum Forwarding {
    Pass,
    Swallow,
}

impl<'a> ServerTurn<'a> {
    /// The books of the session that the message at hand is for.
    pub(crate) fn books(&mut self) -> Option<Books<'_>> {
        let session = self.session.as_deref_mut()?;
        let (server, pool, tables) = (&mut *self.server, &mut *self.pool, &mut *self.tables);
        Some(Books { session, server, pool, tables, now: self.now })
    }

    /// Interrupts the turn where what follows is not that owner's already.
    #[inline]
    pub(crate) fn turn_to(&self, owner: Owner) -> Result<(), Halt> {
        if owner == self.whose { Ok(()) } else { Err(Halt::TurnTo(owner)) }
    }

    /// Whether the message at hand is for the session that is linked.
    #[inline]
    pub(crate) fn is_linked(&self) -> bool {
        self.whose == self.linked
    }

    #[inline]
    pub(crate) fn session_id(&self) -> Option<SessionId> {
        self.session.as_deref().map(|session| session.id())
    }

    /// Rows and the like belong to whatever is at the front of the queue.
    pub(crate) fn rows(&self) -> Forwarding {
        match self.server.pending.front() {
            Some(
                Pending::Own(_)
                | Pending::Describe(_)
                | Pending::ShapeCheck(_)
                | Pending::UnnamedCheck(..)
                | Pending::TemporaryName(..)
                | Pending::Swallow(_),
            )
            | None => Forwarding::Swallow,
            Some(_) => Forwarding::Pass,
        }
    }

    pub(crate) fn answers_query(&self) -> bool {
        matches!(self.server.pending.front(), Some(Pending::Query(_) | Pending::Own(_)))
    }

    /// Lets `write` append made bytes for whom the message is for, if it is still there.
    pub(crate) fn tell(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        if let Some(session) = self.session_id() {
            self.plan.make_for_session(session, write);
        }
    }

    /// Passes bytes `from..to` of the buffer on to whom the message is for, if it is still there.
    pub(crate) fn pass(&mut self, from: usize, to: usize) {
        if let Some(session) = self.session_id() {
            self.plan.span_to_session(session, from, to);
        }
    }

    /// Whether the proxy's own query of this kind is being answered.
    pub(crate) fn answers_own(&self) -> Option<OwnQuery> {
        match self.server.pending.front() {
            Some(Pending::Own(kind)) => Some(*kind),
            _ => None,
        }
    }
}
