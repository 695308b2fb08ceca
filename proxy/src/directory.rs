//! The directory of pools: the configuration in force and the counts that all workers share.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::{Arc, Mutex, PoisonError};

use foldhash::quality::FixedState;
use pgimbal_config::{Config, ResolvedPool, ServerTls};
use pgimbal_pooler::ids::WorkerId;
use pgimbal_pooler::pool::budget::Budgets;
use pgimbal_pooler::pool::shared::{SharedCluster, SharedCount, SharedDatabase, SharedPool};
use pgimbal_pooler::pool::{PoolKey, workers_of};

use crate::derivation::Derivations;
use crate::dial::Target;
use crate::tls::{TlsConnector, TlsError};

/// Finds the pool of a user on a database: its options, its server, and its counts of sessions and
/// server connections, which all workers share. It is made from the configuration in force. A
/// reload makes a new directory, which goes on with the counts of the old one; a pool's counts are
/// dropped when the last worker has released it ([`Self::release`]).
#[derive(Debug)]
pub struct PoolDirectory {
    config: Arc<Config>,
    workers: u16,
    connectors: Vec<(ServerTls, Arc<TlsConnector>)>,
    counts: Arc<Mutex<Counts>>,
    clusters: ClusterCounts,
    budgets: Arc<Budgets>,
    /// Shared by all logins at servers.
    derivations: Arc<Derivations>,
}

/// The effects of failovers on clients, counted by the workers for each cluster and read by the
/// clusters' watchers. Clones share the counts.
#[derive(Clone, Debug, Default)]
pub struct ClusterCounts(Arc<Mutex<HashMap<Box<str>, Arc<SharedCluster>>>>);

impl ClusterCounts {
    /// The counts of the cluster `name`, made at zero by the first call and never removed; later
    /// calls return the same. The name need not be in the configuration.
    #[must_use]
    pub fn of(&self, name: &str) -> Arc<SharedCluster> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(counts.entry(name.into()).or_default())
    }
}

#[derive(Debug, Default)]
struct Counts {
    pools: HashMap<PoolKey, Arc<SharedPool>>,
    databases: HashMap<Box<str>, Arc<SharedDatabase>>,
    users: HashMap<Box<str>, Arc<SharedCount>>,
}

/// Everything that a worker needs to serve a pool: options, shared counts and target.
#[derive(Clone, Debug)]
pub struct PoolEntry {
    /// The options of the pool (`pool_size`, `pool_mode`, timeouts and others), with the user's
    /// overrides.
    pub config: Arc<ResolvedPool>,
    /// The counts of the pool (sessions and server connections) that all workers share.
    pub shared: Arc<SharedPool>,
    /// The server and how to connect to it: host, port, role, password and TLS.
    pub target: Arc<Target>,
}

impl PoolDirectory {
    /// Makes the directory of `config` for `workers` workers, at the start; all counts begin at
    /// zero.
    ///
    /// # Errors
    /// [`TlsError`] when TLS towards a server cannot be set up, for example because a certificate
    /// file cannot be read.
    pub fn new(config: Arc<Config>, workers: u16) -> Result<Self, TlsError> {
        let connectors = connectors(&config)?;
        let (counts, clusters, budgets, derivations) = Default::default();
        Ok(Self { config, workers, connectors, counts, clusters, budgets, derivations })
    }

    /// Makes the directory of a new configuration, with the counts of this one.
    ///
    /// # Errors
    /// [`TlsError`] when TLS towards a server cannot be set up; this directory stays in force then.
    pub fn reloaded(&self, config: Arc<Config>) -> Result<Self, TlsError> {
        let connectors = connectors(&config)?;
        let (counts, clusters) = (Arc::clone(&self.counts), self.clusters.clone());
        let (workers, budgets) = (self.workers, Arc::clone(&self.budgets));
        let derivations = Arc::clone(&self.derivations);
        Ok(Self { config, workers, connectors, counts, clusters, budgets, derivations })
    }

    /// The configuration from which this directory was made.
    #[must_use]
    pub const fn config(&self) -> &Arc<Config> {
        &self.config
    }

    /// The pool of a user on a database, for a worker that begins to serve it. `None` when the
    /// configuration does not serve the database, or not to this user. The pool's counts begin at
    /// zero with the first call and are kept until [`Self::release`]; options and target are made
    /// anew at each call.
    #[must_use]
    pub fn pool(&self, key: &PoolKey) -> Option<PoolEntry> {
        let (config, target) = self.target(&key.database, &key.user)?;
        let shared = self.shared(key, &config);
        Some(PoolEntry { config: Arc::new(config), shared, target: Arc::new(target) })
    }

