//! When which node is asked.

use std::time::{Duration, Instant};

use super::machine::Topology;
use super::report::ProbeFailure;
use super::view::NodeId;

/// From one probe to the next while clients wait for a primary.
const HURRIED: Duration = Duration::from_millis(100);
/// The same for a node that accepts no connection: a dial costs both sides more than a question.
const HURRIED_DIAL: Duration = Duration::from_millis(250);
/// Hints come from hundreds of clients at once; a node is asked no more often than this.
const CLOSEST: Duration = Duration::from_millis(10);

/// When a node is asked next.
#[derive(Debug)]
pub(super) struct Schedule {
    /// A probe is under way since then.
    asked: Option<Instant>,
    /// Something happened while it was under way: its answer may be of the time before.
    again: bool,
    last: Option<Instant>,
    due: Instant,
}

/// A node that must be asked now. Its answer or failure goes to [`Topology::handle_report`] or
/// [`Topology::handle_failure`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbeOrder {
    /// Which.
    pub node: NodeId,
    /// When it is asked, which goes into the report.
    pub sent_at: Instant,
}

impl Schedule {
    pub(super) const fn new(now: Instant) -> Self {
        Self { asked: None, again: false, last: None, due: now }
    }

    fn expedite(&mut self, now: Instant) {
        if self.asked.is_some() {
            self.again = true;
        } else {
            self.due = self.due.min(self.earliest(now));
        }
    }

    fn earliest(&self, now: Instant) -> Instant {
        self.last.map_or(now, |last| now.max(last + CLOSEST))
    }

    fn begin(&mut self, now: Instant) {
        self.asked = Some(now);
        self.last = Some(now);
        self.again = false;
    }

    fn finish(&mut self, now: Instant, pause: Duration) {
        let sent = self.asked.take().unwrap_or(now);
        self.due = if self.again { self.earliest(now) } else { now.max(sent + pause) };
        self.again = false;
    }
}

impl Topology {
    /// The next node that must be asked, if one must be by `now`.
    pub fn poll_probe(&mut self, now: Instant) -> Option<ProbeOrder> {
        let due = |node: &super::node::Node| {
            !node.removed && node.schedule.asked.is_none() && node.schedule.due <= now
        };
        let index = self.nodes.iter().position(due)?;
        self.nodes[index].schedule.begin(now);
        Some(ProbeOrder { node: NodeId(index as u16), sent_at: now })
    }

    /// When [`Topology::poll_probe`] has something next, unless something happens before.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Instant> {
        let waiting = self.nodes.iter().filter(|node| !node.removed);
        waiting.filter(|node| node.schedule.asked.is_none()).map(|node| node.schedule.due).min()
    }

    /// A node is asked at once.
    pub(super) fn expedite(&mut self, id: NodeId, now: Instant) {
        if let Some(node) = self.nodes.get_mut(id.index()) {
            node.schedule.expedite(now);
        }
    }

    /// All nodes are asked at once.
    pub(super) fn expedite_all(&mut self, now: Instant) {
        for node in &mut self.nodes {
            node.schedule.expedite(now);
        }
    }

    /// A probe has ended.
    pub(super) fn finish_probe(
        &mut self,
        id: NodeId,
        now: Instant,
        failure: Option<&ProbeFailure>,
    ) {
        let hurried = self.is_hurried(now);
        let pause = match failure {
            Some(ProbeFailure::ChangedRole) => CLOSEST,
            Some(failure) if hurried && failure.is_dial() => HURRIED_DIAL,
            _ if hurried => HURRIED,
            _ => self.options.probe_interval,
        };
        if let Some(node) = self.nodes.get_mut(id.index()) {
            node.schedule.finish(now, pause.min(self.options.probe_interval));
        }
    }

    /// Whether clients wait and there is no primary.
    pub(super) fn is_hurried(&self, now: Instant) -> bool {
        let waited_for = self.waiters_until.is_some_and(|until| now < until);
        waited_for && (self.suspected.is_some() || !self.has_writer())
    }
}
