//! The changes of primary that were seen, and the interruption of writes that lasts now.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::position::TimelineId;

/// How many changes of primary are kept: a screen of the console. Older ones are in the log.
const KEPT: usize = 64;

/// A change of primary that this process has seen: writes go to another node, or to another
/// timeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failover {
    /// When writes stopped going to the old primary; when the new one was found, if there was no
    /// pause.
    pub began: Instant,
    /// The name of the old primary's node, as in [`NodeView::name`](super::NodeView::name).
    pub from: Box<str>,
    /// The name of the new primary's node; the same as `from` if only the timeline has changed.
    pub to: Box<str>,
    /// The timeline of the new primary, from its report.
    pub timeline: TimelineId,
    /// How long writes went to no node; zero if the new primary was seen before the old one was
    /// lost.
    pub lasted: Duration,
    /// Why writes stopped going to the old primary, in English words.
    pub why: Box<str>,
}

/// A time during which writes go to no node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Interruption {
    /// The name of the primary before it.
    from: Box<str>,
    began: Instant,
    why: Box<str>,
}

impl Interruption {
    pub(super) const fn new(from: Box<str>, began: Instant, why: Box<str>) -> Self {
        Self { from, began, why }
    }

    /// How long it has lasted.
    pub(super) fn lasted(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.began)
    }
}

/// The last changes of primary, oldest first, and the current interruption of writes.
#[derive(Debug, Default)]
pub(super) struct FailoverHistory {
    interruption: Option<Interruption>,
    failovers: VecDeque<Failover>,
}

impl FailoverHistory {
    /// Writes go to no node. An interruption that lasts already keeps its start and its cause.
    pub(super) fn begin_interruption(&mut self, from: Box<str>, now: Instant, why: Box<str>) {
        self.interruption.get_or_insert_with(|| Interruption::new(from, now, why));
    }

    /// Writes go to a node again; returns the interruption that has ended.
    pub(super) const fn end_interruption(&mut self) -> Option<Interruption> {
        self.interruption.take()
    }

    /// Adds a change of primary that ended `interruption` at `now`.
    pub(super) fn record(
        &mut self,
        interruption: Interruption,
        to: Box<str>,
        timeline: TimelineId,
        now: Instant,
    ) {
        if self.failovers.len() == KEPT {
            self.failovers.pop_front();
        }
        let lasted = interruption.lasted(now);
        let Interruption { from, began, why } = interruption;
        self.failovers.push_back(Failover { began, from, to, timeline, lasted, why });
    }

    /// The changes of primary, oldest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Failover> {
        self.failovers.iter()
    }
}
