//! How many files this process and its children may hold open.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the limit to `wanted`, or as far as allowed. Returns the limit that holds now.
#[must_use]
pub fn raise(wanted: u64) -> u64 {
    let limits = getrlimit(Resource::Nofile);
    let current = limits.current.unwrap_or(u64::MAX);
    if current >= wanted {
        return current;
    }
    let hard = limits.maximum.unwrap_or(u64::MAX);
    for (soft, maximum) in [(wanted, hard.max(wanted)), (hard, hard)] {
        let new = Rlimit { current: Some(soft), maximum: Some(maximum) };
        if setrlimit(Resource::Nofile, new).is_ok() {
            return soft;
        }
    }
    current
}
