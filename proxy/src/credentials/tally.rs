//! How many clients and server connections there are of each generation.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

type Counts = HashMap<Box<str>, HashMap<u32, Arc<Count>>>;

/// Counts by user and generation.
#[derive(Debug, Default)]
pub(crate) struct Tally(Mutex<Counts>);

/// One that is counted, until it is dropped.
#[derive(Debug)]
pub struct Counted(Arc<Count>);

#[derive(Debug)]
struct Count {
    generation: u32,
    count: AtomicU64,
}

impl Counted {
    /// The generation that it is counted with.
    #[must_use]
    pub fn generation(&self) -> u32 {
        self.0.generation
    }
}

impl Tally {
    pub(super) fn count_in(&self, user: &str, generation: u32) -> Counted {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let own = counts.entry(user.into()).or_default();
        // Of the generations that nobody has any more, nothing is kept.
        own.retain(|_, known| known.count.load(Relaxed) > 0);
        let new = || Arc::new(Count { generation, count: AtomicU64::new(0) });
        let known = own.entry(generation).or_insert_with(new);
        known.count.fetch_add(1, Relaxed);
        Counted(Arc::clone(known))
    }

    /// Whether there is any of this user.
    pub(super) fn has(&self, user: &str) -> bool {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let own = counts.get(user);
        own.is_some_and(|own| own.values().any(|known| known.count.load(Relaxed) > 0))
    }

    /// Keeps nothing of a user, unless somebody is still counted.
    pub(super) fn forget(&self, user: &str) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_gone = |own: &HashMap<u32, Arc<Count>>| {
            own.values().all(|known| known.count.load(Relaxed) == 0)
        };
        if counts.get(user).is_some_and(is_gone) {
            counts.remove(user);
        }
    }

    /// Whether nothing is kept of anybody.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    pub(super) fn count(&self, user: &str, generation: u32) -> u64 {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = counts.get(user).and_then(|own| own.get(&generation));
        known.map_or(0, |known| known.count.load(Relaxed))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, Relaxed);
    }
}