    /// The options and the server of a user's pool on a database, without a pool being counted. In
    /// a cluster the caller sets the node by [`Target::at`]. `None` as for [`Self::pool`].
    #[must_use]
    pub fn target(&self, database: &str, user: &str) -> Option<(ResolvedPool, Target)> {
        let config = self.config.pool(database, user)?;
        let connector = self.connectors.iter().find(|(tls, _)| *tls == config.tls);
        let connector = connector.map(|(_, connector)| Arc::clone(connector))?;
        let target = Target::new(&config, connector, self.config.clients.tcp.clone());
        let target = Target { derivations: Arc::clone(&self.derivations), ..target };
        Some((config, target))
    }

    /// The worker on which a client of this pool should be served: of the workers that share the
    /// pool the one with the fewest clients of the pool, and in a tie `here`.
    #[must_use]
    pub fn preferred_worker(&self, key: &PoolKey, entry: &PoolEntry, here: WorkerId) -> WorkerId {
        let sessions = |worker: &WorkerId| {
            entry.shared.share(*worker).sessions.load(std::sync::atomic::Ordering::Relaxed)
        };
        let hash = FixedState::default().hash_one(key);
        let size = entry.config.pool.size;
        let best = workers_of(hash, size, self.workers)
            .min_by_key(|worker| (sessions(worker), *worker != here));
        best.unwrap_or(here)
    }

    /// Notes that a worker no longer holds a part of this pool. The pool's counts are dropped with
    /// the last part, so the worker must have dropped its [`PoolEntry::shared`] before. No effect
    /// for an unknown pool, or while another worker holds a part.
    pub fn release(&self, key: &PoolKey) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let Counts { pools, databases, users } = &mut *counts;
        if pools.get(key).is_some_and(|shared| Arc::strong_count(shared) == 1) {
            pools.remove(key);
            // Other pools may have a part in these.
            if databases.get(&key.database).is_some_and(|known| Arc::strong_count(known) == 1) {
                databases.remove(&key.database);
            }
            users.retain(|_, known| Arc::strong_count(known) > 1);
        }
    }

    /// The effects of failovers on clients, for each cluster; reloads keep them.
    #[must_use]
    pub const fn cluster_counts(&self) -> &ClusterCounts {
        &self.clusters
    }

    /// The budgets of all servers that pools have led to; reloads keep them.
    #[must_use]
    pub const fn budgets(&self) -> &Arc<Budgets> {
        &self.budgets
    }

    fn shared(&self, key: &PoolKey, config: &ResolvedPool) -> Arc<SharedPool> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(shared) = counts.pools.get(key) {
            return Arc::clone(shared);
        }
        let database = Arc::clone(counts.databases.entry(key.database.clone()).or_default());
        let user = Arc::clone(counts.users.entry(config.user.as_str().into()).or_default());
        let shared = SharedPool::new(usize::from(self.workers), database, user)
            .with_budgets(Arc::clone(&self.budgets));
        let shared = Arc::new(match &config.cluster {
            Some(cluster) => shared.of_cluster(self.clusters.of(&cluster.name)),
            None => shared,
        });
        counts.pools.insert(key.clone(), Arc::clone(&shared));
        shared
    }
}

/// One connector for each different set of TLS options towards servers.
fn connectors(config: &Config) -> Result<Vec<(ServerTls, Arc<TlsConnector>)>, TlsError> {
    let mut connectors: Vec<(ServerTls, Arc<TlsConnector>)> = Vec::new();
    let databases = config.databases.values().map(|database| &database.tls);
    let clusters = config.clusters.values().map(|cluster| &cluster.tls);
    for tls in databases.chain(clusters) {
        if !connectors.iter().any(|(known, _)| known == tls) {
            connectors.push((tls.clone(), Arc::new(TlsConnector::new(tls)?)));
        }
    }
    Ok(connectors)
}

#[cfg(test)]
mod tests {
    use pgimbal_config::Overrides;

    use super::*;

    #[test]
    fn a_cluster_with_tls_of_its_own_is_served() {
        let path = std::env::temp_dir().join(format!("pgimbal-tls-{}.toml", std::process::id()));
        let text = "[server_tls]\nsslmode = 'prefer'\n\
                    [clusters.c]\nprobe_user = 'app'\n[clusters.c.nodes.a]\nhost = '127.0.0.1'\n\
                    [clusters.c.server_tls]\nsslmode = 'disable'\n\
                    [databases.app]\ncluster = 'c'\n[users.app]\npassword = 'x'\n";
        std::fs::write(&path, text).expect("a file");
        let overrides = Overrides { config: Some(path.clone()), ..Overrides::default() };
        let config = pgimbal_config::load(&overrides, std::iter::empty());
        std::fs::remove_file(path).expect("our file");
        let config = Arc::new(config.expect("a configuration"));
        let directory = PoolDirectory::new(config, 1).expect("a directory");
        assert!(directory.target("app", "app").is_some());
        assert!(directory.target("other", "app").is_none());
    }
}
