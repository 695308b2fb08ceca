//! The pools of a worker.

use std::ops::{Index, IndexMut};
use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use pgimbal_config::ResolvedPool;

use super::retired::RetiredStats;
use super::shared::SharedPool;
use super::{Pool, PoolKey};
use crate::ids::{ClusterId, PoolId, WorkerId};

/// The pools of a worker. A [`PoolId`] is valid for as long as the pool has a session or a server
/// connection; the number of one that was retired is given to the next new pool.
#[derive(Debug)]
pub(crate) struct Pools {
    worker: WorkerId,
    workers: u16,
    list: Vec<Pool>,
    /// Numbers of retired pools.
    free: Vec<PoolId>,
    by_key: HashMap<PoolKey, PoolId, RandomState>,
    retired: RetiredStats,
}

impl Pools {
    /// Makes the list of `worker`, one of `workers`, without pools.
    pub(crate) fn new(worker: WorkerId, workers: u16) -> Self {
        Self {
            worker,
            workers: workers.max(1),
            list: Vec::new(),
            free: Vec::new(),
            by_key: HashMap::default(),
            retired: RetiredStats::default(),
        }
    }

    /// The worker that has these pools.
    pub(crate) const fn worker(&self) -> WorkerId {
        self.worker
    }

    /// How many workers the process has.
    pub(crate) const fn workers(&self) -> u16 {
        self.workers
    }

    /// The pool of this name, if the worker has it.
    pub(crate) fn find(&self, key: &PoolKey) -> Option<PoolId> {
        self.by_key.get(key).copied()
    }

    /// Adds a pool of a name that is not in use, which leads to `cluster` if to any.
    pub(crate) fn insert(
        &mut self,
        key: &PoolKey,
        cluster: Option<ClusterId>,
        config: Arc<ResolvedPool>,
        shared: Arc<SharedPool>,
    ) -> PoolId {
        let free = self.free.pop();
        let id = free.unwrap_or(PoolId(self.list.len() as u32));
        let pool = Pool::new(id, self.worker, key.clone(), cluster, config, shared);
        match free {
            Some(free) => self.list[free.index()] = pool,
            None => self.list.push(pool),
        }
        self.by_key.insert(key.clone(), id);
        id
    }

    /// Takes a pool out that has neither sessions nor server connections. Its key can be read until
    /// its number is given away.
    pub(crate) fn remove(&mut self, id: PoolId) {
        let pool = &mut self.list[id.index()];
        self.by_key.remove(pool.key());
        self.retired.add(&pool.key().database, pool.stats());
        pool.retire(usize::from(self.workers));
        self.free.push(id);
    }

    /// What the pools had counted that were retired.
    pub(crate) const fn retired(&self) -> &RetiredStats {
        &self.retired
    }

    /// The pools, without those that were retired.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Pool> {
        self.list.iter().filter(|pool| !pool.is_retired())
    }

    /// The same, to be changed.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Pool> {
        self.list.iter_mut().filter(|pool| !pool.is_retired())
    }

    /// All numbers that were given, also those of retired pools: a list by [`PoolId::index`].
    pub(crate) fn all(&self) -> &[Pool] {
        &self.list
    }

    /// The numbers of the pools that are not retired.
    pub(crate) fn ids(&self) -> Vec<PoolId> {
        self.iter().map(Pool::id).collect()
    }
}

impl Index<PoolId> for Pools {
    type Output = Pool;

    #[inline]
    fn index(&self, id: PoolId) -> &Pool {
        &self.list[id.index()]
    }
}

impl IndexMut<PoolId> for Pools {
    #[inline]
    fn index_mut(&mut self, id: PoolId) -> &mut Pool {
        &mut self.list[id.index()]
    }
}
