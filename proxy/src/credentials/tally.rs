//! How many clients and server connections there are of each generation.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

type Counts = HashMap<Box<str>, HashMap<u32, Arc<AtomicU64>>>;

/// Counts by user and generation.
#[derive(Debug, Default)]
pub(crate) struct Tally(Mutex<Counts>);

/// One that is counted, until it is dropped.
#[derive(Debug)]
pub struct Counted(Arc<AtomicU64>);

impl Tally {
    pub(super) fn count_in(&self, user: &str, generation: u32) -> Counted {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let own = counts.entry(user.into()).or_default();
        // Of the generations that nobody has any more, nothing is kept.
        own.retain(|_, count| count.load(Relaxed) > 0);
        let count = own.entry(generation).or_default();
        count.fetch_add(1, Relaxed);
        Counted(Arc::clone(count))
    }

    pub(super) fn count(&self, user: &str, generation: u32) -> u64 {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.get(user).and_then(|own| own.get(&generation));
        count.map_or(0, |count| count.load(Relaxed))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}
