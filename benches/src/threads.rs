//! Work on several threads, one for each client, and how they are told to end.

use crate::{Error, Result};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// Runs `work` on this number of threads, and returns their results.
///
/// # Errors
/// The first error of a thread, in the order of their start; a panic counts as one.
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
