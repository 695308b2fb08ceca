//! Several clients at once, a thread for each, and how they learn that they should end.

use crate::{Error, Result};
use std::sync::atomic::{AtomicBool, Ordering};
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

/// A flag that is raised on drop: threads that wait for it end also when their scope panics.
#[derive(Debug)]
pub struct RaiseOnDrop<'a>(pub &'a AtomicBool);

impl Drop for RaiseOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
