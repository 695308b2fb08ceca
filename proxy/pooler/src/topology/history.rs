//! The changes of primary that were seen.

use std::time::{Duration, Instant};

use super::machine::Topology;
use super::position::TimelineId;

/// What fits a screen; older ones are in the log.
const KEPT: usize = 64;

/// Writes have gone nowhere since then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Interruption {
    from: Box<str>,
    began: Instant,
    why: Box<str>,
}

impl Interruption {
    pub(super) const fn new(from: Box<str>, began: Instant, why: Box<str>) -> Self {
        Self { from, began, why }
    }

    pub(super) fn lasted(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.began)
    }
}

/// A change of primary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failover {
    /// When the old primary was lost, or left.
    pub began: Instant,
    /// The old primary.
    pub from: Box<str>,
    /// The new one.
    pub to: Box<str>,
    /// The new one's timeline.
    pub timeline: TimelineId,
    /// How long writes went nowhere.
    pub lasted: Duration,
    /// What was wrong with the old one.
    pub why: Box<str>,
}

impl Topology {
    pub(super) fn record(
        &mut self,
        interruption: Interruption,
        to: Box<str>,
        timeline: TimelineId,
        now: Instant,
    ) {
        if self.history.len() == KEPT {
            self.history.pop_front();
        }
        let lasted = interruption.lasted(now);
        let Interruption { from, began, why } = interruption;
        self.history.push_back(Failover { began, from, to, timeline, lasted, why });
    }
}
