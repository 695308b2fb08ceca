//! A cluster as one worker sees it: whether its pools may hand out server connections, where they
//! lead, and which of them a new view cuts.

mod hold;
pub mod route;

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use pgimbal_wire::error::{Report as ErrorReport, SqlState};

use crate::ids::{ClusterId, PoolId, ServerId};
use crate::pool::{Place, Pool};
use crate::pooler::{Action, Pooler, error_body};
use crate::server::ServerState;
use crate::topology::{
    Epoch, HoldReason, NodeId, NodeState, NodeView, ProbeHint, Report, View, Writes,
};

/// A cluster as one worker sees it.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) name: Box<str>,
    pub(crate) view: Arc<View>,
    /// Since when writes have nowhere to go.
    pub(crate) held_since: Option<Instant>,
    /// When its prober was last told that clients wait.
    pub(crate) nudged_at: Option<Instant>,
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
enum EpochStatus {
    /// It goes on, in this epoch.
    Fits(Epoch),
    /// It is left alone.
    Unsure,
    /// Not another byte may be forwarded.
    Stale,
}

/// Where a server connection of a cluster leads to.
#[derive(Clone, Copy, Debug)]
pub struct DialedNode {
    /// The node that was dialed.
    pub node: NodeId,
    /// What the server there said of itself.
    pub report: Report,
}

impl Cluster {
    fn new(name: &str) -> Self {
        let writes = Writes::Held(HoldReason::Unknown);
        let view = Arc::new(View { version: 0, nodes: Vec::new(), writes });
        Self { name: name.into(), view, held_since: None, nudged_at: None }
    }

    pub(crate) fn node(&self, id: NodeId) -> Option<&NodeView> {
        self.view.nodes.get(id.index())
    }

    /// Whether a node may be read from.
    pub(crate) fn is_readable(&self, id: NodeId) -> bool {
        self.node(id).is_some_and(|node| node.state == NodeState::Replica)
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

    fn standing(&self, place: Place, epoch: Epoch) -> EpochStatus {
        let node = self.node(epoch.node);
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
            (Place::Node(_), _) if state == NodeState::Down => EpochStatus::Stale,
            (Place::Node(_), _) => match node.and_then(|node| node.epoch) {
                Some(now) if now.system == epoch.system => EpochStatus::Fits(now),
                Some(_) => EpochStatus::Stale,
                None => EpochStatus::Unsure,
            },
        }
    }

    /// The epoch of a connection that was just opened; `None` when it leads where it should not.
    fn stamp(&self, place: Place, found: DialedNode) -> Option<Epoch> {
        let Report { system, timeline, .. } = found.report;
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
                (self.standing(place, epoch) != EpochStatus::Stale).then_some(epoch)
            }
        }
    }
}

impl Pooler {
    /// The cluster of this name, made if this worker has none yet.
    pub(crate) fn cluster_named(&mut self, name: &str) -> ClusterId {
        let known = self.clusters.iter().position(|cluster| &*cluster.name == name);
        let index = known.unwrap_or_else(|| {
            self.clusters.push(Cluster::new(name));
            self.clusters.len() - 1
        });
        ClusterId(index as u16)
    }

    /// A cluster's name.
    #[must_use]
    pub fn cluster_name(&self, id: ClusterId) -> &str {
        &self.clusters[id.index()].name
    }

    /// What this worker knows of the cluster of this name.
    #[must_use]
    pub fn view(&self, name: &str) -> Option<&Arc<View>> {
        self.clusters.iter().find(|cluster| &*cluster.name == name).map(|cluster| &cluster.view)
    }

    /// A cluster has changed. Server connections that lead where they should not are cut before
    /// another byte is forwarded; who waits is served, sent elsewhere or refused.
    pub fn set_view(&mut self, name: &str, view: Arc<View>, now: Instant) {
        let id = self.cluster_named(name);
        let cluster = &mut self.clusters[id.index()];
        if view.version < cluster.view.version {
            return;
        }
        cluster.held_since = match view.writes {
            Writes::Held(_) => cluster.held_since.or(Some(now)),
            Writes::To(_) | Writes::Refused(_) => None,
        };
        cluster.view = view;
        self.evaluate_servers(id);
        let pools = self.pools.iter().filter(|pool| pool.cluster == Some(id));
        for pool in pools.map(|pool| pool.id).collect::<Vec<_>>() {
            self.follow(pool, now);
        }
    }

    /// The node that `server` leads to; `None` outside of a cluster.
    #[must_use]
    pub fn destination(&self, server: ServerId) -> Option<&NodeView> {
        let server = self.server(server)?;
        let cluster = &self.clusters[self.pools[server.pool.index()].cluster?.index()];
        cluster.node(server.node?)
    }

