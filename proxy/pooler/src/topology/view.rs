//! What the workers act on.

use std::fmt;
use std::sync::Arc;

use pgimbal_config::Host;

use super::freshness::Freshness;
use super::position::{SystemId, TimelineId};

/// Identifies a node of a cluster: its index in [`View::nodes`], from 0. A number never stands for
/// another node later. A cluster has at most 4096 in the life of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub u16);

impl NodeId {
    /// Returns the node's index in [`View::nodes`]; every view since the node was listed has it.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// A node on one timeline of one cluster's data: what a server connection of a cluster leads to. A
/// transaction that begins on a connection of one epoch never continues on a connection of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Epoch {
    /// The system identifier (`pg_control_system()`) of the node's data.
    pub system: SystemId,
    /// The timeline that the node writes or follows, by its report.
    pub timeline: TimelineId,
    /// The node that the connection leads to, or that has reported this timeline.
    pub node: NodeId,
}

/// A cluster at one moment: what the workers act on. It is never modified: each change publishes a
/// new one with a higher version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// Grows by one with each change of the cluster; 0 before the first.
    pub version: u64,
    /// Every node that was ever listed, at the index of its id; those that are not listed any more
    /// are [`NodeState::Removed`]. Empty before a worker has its first view.
    pub nodes: Vec<NodeView>,
    /// Which node writes go to, or why they go to none: clients wait, or are refused.
    pub writes: Writes,
}

/// Where the transactions go that are not sent to a replica: all that may write, and most that
/// read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Writes {
    /// To the node of this epoch. Server connections that were used for writes and lead to another
    /// node, or to other data, are cut; pools that lead to the primary open new ones here.
    To(Epoch),
    /// To no node for now: clients wait, for `failover_hold` at most; server connections in use
    /// stay as they are.
    Held(HoldReason),
    /// To no node until a person has put the cluster right: several servers have confirmed that
    /// they are primary on one timeline, or nothing says which of the nodes' system identifiers is
    /// the cluster's. Clients get an error with this text (SQLSTATE 57P03), and server connections
    /// that were used for writes are cut.
    Refused(Arc<str>),
}

/// Why writes go to no node for now, so that clients wait; shown on the console and in errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HoldReason {
    /// The primary is not known yet: not every node has answered or failed a probe since the start.
    Unknown,
    /// No node is a primary that may be written to, and none of the more exact reasons below is
    /// known.
    NoPrimary,
    /// The last primary does not answer the prober, and no other node may be written to.
    Unreachable,
    /// The last primary has become a standby, and no other node may be written to.
    Demoted,
    /// Two or more servers seem to be primary on one timeline; each is probed again before writes
    /// are refused.
    Doubtful,
    /// This node is a primary on an older timeline than was seen before, and no node is known to
    /// have the newer one. An operator may adopt it.
    OlderTimeline(NodeId),
    /// Every node that answers, and this primary is one of them, has another system identifier than
    /// was seen before. An operator may adopt this node.
    OtherCluster(NodeId),
    /// An operator said HOLD on the console; RESUME ends it.
    Operator,
}

impl HoldReason {
    /// Returns the reason in English words, as a part of a sentence: without a capital and a full
    /// stop.
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
    /// Returns the node that an operator may adopt (ADOPT NODE) to end the hold: that of
    /// [`Self::OlderTimeline`] or [`Self::OtherCluster`]. `None` for every other reason: adopting a
    /// node does not end it.
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

/// A node of a cluster at one moment: where it is, what it is taken for, and its last report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeView {
    /// The node's id: its index in [`View::nodes`], which never changes while the process lives.
    pub id: NodeId,
    /// The node's name in the configuration, or its address when it comes from a DNS name.
    pub name: Box<str>,
    /// The host to connect to: a host name or IP address, or the directory of a Unix socket.
    pub host: Host,
    /// The TCP port, or the number in the name of a Unix socket.
    pub port: u16,
    /// What the node is taken for, by its last probe and by what other nodes have reported.
    pub state: NodeState,
    /// The system identifier and timeline of the node's last report, also while it does not answer
    /// any more; `None` before the first report.
    pub epoch: Option<Epoch>,
    /// Whether writes may go to the node when it is a primary (`candidate` in the configuration).
    pub candidate: bool,
    /// Its share of the reads, and where it stands.
    pub placement: Placement,
    /// How fresh the node is; `None` for one that is no standby on the primary's timeline, and
    /// until a primary on that timeline has been seen.
    pub freshness: Option<Freshness>,
}

/// A node's share of the reads, and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Its share beside the other replicas' weights, at least 1 (`weight` in the configuration).
    pub weight: u32,
    /// The zone that it stands in (`zone` in the configuration); `None` for none.
    pub zone: Option<Box<str>>,
}

impl Default for Placement {
    /// A weight of 1, in no zone.
    fn default() -> Self {
        Self { weight: 1, zone: None }
    }
}

/// What a node is taken for, by its last probes and by what other nodes have reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeState {
    /// The node has not answered yet, or the cluster's system identifier is not known yet.
    Unknown,
    /// The node accepts writes; [`View::writes`] says whether they go there.
    Primary,
    /// A standby that may be read from: on the cluster's timeline, and not too far behind.
    Replica,
    /// A standby that may not be read from: further behind than `replica_max_lag` or
    /// `replica_max_lag_bytes`, not on the primary's timeline, or, where one of these limits is
    /// set, without a known position of the primary to compare with.
    Lagging,
    /// The node answers probes with an error ([`ProbeFailure::ProbeRefused`]), so that its role is
    /// not known.
    ///
    /// [`ProbeFailure::ProbeRefused`]: super::ProbeFailure::ProbeRefused
    ProbeRefused,
    /// The last probe of the node has failed: no connection, no answer in time, or one that makes
    /// no sense.
    Down,
    /// The node was or is a primary of an older timeline, or the operator has adopted another node;
    /// it has not joined the cluster's history since. It is neither read from nor written to.
    Quarantined,
    /// The node has another system identifier than the cluster: its data is not the cluster's.
    Foreign,
    /// The node is not listed any more by the configuration or the DNS name: its server connections
    /// are cut.
    Removed,
}

impl NodeState {
    /// Returns the word that the console and the metrics show, such as `primary`, in lower case.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Primary => "primary",
            Self::Replica => "replica",
            Self::Lagging => "lagging",
            Self::ProbeRefused => "probe_refused",
            Self::Down => "down",
            Self::Quarantined => "quarantined",
            Self::Foreign => "foreign",
            Self::Removed => "removed",
        }
    }

    /// Returns the word that metrics show beside [`Self::word`] in this version, because earlier
    /// ones showed only that: `unjudged` for [`Self::ProbeRefused`]. `None` for every other state,
    /// whose word has not changed.
    #[must_use]
    pub fn old_word(self) -> Option<&'static str> {
        (self == Self::ProbeRefused).then_some("unjudged")
    }
}

impl View {
    /// Returns the node of this id; `None` if the view has none.
    #[must_use]
    pub fn node(&self, id: NodeId) -> Option<&NodeView> {
        self.nodes.get(id.index())
    }

    /// Returns the epoch that writes go to; `None` while they are held or refused
    /// ([`Self::writes`]).
    #[must_use]
    pub const fn primary(&self) -> Option<Epoch> {
        match self.writes {
            Writes::To(epoch) => Some(epoch),
            Writes::Held(_) | Writes::Refused(_) => None,
        }
    }
}
