//! What a new view of a cluster means to a worker's server connections and to those who wait.

use std::sync::Arc;
use std::time::Instant;

use super::{EpochStatus, Gate};
use crate::action::Action;
use crate::core::Core;
use crate::ids::{ClusterId, PoolId, ServerId};
use crate::pool::{Place, Pool, checkout, dial, queue};
use crate::topology::{NodeState, NodeView, View};

/// A cluster has changed. Server connections that lead where they should not are cut before another
/// byte is forwarded; who waits is served, sent elsewhere or refused.
pub(crate) fn set_view(core: &mut Core, name: &str, view: Arc<View>, now: Instant) {
    let id = core.clusters.named(name);
    let before = Arc::clone(core.clusters[id].view());
    if !core.clusters[id].set_view(view, now) {
        return;
    }
    evaluate_servers(core, id);
    let pools = core.pools.iter().filter(|pool| pool.cluster() == Some(id));
    for pool in pools.map(Pool::id).collect::<Vec<_>>() {
        if compares_others(core, pool, &before) {
            queue::send_elsewhere(core, pool);
        }
        if has_come_back(core, pool, &before) {
            core.pools[pool].turns_mut().start_slowly(now);
        }
        follow(core, pool, now);
    }
}

/// Whether how fresh a pool's node is compares other servers than in the view `before`: what was
/// found out then, for those who wait for the node, says nothing about the one that is there now.
fn compares_others(core: &Core, pool: PoolId, before: &View) -> bool {
    let pool = &core.pools[pool];
    let (Place::Node(node), Some(cluster)) = (pool.place(), core.clusters.of(pool)) else {
        return false;
    };
    let known = before.node(node).and_then(|node| node.freshness.as_ref());
    known.is_some() && known != cluster.node(node).and_then(|node| node.freshness.as_ref())
}

/// Whether a pool's node may be read from, and could not be in the view `before`.
fn has_come_back(core: &Core, pool: PoolId, before: &View) -> bool {
    let pool = &core.pools[pool];
    let (Place::Node(node), Some(cluster)) = (pool.place(), core.clusters.of(pool)) else {
        return false;
    };
    let state = |node: Option<&NodeView>| node.map(|node| node.state);
    // Nothing was known of any node at first.
    let first = before.nodes.is_empty() || state(before.node(node)) == Some(NodeState::Unknown);
    let is_new = state(before.node(node)) != Some(NodeState::Replica);
    !first && is_new && state(cluster.node(node)) == Some(NodeState::Replica)
}

/// Stamps or cuts the server connections of a cluster.
fn evaluate_servers(core: &mut Core, id: ClusterId) {
    let cluster = &core.clusters[id];
    let mut stale = Vec::new();
    for server in core.servers.iter_mut() {
        let pool = &core.pools[server.pool()];
        let Some(epoch) = server.epoch().filter(|_| pool.cluster() == Some(id)) else { continue };
        match cluster.epoch_status(pool.place(), epoch, server.started_at_micros()) {
            EpochStatus::Fits(now) => server.set_epoch(Some(now)),
            EpochStatus::Unsure => {}
            EpochStatus::Stale => stale.push(server.id()),
        }
    }
    for server in stale {
        cut(core, server);
    }
}

/// Ends a server connection without a Terminate: it leads where nothing may go any more.
fn cut(core: &mut Core, id: ServerId) {
    let Some(server) = core.servers.get_mut(id) else { return };
    // Its end tells nobody anything new.
    server.set_epoch(None);
    if server.is_idle() {
        core.pools[server.pool()].remove_idle(id);
    }
    if !server.is_closing() {
        core.actions.push(Action::Cut(id));
    }
}

/// Serves, sends elsewhere or refuses the sessions that wait for a pool, as the new view says.
fn follow(core: &mut Core, id: PoolId, now: Instant) {
    match core.clusters.gate(&core.pools[id]) {
        Gate::Open => {
            let pool = &mut core.pools[id];
            pool.let_in(now);
            pool.shared().forget_failure();
            checkout::serve_waiters(core, id, now);
            dial::dial_if_wanted(core, id, now);
        }
        Gate::Held => {
            if matches!(core.pools[id].place(), Place::Node(_)) {
                queue::send_elsewhere(core, id);
            }
        }
        Gate::Refused(error) => {
            for waiter in core.pools[id].take_waiters() {
                queue::refuse(core, waiter.session, &error, Some(Arc::clone(&error)));
                core.pools[id].count_failed();
            }
        }
    }
}
