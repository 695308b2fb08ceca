//! What happened, for the log.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use pgimbal_wire::error::SqlState;

use super::position::{SystemId, TimelineId};
use super::view::HoldReason;

/// Something that happened in a cluster; its [`Display`](fmt::Display) is the line of the log.
/// Nodes are given by their names, timelines and identifiers by their numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the text of each says it, and the fields are its words")]
pub enum Event {
    /// A primary was found for the first time since the start: writes go to `node`, on `timeline`.
    Found { node: Box<str>, timeline: TimelineId },
    /// Writes do not go to the primary `node` any more: it does not answer, is not a primary any
    /// more, or is not the only one. `why` is the reason in words. Not logged for an operator's
    /// HOLD.
    Lost { node: Box<str>, why: Box<str> },
    /// Clients that want to write wait from now on, for `reason`: writes go to no node.
    Holding { reason: HoldReason },
    /// A standby, `node`, was promoted: its last report was that of a primary, on `timeline`.
    Promoted { node: Box<str>, timeline: TimelineId },
    /// Writes go to another epoch, mostly on another node: from node `from` to node `to`, on
    /// `timeline`. `lasted` is how long they went to no node; zero if there was no interruption.
    Switched { from: Box<str>, to: Box<str>, timeline: TimelineId, lasted: Duration },
    /// Writes go to the same epoch as before, on `node`; `lasted` is how long they went to no node.
    Resumed { node: Box<str>, lasted: Duration },
    /// A node is used neither for writes nor for reads until it joins the cluster's history; `why`
    /// is the reason in words.
    Quarantined { node: Box<str>, why: Box<str> },
    /// A node that was quarantined, foreign or rejected has joined the cluster's history, so that
    /// it may be read from again.
    Rejoined { node: Box<str> },
    /// Several servers, `nodes`, are primary on one timeline, and have confirmed it in a second
    /// probe: writes are refused. `timeline` is `None` if it is not known any more.
    SplitBrain { nodes: Vec<Box<str>>, timeline: Option<TimelineId> },
    /// Fewer than two servers are primary again, after [`Self::SplitBrain`].
    SplitBrainOver,
    /// A node has another system identifier than the cluster and is not used; `why` has both.
    Foreign { node: Box<str>, why: Box<str> },
    /// An operator has made the history of `node` the cluster's, with ADOPT NODE: `system` and
    /// `timeline` are the cluster's from now on.
    Adopted { node: Box<str>, system: SystemId, timeline: TimelineId },
    /// An operator has adopted a node at another replica of pgimbal, or before the start: `system`
    /// and `timeline` are the cluster's from now on.
    AdoptedElsewhere { system: SystemId, timeline: TimelineId },
    /// An operator has said RESUME, which ended a HOLD.
    HoldEnded,
    /// A probe of `node` has failed, and the one before had not; `why` is the reason in words.
    Silent { node: Box<str>, why: Box<str> },
    /// A probe of `node` was answered, and the one before had failed ([`Self::Silent`]).
    Answers { node: Box<str> },
    /// The server of `node` answers probes with an error of this SQLSTATE, and did not before.
    ProbeRefused { node: Box<str>, code: SqlState },
    /// A standby may not be read from any more, because it is too far behind or on another
    /// timeline; `why` is the reason in words.
    LeftOut { node: Box<str>, why: Box<str> },
    /// A standby may be read from again: it is on the cluster's timeline and not too far behind.
    CaughtUp { node: Box<str> },
    /// A node is listed, by the configuration or the DNS name, that was not before: it is probed at
    /// once.
    Added { node: Box<str> },
    /// A node is not listed any more, by the configuration or the DNS name: its server connections
    /// are cut.
    Removed { node: Box<str> },
}

impl Event {
    /// Whether an operator should look at the event: such events are logged as warnings, the others
    /// as information. They are [`Self::Lost`], [`Self::Holding`], [`Self::Quarantined`],
    /// [`Self::Foreign`], [`Self::SplitBrain`], [`Self::Silent`] and [`Self::ProbeRefused`].
    #[must_use]
    pub const fn is_alarming(&self) -> bool {
        matches!(
            self,
            Self::Lost { .. }
                | Self::Holding { .. }
                | Self::Quarantined { .. }
                | Self::Foreign { .. }
                | Self::SplitBrain { .. }
                | Self::Silent { .. }
                | Self::ProbeRefused { .. }
        )
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Found { node, timeline } => {
                write!(f, "node {node} is the primary, timeline {timeline}")
            }
            Self::Lost { node, why } => write!(f, "primary {node} lost: {why}"),
            Self::Holding { reason } => write!(f, "holding writes: {reason}"),
            Self::Promoted { node, timeline } => {
                write!(f, "candidate seen: node {node} is promoted, timeline {timeline}")
            }
            Self::Switched { from, to, timeline, lasted } => write!(
                f,
                "switched from {from} to {to}, timeline {timeline}, after {} ms",
                lasted.as_millis()
            ),
            Self::Resumed { node, lasted } => {
                write!(f, "primary {node} is back after {} ms", lasted.as_millis())
            }
            Self::Quarantined { node, why } => write!(f, "node {node} is quarantined: {why}"),
            Self::Rejoined { node } => write!(f, "node {node} has rejoined as a replica"),
            Self::SplitBrain { nodes, timeline } => write!(
                f,
                "split brain: {} are primary on timeline {}; writes are refused until one goes away",
                nodes.join(" and "),
                timeline.map_or(0, |timeline| timeline.0)
            ),
            Self::SplitBrainOver => f.write_str("the split brain is over"),
            Self::Foreign { node, why } => {
                write!(f, "node {node} is of another cluster and is refused: {why}")
            }
            Self::Adopted { node, system, timeline } => write!(
                f,
                "node {node} adopted: the cluster is system_identifier {system}, timeline {timeline}"
            ),
            Self::AdoptedElsewhere { system, timeline } => write!(
                f,
                "a node was adopted at another replica: the cluster is system_identifier {system}, \
                 timeline {timeline}"
            ),
            Self::HoldEnded => f.write_str("RESUME: the operator's hold is over"),
            Self::Silent { node, why } => write!(f, "node {node} does not answer: {why}"),
            Self::Answers { node } => write!(f, "node {node} answers"),
            Self::ProbeRefused { node, code } => {
                write!(f, "node {node} lives, but refuses the prober ({code})")
            }
            Self::LeftOut { node, why } => write!(f, "replica {node} is left out: {why}"),
            Self::CaughtUp { node } => write!(f, "replica {node} is read from"),
            Self::Added { node } => write!(f, "node {node} is new"),
            Self::Removed { node } => write!(f, "node {node} is not listed any more"),
        }
    }
}

/// The events that the driver has not taken yet, oldest first.
#[derive(Debug, Default)]
pub(super) struct Events {
    queue: VecDeque<Event>,
}

impl Events {
    /// Adds the newest event.
    pub(super) fn push(&mut self, event: Event) {
        self.queue.push_back(event);
    }

    /// Takes the oldest event.
    pub(super) fn pop(&mut self) -> Option<Event> {
        self.queue.pop_front()
    }

    /// Drops all of them.
    pub(super) fn clear(&mut self) {
        self.queue.clear();
    }
}
