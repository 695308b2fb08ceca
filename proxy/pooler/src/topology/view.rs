//! What the workers act on.

use std::fmt;
use std::sync::Arc;

use pgimbal_config::Host;

use super::position::{SystemId, TimelineId};

/// The number of a node: its index in [`View::nodes`], from 0. A number never stands for another
/// node later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub u16);

impl NodeId {
    /// Its index in [`View::nodes`].
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// A node on one timeline of one cluster's data. A transaction that begins on a server connection
/// of one epoch never continues on a connection of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Epoch {
    /// The system identifier of the data.
    pub system: SystemId,
    /// The timeline.
    pub timeline: TimelineId,
    /// The node.
    pub node: NodeId,
}

/// A cluster at one moment. It is never modified: each change publishes a new one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// Grows by one with each change; 0 before the first.
    pub version: u64,
    /// Every node that was ever listed, at the index of its id; those that are not listed any more
    /// are [`NodeState::Removed`].
    pub nodes: Vec<NodeView>,
    /// Where writes go.
    pub writes: Writes,
}

/// Where writes go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Writes {
    /// To the node of this epoch. Server connections of any other epoch that were used for writes
    /// are cut.
    To(Epoch),
    /// To no node for now: clients wait, server connections in use stay as they are.
    Held(HoldReason),
    /// To no node until a person has put the cluster right: clients get an error with this text,
    /// and server connections that were used for writes are cut.
    Refused(Arc<str>),
}

/// Why clients wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HoldReason {
    /// Not every node has answered or failed a probe since the start.
    Unknown,
    /// No node is a primary that may be written to.
    NoPrimary,
    /// The primary does not answer.
    Unreachable,
    /// The primary has become a standby.
    Demoted,
    /// Two nodes seem to be primary; both are asked again.
    Doubtful,
    /// This node is a primary on an older timeline than was seen before, and no node is known to
    /// have the newer one.
    OlderTimeline(NodeId),
    /// Every node that answers, and this primary is one of them, has another system identifier
    /// than was seen before.
    OtherCluster(NodeId),
    /// An operator said HOLD.
    Operator,
}

impl HoldReason {
    /// The reason in words, as a part of a sentence.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Unknown => "the primary is not known yet",
            Self::NoPrimary => "no node is a primary that may be written to",
            Self::Unreachable => "the primary does not answer",
            Self::Demoted => "the primary has become a standby",
            Self::Doubtful => "two nodes seem to be primary",
            Self::OlderTimeline(_) => {
                "every primary that answers is on an older timeline than was seen before"
            }
            Self::OtherCluster(_) => {
                "every node that answers has the data of another cluster than was seen before \
                 (state_dir may be another cluster's)"
            }
            Self::Operator => "an operator holds the cluster",
        }
    }
}

impl HoldReason {
    /// The node that an operator may adopt to end the hold; `None` if that does not end it.
    #[must_use]
    pub const fn adoptable(self) -> Option<NodeId> {
        match self {
            Self::OlderTimeline(node) | Self::OtherCluster(node) => Some(node),
            _ => None,
        }
    }
}

impl fmt::Display for HoldReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

/// A node at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeView {
    /// Its id: its index in [`View::nodes`].
    pub id: NodeId,
    /// Its name in the configuration, or its address when it comes from a DNS name.
    pub name: Box<str>,
    /// Its host.
    pub host: Host,
    /// Its port.
    pub port: u16,
    /// What it is taken for.
    pub state: NodeState,
    /// The epoch of its last report, of a primary or a standby; `None` before the first.
    pub epoch: Option<Epoch>,
    /// Whether writes may go to it when it is a primary.
    pub candidate: bool,
}

/// What a node is taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeState {
    /// It has not answered yet, or the cluster's system identifier is not known yet.
    Unknown,
    /// It accepts writes; [`View::writes`] says whether they go there.
    Primary,
    /// A standby that may be read from.
    Replica,
    /// A standby that may not be read from: too far behind, or not on the primary's timeline.
    Lagging,
    /// It answers probes with an error ([`ProbeFailure::ProbeRefused`]).
    ///
    /// [`ProbeFailure::ProbeRefused`]: super::ProbeFailure::ProbeRefused
    ProbeRefused,
    /// Its last probe has failed.
    Down,
    /// It was or is a primary of an older timeline, or the operator has adopted another node; it
    /// has not joined the cluster's history since.
    Quarantined,
    /// It has another system identifier than the cluster.
    Foreign,
    /// It is not listed any more by the configuration or the DNS name: its server connections are
    /// cut.
    Removed,
}

impl NodeState {
    /// The word for the console and the metrics, such as `primary`.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Primary => "primary",
            Self::Replica => "replica",
            Self::Lagging => "lagging",
            Self::ProbeRefused => "unjudged",
            Self::Down => "down",
            Self::Quarantined => "quarantined",
            Self::Foreign => "foreign",
            Self::Removed => "removed",
        }
    }
}

impl View {
    /// The node of this id; `None` if the view has none.
    #[must_use]
    pub fn node(&self, id: NodeId) -> Option<&NodeView> {
        self.nodes.get(id.index())
    }

    /// The epoch that writes go to; `None` while they are held or refused.
    #[must_use]
    pub const fn primary(&self) -> Option<Epoch> {
        match self.writes {
            Writes::To(epoch) => Some(epoch),
            Writes::Held(_) | Writes::Refused(_) => None,
        }
    }

    /// The standbys that may be read from.
    pub fn replicas(&self) -> impl Iterator<Item = &NodeView> {
        self.nodes.iter().filter(|node| node.state == NodeState::Replica)
    }
}
