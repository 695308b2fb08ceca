//! Waiting for a condition with a deadline, the only way a test may wait.

use std::time::{Duration, Instant};

/// How long a test waits for something that should happen at once. Generous, since a loaded
/// machine must not make a right proxy look wrong.
pub const SOON: Duration = Duration::from_secs(15);

/// Calls `condition` until it holds and returns how long that took.
///
/// # Panics
/// When `deadline` has passed without it, naming `what`.
pub fn eventually(what: &str, deadline: Duration, mut condition: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < deadline, "did not happen within {deadline:?}: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
    start.elapsed()
}

/// Watches `condition` for the whole of `span`: the way to say that something does not happen.
///
/// # Panics
/// As soon as it does not hold, naming `what`.
pub fn always(what: &str, span: Duration, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while start.elapsed() < span {
        assert!(condition(), "stopped holding after {:?}: {what}", start.elapsed());
        std::thread::sleep(Duration::from_millis(10));
    }
}