    /// The node to which a pool's next server connection leads; `Err` when there is none for now.
    pub(crate) fn next_node(&self, pool: &Pool) -> Result<Option<NodeId>, ()> {
        match pool.cluster {
            None => Ok(None),
            Some(id) => self.clusters[id.index()].destination(pool.key.place).map(Some).ok_or(()),
        }
    }

    /// Whether a pool may hand out its server connections.
    pub(crate) fn gate(&self, pool: &Pool) -> Gate {
        match pool.cluster {
            None => Gate::Open,
            Some(cluster) => self.clusters[cluster.index()].gate(pool.key.place),
        }
    }

    /// The epoch of a server connection that was opened for `pool`.
    pub(crate) fn stamp(&self, pool: &Pool, found: Option<DialedNode>) -> Option<Epoch> {
        self.clusters[pool.cluster?.index()].stamp(pool.key.place, found?)
    }

    /// Whether a server connection may be handed out as far as its epoch is concerned.
    pub(crate) fn is_current(&self, pool: &Pool, epoch: Option<Epoch>) -> bool {
        let Some(cluster) = pool.cluster else { return true };
        epoch.is_some_and(|epoch| {
            let standing = self.clusters[cluster.index()].standing(pool.key.place, epoch);
            standing != EpochStatus::Stale
        })
    }

    /// Asks the prober of a pool's cluster for a look.
    pub(crate) fn probe_hint(&mut self, pool: PoolId, probe_hint: ProbeHint) {
        if let Some(cluster) = self.pools[pool.index()].cluster {
            self.actions.push(Action::ProbeHint(cluster, probe_hint));
        }
    }

    /// Stamps or cuts the server connections of a cluster.
    fn evaluate_servers(&mut self, id: ClusterId) {
        let cluster = &self.clusters[id.index()];
        let mut stale = Vec::new();
        for (_, server) in &mut self.servers {
            let pool = &self.pools[server.pool.index()];
            let Some(epoch) = server.epoch.filter(|_| pool.cluster == Some(id)) else { continue };
            match cluster.standing(pool.key.place, epoch) {
                EpochStatus::Fits(now) => server.epoch = Some(now),
                EpochStatus::Unsure => {}
                EpochStatus::Stale => stale.push(server.id),
            }
        }
        for server in stale {
            self.cut(server);
        }
    }

    /// Ends a server connection without a good-bye: it leads where nothing may go any more.
    fn cut(&mut self, id: ServerId) {
        let Some(server) = self.servers.get_mut(id.index()).filter(|server| server.id == id) else {
            return;
        };
        // Its end tells nobody anything new.
        server.epoch = None;
        if matches!(server.state, ServerState::Idle(_)) {
            let pool = &mut self.pools[server.pool.index()];
            pool.idle.retain(|idle| *idle != id);
            pool.publish_idle(self.worker);
        }
        if server.state != ServerState::Closing {
            self.actions.push(Action::Cut(id));
        }
    }

    /// Those who wait for a pool follow the new view.
    fn follow(&mut self, id: PoolId, now: Instant) {
        match self.gate(&self.pools[id.index()]) {
            Gate::Open => {
                let pool = &mut self.pools[id.index()];
                pool.left_out_until = None;
                pool.shared.forget_failure();
                self.serve_waiters(id, now);
                self.dial_if_wanted(id, now);
            }
            Gate::Held => {
                if matches!(self.pools[id.index()].key.place, Place::Node(_)) {
                    self.send_elsewhere(id);
                }
            }
            Gate::Refused(error) => {
                let waiters = std::mem::take(&mut self.pools[id.index()].waiters);
                for waiter in waiters {
                    self.refuse_waiter(waiter.session, &error);
                    self.count_failed(id);
                }
            }
        }
    }

    /// Those who wait for a node that cannot serve them ask again, for another one.
    pub(crate) fn send_elsewhere(&mut self, id: PoolId) {
        self.wake_logins(id);
        for waiter in std::mem::take(&mut self.pools[id.index()].waiters) {
            if self.still_waits(waiter) {
                self.stop_waiting(waiter.session);
                self.wake(waiter.session);
            }
        }
    }

    /// A statement of a cluster's client could not be hidden from what happened.
    pub(crate) fn count_failed(&self, pool: PoolId) {
        if let Some(shared) = &self.pools[pool.index()].shared.cluster {
            shared.failed.fetch_add(1, Relaxed);
        }
    }
}
