//! A reload: where a pool leads and how it behaves from now on.

use std::sync::Arc;
use std::time::Instant;

use pgimbal_config::ResolvedPool;

use super::dial;
use crate::cluster::Clusters;
use crate::core::Core;
use crate::ids::{ClusterId, PoolId};

/// Puts a configuration in force. Server connections that lead elsewhere than they should now are
/// replaced as they become idle.
pub(crate) fn reconfigure(core: &mut Core, id: PoolId, config: Arc<ResolvedPool>, now: Instant) {
    if *core.pools[id].config() == *config {
        return;
    }
    let cluster = cluster_of(&config, &mut core.clusters);
    let old = core.pools[id].reconfigure(Arc::clone(&config), cluster);
    let leads_as_before = leads_alike(&old, &config);
    if leads_as_before {
        return;
    }
    for server in core.servers.iter_mut().filter(|server| server.pool() == id) {
        server.retire_by(now);
    }
    for idle in core.pools[id].idle().to_vec() {
        dial::close_server(&mut core.servers, &mut core.pools, &mut core.actions, idle);
    }
}

/// The cluster that a pool of this configuration leads to.
pub(crate) fn cluster_of(config: &ResolvedPool, clusters: &mut Clusters) -> Option<ClusterId> {
    config.cluster.as_ref().map(|cluster| clusters.named(&cluster.name))
}

/// Whether two configurations lead to the same server, as the same user, in the same way.
fn leads_alike(old: &ResolvedPool, new: &ResolvedPool) -> bool {
    let names = |pool: &ResolvedPool| pool.cluster.as_ref().map(|cluster| cluster.name.clone());
    names(old) == names(new)
        && old.host == new.host
        && old.port == new.port
        && old.dbname == new.dbname
        && old.options == new.options
        && old.user == new.user
        && old.tls == new.tls
}
