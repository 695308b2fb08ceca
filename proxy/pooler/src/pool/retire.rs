//! Pools that nobody uses go away, with their counters: names come from clients, in any number.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use crate::ids::PoolId;
use crate::pool::shared::{SharedCount, SharedDatabase, SharedPool};
use crate::pool::{Place, Pool};
use crate::pooler::{Action, Pooler};

/// How long a pool is kept that has served somebody, or that the configuration names: its counters
/// must be seen by whoever reads them, however seldom.
const UNUSED: Duration = Duration::from_secs(60 * 60);

impl Pooler {
    /// Retires the pools that no worker has used for long enough, each together with those of its
    /// cluster's nodes. One that has never had a server connection, for a name that only a `*`
    /// stands for, goes when its failure is forgotten (`server_login_retry`).
    pub(crate) fn retire_unused(&mut self, now: Instant) {
        for index in 0..self.pools.len() {
            let pool = &self.pools[index];
            if pool.is_retired || pool.key.place != Place::Primary {
                continue;
            }
            let family = || pool.replicas.iter().map(|(_, replica)| *replica).chain([pool.id]);
            if family().any(|id| self.pools[id.index()].is_used()) {
                self.pools[index].unused_since = None;
                continue;
            }
            let served = family().any(|id| self.pools[id.index()].shared.welcome().is_some());
            let limit = match served || pool.config.is_listed {
                true => UNUSED,
                false => pool.config.pool.server_login_retry,
            };
            let overdue = pool.unused_since.is_some_and(|since| now - since >= limit);
            let family: Vec<PoolId> = family().collect();
            self.pools[index].unused_since.get_or_insert(now);
            // Server connections that are being opened or closed still lead here.
            if overdue && !self.servers.iter().any(|(_, server)| family.contains(&server.pool)) {
                family.into_iter().for_each(|id| self.retire_pool(id));
            }
        }
    }

    /// Leaves an empty place, which the next new pool takes.
    fn retire_pool(&mut self, id: PoolId) {
        let pool = &self.pools[id.index()];
        let (key, config) = (pool.key.clone(), Arc::clone(&pool.config));
        self.by_key.remove(&key);
        let (database, user) = <(Arc<SharedDatabase>, Arc<SharedCount>)>::default();
        let shared = Arc::new(SharedPool::new(usize::from(self.workers), database, user));
        let empty = Pool::new(id, key, config, shared);
        self.pools[id.index()] = Pool { is_retired: true, ..empty };
        self.free_pools.push(id);
        self.actions.push(Action::Retired(id));
    }
}

impl Pool {
    /// Whether a worker has clients of it, or server connections although it may have none.
    fn is_used(&self) -> bool {
        let served = self.shared.welcome().is_some();
        let used = |share: &crate::pool::shared::Share| {
            share.sessions.load(Relaxed) > 0 || (served && share.open.load(Relaxed) > 0)
        };
        self.sessions > 0 || self.shared.shares.iter().any(used)
    }
}
