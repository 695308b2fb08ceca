//! Two servers that accept writes on the same timeline.

use std::time::Instant;

use super::event::{Event, Events};
use super::nodes::Nodes;
use super::view::NodeId;

/// Whether several servers accept writes, or seem to.
#[derive(Debug, Default)]
pub(super) struct SplitBrain {
    suspected: Option<SuspectedSplitBrain>,
}

/// Several servers have reported that they accept writes.
#[derive(Debug)]
struct SuspectedSplitBrain {
    /// Reports of probes that were sent before may be of two moments.
    since: Instant,
    /// Each of them has confirmed it in a probe that was sent since.
    certain: bool,
}

impl SplitBrain {
    /// Whether several servers seem to accept writes.
    pub(super) const fn is_suspected(&self) -> bool {
        self.suspected.is_some()
    }

    /// Whether all of them have confirmed it.
    pub(super) const fn is_certain(&self) -> bool {
        matches!(self.suspected, Some(SuspectedSplitBrain { certain: true, .. }))
    }

    /// Notes that several servers accept writes (`writers`, a node for each) and makes their next
    /// probes due at once. It is certain once each has confirmed it; an event says so, and says
    /// when it is over.
    pub(super) fn detect(
        &mut self,
        writers: &[NodeId],
        nodes: &mut Nodes,
        events: &mut Events,
        now: Instant,
    ) {
        if writers.len() < 2 {
            if self.suspected.take().is_some_and(|suspected| suspected.certain) {
                events.push(Event::SplitBrainOver);
            }
            return;
        }
        let suspected = self.suspected.get_or_insert_with(|| {
            for id in writers {
                nodes.expedite(*id, now);
            }
            SuspectedSplitBrain { since: now, certain: false }
        });
        if suspected.certain {
            return;
        }
        suspected.certain = writers
            .iter()
            .all(|id| nodes[*id].last_report().is_some_and(|last| last.sent_at >= suspected.since));
        if suspected.certain {
            let names = writers.iter().map(|id| nodes.name(*id)).collect();
            let timeline = nodes[writers[0]].current().map(|report| report.timeline);
            events.push(Event::SplitBrain { nodes: names, timeline });
        }
    }
}
