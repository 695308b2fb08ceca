//! What a step has left to do for those who listen.

use std::time::Instant;

use crate::ids::{PoolId, SessionId};

/// The sessions and pools of which a step has changed who listens to what. They are looked at when
/// the step is over.
#[derive(Debug, Default)]
pub(crate) struct ChannelWork {
    sessions: Vec<SessionId>,
    pools: Vec<PoolId>,
    now: Option<Instant>,
}

impl ChannelWork {
    /// What a session listens to, or waits for, may have changed.
    pub(crate) fn note_session(&mut self, session: SessionId) {
        self.sessions.push(session);
    }

    /// A session of the pool waits for channels, or the connection that listens for it is gone.
    pub(crate) fn note_pool(&mut self, pool: PoolId, now: Instant) {
        self.pools.push(pool);
        self.now = Some(now);
    }

    /// A session of the pool has left that listened.
    pub(super) fn note_left(&mut self, pool: PoolId) {
        self.pools.push(pool);
    }

    /// Whether nothing is to be looked at.
    #[inline]
    pub(super) const fn is_empty(&self) -> bool {
        self.sessions.is_empty() && self.pools.is_empty()
    }

    /// Takes the sessions and pools that are to be looked at.
    pub(super) fn take(&mut self) -> (Vec<SessionId>, Vec<PoolId>) {
        (std::mem::take(&mut self.sessions), std::mem::take(&mut self.pools))
    }

    /// When a pool was last noted; `None` before the first.
    pub(super) const fn now(&self) -> Option<Instant> {
        self.now
    }
}
