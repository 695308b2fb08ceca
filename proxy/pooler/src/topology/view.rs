//! What the workers act on.

use std::fmt;
use std::sync::Arc;

use pgimbal_config::Host;

use super::position::{SystemId, TimelineId};

/// A node of a cluster, by its place in [`View::nodes`]. A number never stands for another node
/// later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub u16);

impl NodeId {
    /// Its place in [`View::nodes`].
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// A node's stay on a timeline. Whatever begins on a server connection of one epoch never goes on
/// on a connection of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Epoch {
    /// Whose data it is.
    pub system: SystemId,
    /// The timeline.
    pub timeline: TimelineId,
    /// The node.
    pub node: NodeId,
}

/// A cluster at one moment; never changed, a new one is published for each change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// Grows with each change.
    pub version: u64,
    /// Every node that ever belonged to the cluster; a node's id is its index.
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
    /// Nowhere for now: clients wait. What is linked is left alone.
    Held(HoldReason),
    /// Nowhere until an operator has chosen: what clients are told.
    Refused(Arc<str>),
}

/// Why clients wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HoldReason {
    /// Not every node has been asked since the start.
    Unknown,
    /// No node is a primary that may be written to.
    NoPrimary,
    /// The primary does not answer.
    Unreachable,
    /// The primary has become a standby.
    Demoted,
    /// Two nodes seem to be primary; both are asked again.
    Doubtful,
    /// The primary that there is, this node, is on an older timeline than was seen before, and no
    /// node is known to have the newer one.
    OlderTimeline(NodeId),
    /// Every node that answers, this primary too, has the data of another cluster than was seen
    /// before.
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
    /// The node that an operator may adopt, if that is the way out.
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
    /// Its number.
    pub id: NodeId,
    /// Its name in the configuration, or its address when it comes from a DNS name.
    pub name: Box<str>,
    /// Where it is.
    pub host: Host,
    /// Its port.
    pub port: u16,
    /// What it is.
    pub state: NodeState,
    /// The epoch that it was last seen in; a standby's too.
    pub epoch: Option<Epoch>,
    /// Whether it may ever be written to.
    pub candidate: bool,
}

/// What a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeState {
    /// It has not answered yet.
    Unknown,
    /// It accepts writes. Whether they go there says [`View::writes`].
    Primary,
    /// A standby that may be read from.
    Replica,
    /// A standby that may not be read from: too far behind, or not on the primary's timeline.
    Lagging,
    /// It lives, but the prober may not look.
    ProbeRefused,
    /// It does not answer.
    Down,
    /// It was or is a primary of an older timeline, and has not joined the new one.
    Quarantined,
    /// Its data is another cluster's.
    Foreign,
    /// It is not in the configuration, or under the DNS name, any more: it drains.
    Removed,
}

impl NodeState {
    /// The word for tables and metrics.
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
    /// A node.
    #[must_use]
    pub fn node(&self, id: NodeId) -> Option<&NodeView> {
        self.nodes.get(id.index())
    }

    /// The epoch that is written to.
    #[must_use]
    pub const fn primary(&self) -> Option<Epoch> {
        match self.writes {
            Writes::To(epoch) => Some(epoch),
            Writes::Held(_) | Writes::Refused(_) => None,
        }
    }

    /// The nodes that may be read from, the primary not among them.
    pub fn replicas(&self) -> impl Iterator<Item = &NodeView> {
        self.nodes.iter().filter(|node| node.state == NodeState::Replica)
    }
}
