//! The sessions that a step on a server's bytes may touch, and the one that it is about.

use slab::Slab;

use crate::ids::SessionId;
use crate::session::Session;

/// A worker's sessions in a step on one server connection.
pub(crate) struct TurnSessions<'a> {
    all: &'a mut Slab<Session>,
    /// Whose the message at hand is; it has not left.
    current: Option<SessionId>,
}

impl<'a> TurnSessions<'a> {
    /// Begins with the session that is linked to the server connection.
    pub(crate) fn new(all: &'a mut Slab<Session>, linked: Option<SessionId>) -> Self {
        let current = linked.filter(|id| find(all, *id).is_some());
        Self { all, current }
    }

    /// The session that the message at hand is for; `None` if it is nobody's, or its session has
    /// left.
    #[inline]
    pub(crate) const fn current_id(&self) -> Option<SessionId> {
        self.current
    }

    /// As [`Self::current_id`].
    #[inline]
    pub(crate) fn current(&self) -> Option<&Session> {
        find(self.all, self.current?)
    }

    /// As [`Self::current_id`].
    #[inline]
    pub(crate) fn current_mut(&mut self) -> Option<&mut Session> {
        let id = self.current?;
        self.all.get_mut(id.index()).filter(|session| session.id == id)
    }
}

#[inline]
fn find(all: &Slab<Session>, id: SessionId) -> Option<&Session> {
    all.get(id.index()).filter(|session| session.id == id)
}
