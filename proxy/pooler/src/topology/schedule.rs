//! When one node is probed next.

use std::time::{Duration, Instant};

/// The least time between the starts of two probes of a node: hints come from hundreds of clients
/// at once.
pub(super) const MIN_INTERVAL: Duration = Duration::from_millis(10);

/// When a node is probed next. A node has at most one probe under way.
#[derive(Debug)]
pub(super) struct Schedule {
    /// When the probe that is under way was started; `None` if none is.
    started: Option<Instant>,
    /// Something happened while the probe was under way, so that its answer may be of the time
    /// before: the next one is due at once.
    repeat: bool,
    /// When the last probe was started.
    last: Option<Instant>,
    due: Instant,
}

impl Schedule {
    /// A node whose first probe is due at once.
    pub(super) const fn new(now: Instant) -> Self {
        Self { started: None, repeat: false, last: None, due: now }
    }

    /// When the next probe is due; `None` while one is under way.
    pub(super) fn due(&self) -> Option<Instant> {
        self.started.is_none().then_some(self.due)
    }

    /// Makes the next probe due at once, or right after the one that is under way.
    pub(super) fn expedite(&mut self, now: Instant) {
        if self.started.is_some() {
            self.repeat = true;
        } else {
            self.due = self.due.min(self.earliest(now));
        }
    }

    /// Makes the next probe due `interval` after the start of the last one, if it was due later.
    pub(super) fn hasten(&mut self, interval: Duration, now: Instant) {
        let earliest = self.last.map_or(now, |last| now.max(last + interval));
        self.due = self.due.min(earliest);
    }

    /// Makes the next probe due at `at`, if it was due later and none is under way.
    pub(super) fn follow(&mut self, at: Instant) {
        if self.started.is_none() {
            self.due = self.due.min(at);
        }
    }

    /// A probe is started.
    pub(super) const fn start(&mut self, now: Instant) {
        self.started = Some(now);
        self.last = Some(now);
        self.repeat = false;
    }

    /// The probe has ended. The next one is due `interval` after the start of this one, unless it
    /// was expedited meanwhile.
    pub(super) fn finish(&mut self, now: Instant, interval: Duration) {
        let started = self.started.take().unwrap_or(now);
        self.due = if self.repeat { self.earliest(now) } else { now.max(started + interval) };
        self.repeat = false;
    }

    fn earliest(&self, now: Instant) -> Instant {
        self.last.map_or(now, |last| now.max(last + MIN_INTERVAL))
    }
}
