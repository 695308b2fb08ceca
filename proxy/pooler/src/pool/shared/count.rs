//! A count against a limit, over all workers.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

/// A number of things that are taken and given back by all workers, each time checked against a
/// limit: server connections of a pool, database or user, or pinned sessions.
#[derive(Debug, Default)]
pub struct SharedCount {
    taken: AtomicU32,
    crowded: AtomicBool,
}

impl SharedCount {
    /// Returns how many are taken now, by all workers; other threads may change it at any time.
    #[must_use]
    pub fn get(&self) -> u32 {
        self.taken.load(Relaxed)
    }

    /// Whether a request was refused, because the limit was reached, since this was last asked;
    /// asking clears it. A pool that has idle connections under this limit then gives one up.
    #[must_use]
    pub fn was_crowded(&self) -> bool {
        self.crowded.load(Relaxed) && self.crowded.swap(false, Relaxed)
    }

    /// Takes one if fewer than `limit` are taken.
    pub(super) fn take(&self, limit: u32) -> bool {
        let taken =
            self.taken.fetch_update(Relaxed, Relaxed, |n| (n < limit).then_some(n + 1)).is_ok();
        if !taken {
            self.crowded.store(true, Relaxed);
        }
        taken
    }

    /// Gives one back.
    pub(super) fn give_back(&self) {
        self.taken.fetch_sub(1, Relaxed);
    }
}
