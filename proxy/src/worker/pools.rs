//! A worker's pools follow the configuration, their clusters' nodes and their servers' names.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use pgimbal_pooler::ids::PoolId;
use pgimbal_pooler::pool::{Place, Pool, PoolKey};
use pgimbal_pooler::topology::{NodeId, View};

use super::state::{State, session_options};
use crate::dial::{Address, Target};
use crate::directory::PoolDirectory;

/// The pool `key` on this worker, opened if there is none yet, together with the pools of its
/// cluster's nodes. `None` when the configuration does not serve this user on this database.
pub(super) fn open(state: &mut State, key: &PoolKey) -> Option<PoolId> {
    if let Some(id) = state.pooler.find_pool(key) {
        return Some(id);
    }
    let entry = state.directory.pool(key)?;
    let target = Arc::clone(&entry.target);
    let id = state.pooler.pool(key, || (entry.config, entry.shared));
    match state.targets.get_mut(id.index()) {
        // The place of a pool that is gone.
        Some(place) => *place = target,
        None => state.targets.push(target),
    }
    add_replicas(state, id);
    Some(id)
}

/// The target of a pool's server connections: host, port, role, TLS. `None` for an unknown pool.
pub(super) fn target(state: &State, pool: PoolId) -> Option<Arc<Target>> {
    state.targets.get(pool.index()).cloned()
}

/// Tells the directory that this worker no longer has `pool`, as the core has reported.
pub(super) fn forget(state: &State, pool: PoolId) {
    state.directory.release(state.pooler.pool_of(pool).key());
}

/// Applies a cluster's new view: the core routes by it, and nodes that are new get pools.
pub(super) fn follow_cluster(state: &mut State, cluster: &str, view: Arc<View>) {
    state.pooler.handle_view(cluster, view, Instant::now());
    let pools = state.pooler.pools().filter(|pool| pool.place() == Place::Primary);
    let homes: Vec<PoolId> = pools.map(Pool::id).collect();
    for home in homes {
        add_replicas(state, home);
    }
}

/// Retires server connections to addresses that `name` no longer leads to: each ends when it is
/// free. Connections that are still being opened are left alone.
pub(super) fn follow_name(state: &mut State, name: &str, addresses: &[IpAddr]) {
    let mut servers = state.pooler.servers_of_name(name);
    servers.retain(|id| match state.servers.get(*id).map(|io| io.address()) {
        Some(Address::Tcp(address)) => !addresses.contains(&address.ip()),
        // One that is being opened is looked at next time.
        Some(Address::Unix(_)) | None => false,
    });
    state.pooler.retire(servers, Instant::now());
}

/// Applies a reloaded configuration to all pools. A pool that is no longer in it keeps its old
/// options until its clients have left.
pub(super) fn reload(state: &mut State, directory: Arc<PoolDirectory>) {
    let now = Instant::now();
    state.pooler.set_options(session_options(&directory));
    let keys: Vec<(PoolId, PoolKey)> =
        state.pooler.pools().map(|pool| (pool.id(), pool.key().clone())).collect();
    for (id, key) in keys {
        if let Some(entry) = directory.pool(&key) {
            state.targets[id.index()] = entry.target;
            state.pooler.reconfigure(id, entry.config, now);
        }
    }
    state.directory = directory;
}

/// Opens the pools of a cluster's nodes that `home`, the pool of the primary, lacks. A cluster of
/// one node needs none.
fn add_replicas(state: &mut State, home: PoolId) {
    for (node, key) in missing_replicas(state, home) {
        if let Some(replica) = open(state, &PoolKey { place: Place::Node(node), ..key }) {
            state.pooler.add_replica(home, replica);
        }
    }
}

fn missing_replicas(state: &State, home: PoolId) -> Vec<(NodeId, PoolKey)> {
    let pool = state.pooler.pool_of(home);
    let view = pool.config().cluster.as_ref().and_then(|cluster| state.pooler.view(&cluster.name));
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
