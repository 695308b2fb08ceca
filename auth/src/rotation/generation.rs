//! One password of a role, from its first sight on.

use std::time::{Instant, SystemTime};

use pgimbal_config::Secret;

/// A moment on both clocks: the one that only goes on, and the one that people and Vault share.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// For pauses and limits.
    pub instant: Instant,
    /// For what is kept over restarts.
    pub wall: SystemTime,
}

/// A password that a source has told, with what tells it from others: when it was made, and itself.
#[derive(Clone, Debug)]
pub struct Generation {
    /// Its number, ascending in the order in which they were first seen.
    pub number: u32,
    /// When the source made it, where it says so.
    pub rotated_at: Option<SystemTime>,
    /// The password.
    pub password: Secret,
    /// When it was first seen here.
    pub first_seen: SystemTime,
    /// Whether a server has ever accepted it.
    pub proven: bool,
}
