//! The times of the demonstration's events, which depend on how long it lasts.

use crate::{Error, Result};
use std::env;
use std::time::Duration;

/// Length of the scenario when nobody says when the demonstration ends.
const USUAL: Duration = Duration::from_secs(60);
/// The shortest time between two rotations that Vault allows.
const SHORTEST_ROTATION: u64 = 5;

/// The times of the demonstration's events, since its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// When the demonstration ends by itself; `None` when only Ctrl-C ends it.
    pub end: Option<Duration>,
    /// Time between two rotations of the password.
    pub rotation: Duration,
    /// When the primary is killed, counted from the start.
    pub kill: Duration,
    /// When the old primary comes back as it was, counted from the start.
    pub comeback: Duration,
}

impl Schedule {
    /// Reads the schedule from the variables `DEMO_SECONDS` (length) and `DEMO_ROTATION` (time
    /// between two rotations), both in seconds.
    ///
    /// # Errors
    /// When one of them is no number of seconds, or the length is below 10 s.
    pub fn from_environment() -> Result<Self> {
        let end = seconds("DEMO_SECONDS")?;
        if end.is_some_and(|end| end < Duration::from_secs(10)) {
            return Err(Error::Program("DEMO_SECONDS: the scenario takes 10 s at least".into()));
        }
        let mut schedule = Self::lasting(end);
        if let Some(rotation) = seconds("DEMO_ROTATION")? {
            schedule.rotation = rotation.max(Duration::from_secs(SHORTEST_ROTATION));
        }
        Ok(schedule)
    }

    /// The usual schedule for this length; `None` for a demonstration without an end.
    #[must_use]
    pub fn lasting(end: Option<Duration>) -> Self {
        let length = end.unwrap_or(USUAL);
        let rotation = (length.as_secs() / 4).clamp(SHORTEST_ROTATION, 10);
        Self {
            end,
            rotation: Duration::from_secs(rotation),
            kill: length / 2,
            comeback: length * 6 / 10,
        }
    }
}

/// The variable's number of seconds, if it is set.
fn seconds(name: &str) -> Result<Option<Duration>> {
    match env::var(name).as_deref() {
        Ok("") | Err(_) => Ok(None),
        Ok(text) => match text.parse::<u64>() {
            Ok(seconds) if seconds > 0 => Ok(Some(Duration::from_secs(seconds))),
            _ => Err(Error::Program(format!("{name}={text} is not a number of seconds"))),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_one_rotates_as_often_as_vault_can() {
        let short = Schedule::lasting(Some(Duration::from_secs(20)));
        assert_eq!(short.rotation, Duration::from_secs(5));
        assert_eq!(
            (short.kill, short.comeback),
            (Duration::from_secs(10), Duration::from_secs(12))
        );
        assert_eq!(Schedule::lasting(None).rotation, Duration::from_secs(10));
    }
}
