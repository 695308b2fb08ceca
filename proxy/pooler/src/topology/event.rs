//! What happened, for the log.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use pgimbal_wire::error::SqlState;

use super::position::{SystemId, TimelineId};
use super::view::HoldReason;

/// Something that happened in a cluster; its [`Display`](fmt::Display) is the line of the log. Nodes
/// are given by their names.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the text of each says it, and the fields are its words")]
pub enum Event {
    /// A primary was found for the first time since the start.
    Found { node: Box<str>, timeline: TimelineId },
    /// Writes do not go to the primary any more: it does not answer, is not a primary any more, or
    /// is not the only one.
    Lost { node: Box<str>, why: Box<str> },
    /// Clients that want to write wait from now on.
    Holding { reason: HoldReason },
    /// A standby was promoted.
    Promoted { node: Box<str>, timeline: TimelineId },
    /// Writes go to another epoch, mostly on another node; `lasted` is how long they went to none.
    Switched { from: Box<str>, to: Box<str>, timeline: TimelineId, lasted: Duration },
    /// Writes go to the same epoch as before; `lasted` is how long they went to none.
    Resumed { node: Box<str>, lasted: Duration },
    /// A node is used neither for writes nor for reads until it joins the cluster's history.
    Quarantined { node: Box<str>, why: Box<str> },
    /// A node that was quarantined, foreign or rejected has joined the cluster's history.
    Rejoined { node: Box<str> },
    /// Several servers are primary on one timeline, and have confirmed it.
    SplitBrain { nodes: Vec<Box<str>>, timeline: Option<TimelineId> },
    /// Fewer than two servers are primary again.
    SplitBrainOver,
    /// A node has another system identifier than the cluster.
    Foreign { node: Box<str>, why: Box<str> },
    /// An operator has made a node's history the cluster's.
    Adopted { node: Box<str>, system: SystemId, timeline: TimelineId },
    /// An operator has said RESUME.
    HoldEnded,
    /// A probe has failed, the one before had not.
    Silent { node: Box<str>, why: Box<str> },
    /// A probe was answered, the one before had failed.
    Answers { node: Box<str> },
    /// A node answers probes with this error.
    ProbeRefused { node: Box<str>, code: SqlState },
    /// A standby may not be read from any more.
    LeftOut { node: Box<str>, why: Box<str> },
    /// A standby may be read from again.
    CaughtUp { node: Box<str> },
    /// A node is listed that was not before.
    Added { node: Box<str> },
    /// A node is not listed any more.
    Removed { node: Box<str> },
}

impl Event {
    /// Whether an operator should look at it: such events are logged as warnings.
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
