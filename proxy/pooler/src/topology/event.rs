//! What happened, for the log: a failover's story in order.

use std::fmt;
use std::time::Duration;

use pgimbal_wire::error::SqlState;

use super::position::{SystemId, TimelineId};
use super::view::HoldReason;

/// Something that a person who reads the log wants to know.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the text of each says it, and the fields are its words")]
pub enum Event {
    /// The first primary.
    Found { node: Box<str>, timeline: TimelineId },
    /// The primary is not one any more, or does not answer.
    Lost { node: Box<str>, why: Box<str> },
    /// Clients that want to write wait.
    Holding { reason: HoldReason },
    /// A standby was promoted.
    Promoted { node: Box<str>, timeline: TimelineId },
    /// Writes go to another node.
    Switched { from: Box<str>, to: Box<str>, timeline: TimelineId, lasted: Duration },
    /// Writes go where they went before.
    Resumed { node: Box<str>, lasted: Duration },
    /// A node is kept out.
    Quarantined { node: Box<str>, why: Box<str> },
    /// A node that was kept out is a replica.
    Rejoined { node: Box<str> },
    /// Two primaries.
    SplitBrain { nodes: Vec<Box<str>>, timeline: Option<TimelineId> },
    /// One again.
    SplitBrainOver,
    /// A node of another cluster.
    Foreign { node: Box<str>, why: Box<str> },
    /// The operator chose.
    Adopted { node: Box<str>, system: SystemId, timeline: TimelineId },
    /// The operator said RESUME.
    HoldEnded,
    /// A node does not answer.
    Silent { node: Box<str>, why: Box<str> },
    /// It does again.
    Answers { node: Box<str> },
    /// A node refuses the prober.
    ProbeRefused { node: Box<str>, code: SqlState },
    /// A replica is too far behind.
    LeftOut { node: Box<str>, why: Box<str> },
    /// It is not any more.
    CaughtUp { node: Box<str> },
    /// A node is new.
    Added { node: Box<str> },
    /// A node is gone.
    Removed { node: Box<str> },
}

impl Event {
    /// Whether somebody should look.
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
