//! A cluster before the core: views of it, nodes that die, and where connections lead.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use pgimbal_config::{Host, ReadConsistency, Route};
use pgimbal_pooler::cluster::DialedNode;
use pgimbal_pooler::ids::ServerId;
use pgimbal_pooler::pool::shared::{SharedCluster, SharedPool};
use pgimbal_pooler::pool::{Place, PoolKey};
use pgimbal_pooler::topology::{
    Epoch, HoldReason, Lsn, NodeId, NodeState, NodeView, Placement, Report, Role, SystemId,
    TimelineId, View, Writes,
};

use super::{PeerStage, World, resolved};

/// Who is primary in a run that a seed decides.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Leadership {
    node: usize,
    timeline: u32,
    version: u64,
    /// The primary is dead, and nobody has taken its place.
    vacant: bool,
}

impl World {
    /// The primary dies, or another node takes its place.
    pub(crate) fn leadership_changes(&mut self) -> bool {
        let Leadership { node, vacant, .. } = self.leadership;
        self.leadership.version += 1;
        if vacant {
            self.leadership.node = 1 - node;
            self.leadership.timeline += 1;
            self.leadership.vacant = false;
            self.dead.retain(|dead| usize::from(dead.0) != 1 - node);
            self.see(self.view_of_reign());
            return true;
        }
        if self.random.chance(70) {
            return false;
        }
        self.leadership.vacant = true;
        // Sometimes the view comes first, sometimes the end of the connections.
        if self.random.chance(50) {
            self.see(self.view_of_reign());
            self.kill_node(NodeId(node as u16));
        } else {
            self.kill_node(NodeId(node as u16));
            self.see(self.view_of_reign());
        }
        true
    }

    /// A leadership that is vacant does not stay so for ever.
    pub(crate) fn ends_vacancy(&mut self) -> bool {
        self.leadership.vacant && self.leadership_changes()
    }

    fn view_of_reign(&self) -> Arc<View> {
        let Leadership { node: primary, timeline, version, vacant } = self.leadership;
        let epoch = |node: usize| Epoch {
            system: SystemId(7),
            timeline: TimelineId(timeline + 1),
            node: NodeId(node as u16),
        };
        let node = |index: usize| NodeView {
            id: NodeId(index as u16),
            name: format!("n{index}").into(),
            host: Host::Tcp("localhost".into()),
            port: 1,
            state: match (index == primary, vacant) {
                (true, true) => NodeState::Down,
                (true, false) => NodeState::Primary,
                (false, _) => NodeState::Replica,
            },
            epoch: Some(epoch(index)),
            candidate: true,
            placement: Placement::default(),
            freshness: None,
        };
        let writes = match vacant {
            true => Writes::Held(HoldReason::Unreachable),
            false => Writes::To(epoch(primary)),
        };
        Arc::new(View { version: version + 1, nodes: vec![node(0), node(1)], writes })
    }
}

impl World {
    /// A new view of the cluster reaches the workers.
    pub(crate) fn see(&mut self, view: Arc<View>) {
        for worker in 0..self.poolers.len() {
            self.poolers[worker].handle_view("main", Arc::clone(&view), self.now);
            self.take_actions(worker);
        }
    }

    /// Every connection to a node ends without a word, and no other is let in.
    pub(crate) fn kill_node(&mut self, node: NodeId) {
        self.dead.push(node);
        for at in 0..self.peers.len() {
            if self.peers[at].found.is_some_and(|found| found.node == node)
                && self.peers[at].stage == PeerStage::Open
            {
                self.peers[at].backend.output.clear();
                self.peers[at].backend.die(None);
                self.peers[at].down.clear();
                self.server_ends(at);
            }
        }
    }

    /// The node that the server connection leads to which was used last.
    pub(crate) fn node_of_last(&self) -> Option<NodeId> {
        let used = self.peers.iter().rev().find(|peer| peer.stage == PeerStage::Open)?;
        used.found.map(|found| found.node)
    }

    /// How many statements were run again.
    pub(crate) fn rerun(&self) -> u64 {
        self.shared.cluster.as_ref().map_or(0, |cluster| cluster.rerun.load(Relaxed))
    }

    /// How often a client was or will be told an error because of a node's end.
    pub(crate) fn failed(&self) -> u64 {
        self.shared.cluster.as_ref().map_or(0, |cluster| cluster.failed.load(Relaxed))
    }

    /// The operator sends this pool's clients elsewhere.
    pub(crate) fn set_route(&mut self, route: Route) {
        self.set_reads(route, ReadConsistency::Session);
    }

    /// The same, with what their reads must show.
    pub(crate) fn set_reads(&mut self, route: Route, consistency: ReadConsistency) {
        let mut config = resolved(&self.shape);
        config.route = route;
        config.read_consistency = consistency;
        let config = Arc::new(config);
        for pooler in &mut self.poolers {
            pooler.reconfigure(self.pool, Arc::clone(&config), self.now);
        }
    }

    /// How many pools may each have as many server connections as the configuration says.
    pub(crate) fn places(&self) -> u32 {
        if self.shape.cluster.is_some() { 3 } else { 1 }
    }

    /// Where a server connection that is being opened would lead to.
    pub(crate) fn would_find(&self, worker: usize, id: ServerId) -> Option<DialedNode> {
        let node = self.poolers[worker].destination(id)?;
        if let Some(nodes) = &self.nodes {
            return Some(DialedNode {
                node: node.id,
                report: nodes.borrow().report(node.id.index()),
            });
        }
        let writes = &self.poolers[worker].view("main")?.writes;
        let is_primary = matches!(writes, Writes::To(epoch) if epoch.node == node.id);
        let role = match is_primary {
            true => Role::Primary { insert: Lsn(1), flush: Lsn(1) },
            false => Role::Standby { replay: Lsn(1), paused: false },
        };
        let timeline = node.epoch.map_or(TimelineId(1), |epoch| epoch.timeline);
        let report = Report {
            system: SystemId(7),
            timeline,
            role,
            server_version: 150_000,
            started_at_micros: 0,
        };
        Some(DialedNode { node: node.id, report })
    }

    /// A new view of the cluster reaches one worker.
    pub(crate) fn see_at(&mut self, worker: usize, view: Arc<View>) {
        self.poolers[worker].handle_view("main", view, self.now);
        self.take_actions(worker);
    }

    /// The pools of a cluster's nodes.
    pub(super) fn add_replicas(&mut self) {
        self.add_pools([NodeId(0), NodeId(1)]);
        self.see(self.view_of_reign());
    }

    /// The pools of further nodes.
    pub(crate) fn add_pools(&mut self, nodes: impl IntoIterator<Item = NodeId>) {
        let config = Arc::new(resolved(&self.shape));
        for node in nodes {
            let key =
                PoolKey { database: "db".into(), user: "user".into(), place: Place::Node(node) };
            let shared = SharedPool::new(self.poolers.len(), Arc::default(), Arc::default());
            let shared = Arc::new(shared.of_cluster(self.cluster_counts()));
            for pooler in &mut self.poolers {
                let pool = pooler.pool(&key, || (Arc::clone(&config), Arc::clone(&shared)));
                pooler.add_replica(self.pool, pool);
            }
        }
    }

    fn cluster_counts(&self) -> Arc<SharedCluster> {
        self.shared.cluster.clone().unwrap_or_default()
    }
}
