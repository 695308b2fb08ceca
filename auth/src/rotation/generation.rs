//! One generation of a role's password.

use std::time::{Instant, SystemTime};

use pgimbal_config::Secret;

/// One moment as read from both clocks: the monotonic one and the wall clock.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// Reading of the monotonic clock, for pauses and limits. It has no meaning after a restart.
    pub instant: Instant,
    /// Reading of the wall clock, for times that are stored or compared with Vault's dates.
    pub wall: SystemTime,
}

/// One password of a role that its source has returned, with its number and dates. `Debug` masks
/// the password.
#[derive(Clone, Debug)]
pub struct Generation {
    /// Number of the generation, counted for each role. A later one has a larger number; a password
    /// that comes back gets a new one.
    pub number: u32,
    /// Time at which the source says that the password was made (Vault's `last_vault_rotation`);
    /// `None` when it says none, or when the role has got another source since.
    pub rotated_at: Option<SystemTime>,
    /// The password, in clear text or as the source stores it. Never empty.
    pub password: Secret,
    /// Time at which pgimbal first got the password, by the wall clock.
    pub first_seen: SystemTime,
    /// Whether a PostgreSQL server has ever accepted the password; also true for one that was
    /// loaded from the password cache. A role with such a generation is worth waiting for.
    pub proven: bool,
}
