//! The limit of open files of this process and its children.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the limit of open files (RLIMIT_NOFILE) to `wanted`, or as far as allowed, and returns
/// the limit in force. Never lowers it.
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
