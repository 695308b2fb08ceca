//! A cluster as one worker sees it: whether its pools may hand out server connections, and where
//! they lead.

pub mod consistency;
pub mod decided;
pub mod explain;
pub(crate) mod follow;
pub(crate) mod hold;
pub mod parsing;
pub(crate) mod readers;
pub mod reads;
pub mod route;
pub(crate) mod texts;

use std::ops::{Index, IndexMut};
use std::sync::Arc;
use std::time::{Duration, Instant};

use pgimbal_wire::error::{Report as ErrorReport, SqlState};

use crate::cluster::consistency::Need;
use crate::error::error_body;
use crate::ids::{ClusterId, SessionId};
use crate::pool::{Place, Pool};
use crate::topology::{Epoch, HoldReason, NodeId, NodeState, NodeView, Report, View, Writes};

/// How long no read waits for a replica after one has done so in vain: as often as the nodes are
/// looked at without need.
const AFTER_WAITING_IN_VAIN: Duration = Duration::from_secs(1);

/// A cluster as one worker sees it.
#[derive(Debug)]
pub(crate) struct Cluster {
    name: Box<str>,
    view: Arc<View>,
    /// Since when writes have nowhere to go.
    held_since: Option<Instant>,
    /// When its prober was last told that clients wait.
    hinted_at: Option<Instant>,
    /// When its prober was last told that replicas must be fresher.
    asked_at: Option<Instant>,
    /// Reads that wait for a replica, a session once.
    readers: Vec<Reader>,
    /// When a read last waited for a replica in vain.
    waited_in_vain_at: Option<Instant>,
}

/// A read that waits for a replica which shows what it must.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader {
    /// Whose it is.
    pub(crate) session: SessionId,
    /// What it must show.
    pub(crate) need: Need,
    /// When it waits no more.
    pub(crate) until: Instant,
}

/// Whether a pool may hand out its server connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Gate {
    /// Yes.
    Open,
    /// Not for now: clients wait.
    Held,
    /// No: what clients are told, the body of an ErrorResponse.
    Refused(Arc<[u8]>),
}

/// What a view means to a server connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EpochStatus {
    /// The connection goes on, in this epoch.
    Fits(Epoch),
    /// Where the connection should lead is not known now: it is left alone.
    Unsure,
    /// The connection leads where it must not: not another byte may be forwarded, and it is cut.
    Stale,
}

/// The node of a cluster at which a server connection has arrived, and what the server there said.
/// The driver gives it with `Pooler::handle_dialed`. The connection is closed again if the node or
/// the report is not the one that the pool should lead to. That counts as a failed login, of which
/// no client is told, and the cluster's prober is asked to look at once.
#[derive(Clone, Copy, Debug)]
pub struct DialedNode {
    /// The node whose address was dialed: the one that the pool led to when the attempt began.
    pub node: NodeId,
    /// What the server answered to the prober's question on the new connection: its system
    /// identifier, timeline and role.
    pub report: Report,
}

