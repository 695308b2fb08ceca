//! A worker and the clusters that its pools lead to: new views, replica pools, connections that
//! are cut.

use std::sync::Arc;
use std::time::Instant;

use pgimbal_pooler::ids::{ClusterId, PoolId, ServerId};
use pgimbal_pooler::pool::{Place, Pool, PoolKey};
use pgimbal_pooler::topology::{NodeId, ProbeHint, View};

use super::Worker;

impl Worker {
    /// A cluster has changed.
    pub(super) fn follow(&self, cluster: &str, view: Arc<View>) {
        self.state.borrow_mut().pooler.handle_view(cluster, view, Instant::now());
        let homes: Vec<PoolId> = {
            let state = self.state.borrow();
            let pools = state.pooler.pools();
            pools.filter(|pool| pool.place() == Place::Primary).map(Pool::id).collect()
        };
        for home in homes {
            self.add_replicas(home);
        }
    }

    /// Makes the pools of a cluster's nodes beside the one that leads to its primary. A cluster of
    /// one node needs none.
    pub(super) fn add_replicas(&self, home: PoolId) {
        for (node, key) in self.missing_replicas(home) {
            if let Some(replica) = self.pool(&PoolKey { place: Place::Node(node), ..key }) {
                self.state.borrow_mut().pooler.add_replica(home, replica);
            }
        }
    }

    fn missing_replicas(&self, home: PoolId) -> Vec<(NodeId, PoolKey)> {
        let state = self.state.borrow();
        let pool = state.pooler.pool_of(home);
        let view =
            pool.config().cluster.as_ref().and_then(|cluster| state.pooler.view(&cluster.name));
        let Some(view) = view.filter(|view| view.nodes.len() > 1) else { return Vec::new() };
        if pool.place() != Place::Primary {
            return Vec::new();
        }
        let nodes = view.nodes.iter().map(|node| node.id);
        nodes
            .filter(|node| !state.pooler.has_replica(home, *node))
            .map(|node| (node, pool.key().clone()))
            .collect()
    }

    /// Closes a server connection's socket at once. Its client, if it has one, is told in a turn
    /// of its own.
    pub(super) fn cut(&self, server: ServerId) {
        let mut state = self.state.borrow_mut();
        state.servers.drop_io(server);
        match state.pooler.server(server).and_then(|server| server.session()) {
            Some(session) => state.wake(session),
            None => {
                let state = &mut *state;
                state.plan.clear();
                // Nobody is linked to it, so nobody is told.
                let _ = state.pooler.handle_server_gone(server, Instant::now(), &mut state.plan);
            }
        }
    }

    /// Lets a cluster's prober look.
    pub(super) fn probe_hint(&self, cluster: ClusterId, probe_hint: ProbeHint) {
        let state = self.state.borrow();
        self.common.clusters.probe_hint(state.pooler.cluster_name(cluster), probe_hint);
    }
}
