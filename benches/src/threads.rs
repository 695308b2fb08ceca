//! Several clients at once, a thread for each.

use crate::{Error, Result};
use std::thread;

/// Does `work` on so many threads, and returns what each has made.
///
/// # Errors
/// The first that a thread met.
pub fn on_threads<T: Send>(threads: u32, work: impl Fn() -> Result<T> + Sync) -> Result<Vec<T>> {
    thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(&work)).collect();
        threads
            .into_iter()
            .map(|thread| {
                thread.join().unwrap_or_else(|_| Err(Error::Program("a client panicked".into())))
            })
            .collect()
    })
}