impl Cluster {
    fn new(name: &str) -> Self {
        let writes = Writes::Held(HoldReason::Unknown);
        let view = Arc::new(View { version: 0, nodes: Vec::new(), writes });
        Self {
            name: name.into(),
            view,
            held_since: None,
            hinted_at: None,
            asked_at: None,
            readers: Vec::new(),
            waited_in_vain_at: None,
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The newest view of it.
    pub(crate) const fn view(&self) -> &Arc<View> {
        &self.view
    }

    /// Puts a view in force, unless a newer one is. Returns whether it was.
    pub(crate) fn set_view(&mut self, view: Arc<View>, now: Instant) -> bool {
        if view.version < self.view.version {
            return false;
        }
        self.held_since = match view.writes {
            Writes::Held(_) => self.held_since.or(Some(now)),
            Writes::To(_) | Writes::Refused(_) => None,
        };
        self.view = view;
        true
    }

    /// Since when writes have nowhere to go; `None` while they have.
    pub(crate) const fn held_since(&self) -> Option<Instant> {
        self.held_since
    }

    /// Whether the prober is to be told (again) that clients wait; notes that it is, at `now`.
    pub(crate) fn may_hint(&mut self, now: Instant, again_after: Duration) -> bool {
        may_again(&mut self.hinted_at, now, again_after)
    }

    /// A read waits for a replica, if its session does not wait already.
    pub(crate) fn add_reader(&mut self, reader: Reader) {
        if !self.readers.iter().any(|known| known.session == reader.session) {
            self.readers.push(reader);
        }
    }

    /// Takes all reads that wait for a replica.
    pub(crate) fn take_readers(&mut self) -> Vec<Reader> {
        std::mem::take(&mut self.readers)
    }

    /// Those of the reads that were taken which go on waiting; none was added meanwhile.
    pub(crate) fn put_readers_back(&mut self, readers: Vec<Reader>) {
        self.readers = readers;
    }

    /// A read has waited for a replica as long as it may.
    pub(crate) const fn note_waited_in_vain(&mut self, now: Instant) {
        self.waited_in_vain_at = Some(now);
    }

    /// Whether the replicas were too far behind just now for a read that has waited: then the next
    /// ones would mostly wait in vain too.
    pub(crate) fn has_just_waited_in_vain(&self, now: Instant) -> bool {
        self.waited_in_vain_at
            .is_some_and(|at| now.saturating_duration_since(at) < AFTER_WAITING_IN_VAIN)
    }

    /// Whether the prober is to be told (again) that replicas must be fresher; notes that it is.
    pub(crate) fn may_ask_for_fresher(&mut self, now: Instant, again_after: Duration) -> bool {
        may_again(&mut self.asked_at, now, again_after)
    }

    /// A node, if the view has it.
    pub(crate) fn node(&self, id: NodeId) -> Option<&NodeView> {
        self.view.nodes.get(id.index())
    }

    /// The node that a pool's new server connections lead to.
    fn destination(&self, place: Place) -> Option<NodeId> {
        match (place, &self.view.writes) {
            (Place::Primary, Writes::To(epoch)) => Some(epoch.node),
            (Place::Primary, _) => None,
            (Place::Node(id), _) => {
                let state = self.node(id)?.state;
                matches!(state, NodeState::Replica | NodeState::Primary).then_some(id)
            }
        }
    }

    fn gate(&self, place: Place) -> Gate {
        match (place, &self.view.writes) {
            (Place::Primary, Writes::To(_)) => Gate::Open,
            (Place::Primary, Writes::Held(_)) => Gate::Held,
            (Place::Primary, Writes::Refused(text)) => Gate::Refused(error_body(
                &ErrorReport::error(SqlState::CANNOT_CONNECT_NOW, text).hint(
                    "An operator must stop one of the nodes; SHOW NODES tells which there are.",
                ),
            )),
            (Place::Node(_), _) => match self.destination(place) {
                Some(_) => Gate::Open,
                None => Gate::Held,
            },
        }
    }

    /// What the view means to a server connection of this epoch, of a pool that leads to `place`.
    /// `started_at_micros` is when the server at its other end was started.
    pub(crate) fn epoch_status(
        &self,
        place: Place,
        epoch: Epoch,
        started_at_micros: i64,
    ) -> EpochStatus {
        let node = self.node(epoch.node);
        // How fresh the node is says nothing about another server, which may show older data.
        let is_another = node
            .and_then(|node| node.freshness.as_ref())
            .is_some_and(|known| known.started_at_micros() != started_at_micros);
        let state = node.map_or(NodeState::Removed, |node| node.state);
        let gone =
            matches!(state, NodeState::Quarantined | NodeState::Foreign | NodeState::Removed);
        match (place, &self.view.writes) {
            _ if gone => EpochStatus::Stale,
            (Place::Primary, Writes::To(now)) => {
                let same = (now.node, now.system) == (epoch.node, epoch.system);
                if same { EpochStatus::Fits(*now) } else { EpochStatus::Stale }
            }
            (Place::Primary, Writes::Held(_)) => EpochStatus::Unsure,
            (Place::Primary, Writes::Refused(_)) => EpochStatus::Stale,
            (Place::Node(_), _) if state == NodeState::Down || is_another => EpochStatus::Stale,
            (Place::Node(_), _) => match node.and_then(|node| node.epoch) {
                Some(now) if now.system == epoch.system => EpochStatus::Fits(now),
                Some(_) => EpochStatus::Stale,
                None => EpochStatus::Unsure,
            },
        }
    }

    /// The epoch of a connection that was just opened; `None` when it leads where it should not.
    fn stamp(&self, place: Place, found: DialedNode) -> Option<Epoch> {
        let Report { system, timeline, started_at_micros, .. } = found.report;
        let epoch = Epoch { system, timeline, node: found.node };
        match (place, &self.view.writes) {
            (Place::Primary, Writes::To(now)) => {
                (epoch == *now && found.report.is_primary()).then_some(epoch)
            }
            (Place::Primary, Writes::Held(_)) => {
                let known = self.node(found.node)?.epoch;
                (known == Some(epoch) && found.report.is_primary()).then_some(epoch)
            }
            (Place::Primary, Writes::Refused(_)) => None,
            (Place::Node(_), _) => {
                let status = self.epoch_status(place, epoch, started_at_micros);
                (status != EpochStatus::Stale).then_some(epoch)
            }
        }
    }
}

/// Whether something that was done at `last` may be done again; notes that it is.
fn may_again(last: &mut Option<Instant>, now: Instant, after: Duration) -> bool {
    let may = last.is_none_or(|last| now.saturating_duration_since(last) >= after);
    if may {
        *last = Some(now);
    }
    may
}

/// The clusters of a worker, numbered as it meets them.
#[derive(Debug, Default)]
pub(crate) struct Clusters {
    list: Vec<Cluster>,
}

impl Clusters {
    /// The cluster of this name, made if the worker has none yet.
    pub(crate) fn named(&mut self, name: &str) -> ClusterId {
        let known = self.list.iter().position(|cluster| &*cluster.name == name);
        let index = known.unwrap_or_else(|| {
            self.list.push(Cluster::new(name));
            self.list.len() - 1
        });
        ClusterId(index as u16)
    }

    /// The cluster of this name, if the worker has met it.
    pub(crate) fn find(&self, name: &str) -> Option<&Cluster> {
        self.list.iter().find(|cluster| &*cluster.name == name)
    }

    /// Those on which a read waits for a replica.
    pub(crate) fn with_readers(&self) -> Vec<ClusterId> {
        let list = self.list.iter().enumerate().filter(|(_, cluster)| !cluster.readers.is_empty());
        list.map(|(index, _)| ClusterId(index as u16)).collect()
    }

    /// Whether a read waits for a replica.
    pub(crate) fn have_readers(&self) -> bool {
        self.list.iter().any(|cluster| !cluster.readers.is_empty())
    }

    /// The cluster that a pool leads to.
    pub(crate) fn of(&self, pool: &Pool) -> Option<&Cluster> {
        pool.cluster().map(|id| &self[id])
    }

    /// The node to which a pool's next server connection leads: `Ok(None)` outside of a cluster,
    /// `Err` when there is none for now.
    pub(crate) fn next_node(&self, pool: &Pool) -> Result<Option<NodeId>, ()> {
        match self.of(pool) {
            None => Ok(None),
            Some(cluster) => cluster.destination(pool.place()).map(Some).ok_or(()),
        }
    }

    /// Whether a pool may hand out its server connections.
    pub(crate) fn gate(&self, pool: &Pool) -> Gate {
        self.of(pool).map_or(Gate::Open, |cluster| cluster.gate(pool.place()))
    }

    /// The epoch of a server connection that was opened for `pool`; `None` when it leads where it
    /// should not.
    pub(crate) fn stamp(&self, pool: &Pool, found: Option<DialedNode>) -> Option<Epoch> {
        self.of(pool)?.stamp(pool.place(), found?)
    }

    /// Whether a server connection may be handed out as far as its epoch, and the start of the
    /// server at its other end, are concerned.
    pub(crate) fn is_current(
        &self,
        pool: &Pool,
        epoch: Option<Epoch>,
        started_at_micros: i64,
    ) -> bool {
        let Some(cluster) = self.of(pool) else { return true };
        epoch.is_some_and(|epoch| {
            let status = cluster.epoch_status(pool.place(), epoch, started_at_micros);
            status != EpochStatus::Stale
        })
    }
}

impl Index<ClusterId> for Clusters {
    type Output = Cluster;

    fn index(&self, id: ClusterId) -> &Cluster {
        &self.list[id.index()]
    }
}

impl IndexMut<ClusterId> for Clusters {
    fn index_mut(&mut self, id: ClusterId) -> &mut Cluster {
        &mut self.list[id.index()]
    }
}
