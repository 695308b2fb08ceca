//! The sessions that a step on a server's bytes may touch, and the one that it is about.

use crate::ids::SessionId;
use crate::session::Session;
use crate::session::sessions::Sessions;

/// A worker's sessions in a step on one server connection.
pub(crate) struct TurnSessions<'a> {
    all: &'a mut Sessions,
    /// Whom the server connection serves.
    linked: Option<SessionId>,
    /// Whose the message at hand is; it has not left.
    current: Option<SessionId>,
}

impl<'a> TurnSessions<'a> {
    /// Begins with the session that is linked to the server connection.
    pub(crate) fn new(all: &'a mut Sessions, linked: Option<SessionId>) -> Self {
        let linked = linked.filter(|id| all.get(*id).is_some());
        Self { all, linked, current: linked }
    }

    /// The session that is linked to the server connection; `None` if there is none.
    #[inline]
    pub(crate) const fn linked_id(&self) -> Option<SessionId> {
        self.linked
    }

    /// What follows is about this session, unless it has left.
    #[inline]
    pub(crate) fn turn_to(&mut self, session: Option<SessionId>) {
        if session != self.current {
            self.current = session.filter(|id| self.all.get(*id).is_some());
        }
    }

    /// Whether the message at hand is for the session that is linked.
    #[inline]
    pub(crate) fn is_linked(&self) -> bool {
        self.current.is_some() && self.current == self.linked
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
        self.all.get(self.current?)
    }

    /// Calls `with` for the session that is linked, and for the one that the message at hand is for
    /// if that is another one.
    pub(crate) fn each(&mut self, mut with: impl FnMut(&mut Session)) {
        let other = self.current.filter(|id| Some(*id) != self.linked);
        for id in self.linked.into_iter().chain(other) {
            if let Some(session) = self.all.get_mut(id) {
                with(session);
            }
        }
    }

    /// As [`Self::current_id`].
    #[inline]
    pub(crate) fn current_mut(&mut self) -> Option<&mut Session> {
        let id = self.current?;
        self.all.get_mut(id)
    }
}
