//! When the state of a user whom only a rule knows goes away: clients make up names in any number,
//! and a source may know more of them than anybody uses.

use std::time::{Duration, Instant};

use tokio::task::AbortHandle;

use super::role::{Role, is_away};

/// How long a user is kept as whom nobody has logged in. Longer than a client is held while its
/// source is away, and short enough that the questions that all addresses together have (fifty in
/// a second) cannot make more than some thousand of them.
pub(super) const UNSERVED: Duration = Duration::from_secs(60);

/// How long one is kept who has logged in, and whom the source knows no more: as long as a pool
/// that nobody uses. One whom it knows, or does not tell of, stays: its passwords are those of a
/// time without the source.
pub(super) const UNKNOWN: Duration = Duration::from_secs(60 * 60);

/// The task that listens to a source's changes; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct Following(pub(super) AbortHandle);

impl Drop for Following {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Role {
    /// When it goes, unless it is used until then.
    pub(super) fn leaves_at(&self) -> Option<Instant> {
        if self.is_listed || self.is_awaited() {
            return None;
        }
        match (self.is_served, &self.silence) {
            (false, _) => Some(self.used_at + UNSERVED),
            (true, Some(error)) if !is_away(error) => Some(self.used_at + UNKNOWN),
            (true, _) => None,
        }
    }

    /// Whether anybody waits for something of it.
    fn is_awaited(&self) -> bool {
        let waiting = self.mismatched.len() + self.refreshing.len() + self.revoking.len();
        waiting + self.deriving > 0 || self.logins.is_waiting()
    }

    /// Whether it outlives the process.
    pub(super) const fn is_kept(&self) -> bool {
        self.is_listed || self.is_served
    }
}
