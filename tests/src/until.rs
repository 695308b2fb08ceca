//! Waiting for a condition with a time limit, the only way in which a test may wait.

use std::time::{Duration, Instant};

/// Time limit for what should happen at once. It is generous, so that a loaded machine does not
/// fail a test.
pub const SOON: Duration = Duration::from_secs(40);

/// Calls `condition` until it holds, every 10 ms, and returns how long that took.
///
/// # Panics
/// When `deadline` has passed; the message names `what`.
pub fn eventually(what: &str, deadline: Duration, mut condition: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < deadline, "did not happen within {deadline:?}: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
    start.elapsed()
}

/// Calls `condition` for the whole of `span`, every 10 ms, to show that something does not happen.
///
/// # Panics
/// As soon as the condition does not hold; the message names `what`.
pub fn always(what: &str, span: Duration, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while start.elapsed() < span {
        assert!(condition(), "stopped holding after {:?}: {what}", start.elapsed());
        std::thread::sleep(Duration::from_millis(10));
    }
}
