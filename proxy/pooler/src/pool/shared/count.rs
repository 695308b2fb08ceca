//! A count against a limit, over all workers.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

/// Server connections against a limit that several pools share.
#[derive(Debug, Default)]
pub struct SharedCount {
    taken: AtomicU32,
    crowded: AtomicBool,
}

impl SharedCount {
    /// How many are taken.
    #[must_use]
    pub fn get(&self) -> u32 {
        self.taken.load(Relaxed)
    }

    /// Whether somebody was refused since this was last asked: then a pool that has idle
    /// connections under this limit gives one up.
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
