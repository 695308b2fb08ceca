//! One worker's part of a pool: idle server connections and the clients that wait for one.

pub mod checkout;
pub mod migration;
mod retire;
pub mod shared;
mod snapshot;
pub mod stats;
pub mod timers;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use pgimbal_config::{LostTransactionError, ResolvedPool};
use pgimbal_wire::error::SqlState;

use crate::ids::{ClusterId, PoolId, ServerId, SessionId, WorkerId};
use crate::pool::shared::{Limits, SharedPool};
use crate::pool::stats::PoolStats;
use crate::topology::NodeId;

/// Server connections of one pool that one worker opens at a time. A server forks for each, and a
/// storm of 2,000 clients must not become a storm of dials.
const DIALS_LIMIT: u32 = 4;

/// How many server connections make it worth to spread a pool over one more worker. A worker that
/// serves few wakes up for each reply alone: with 20 on two workers instead of one every
/// transaction took 0.2 system calls more and a tenth more CPU time, for the same throughput.
const SERVERS_PER_WORKER: u32 = 24;

/// One database and one user, as the client names them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PoolKey {
    /// The database's name.
    pub database: Box<str>,
    /// The user's name.
    pub user: Box<str>,
    /// Where in a cluster it leads.
    pub place: Place,
}

/// Where in its cluster a pool leads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Place {
    /// Wherever writes go; also the only place of a database that is on no cluster.
    #[default]
    Primary,
    /// To this node, for reads.
    Node(NodeId),
}

/// A place in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiter {
    /// Whose it is.
    pub session: SessionId,
    /// Since when it waits: a session that has left the queue and waits anew has another place.
    pub since: Instant,
}

/// One worker's part of a pool.
#[derive(Debug)]
pub struct Pool {
    /// Its own id.
    pub id: PoolId,
    /// Its name.
    pub key: PoolKey,
    /// The cluster that it leads to.
    pub cluster: Option<ClusterId>,
    /// The pools of the same database and user that lead to one node each.
    pub replicas: Vec<(NodeId, PoolId)>,
    /// Which of equally good replicas is next.
    pub turn: u32,
    /// Until when its node, which has failed, is not chosen.
    pub left_out_until: Option<Instant>,
    /// Where it leads and how it behaves; replaced by a reload.
    pub config: Arc<ResolvedPool>,
    /// What the workers share.
    pub shared: Arc<SharedPool>,
    /// Idle server connections; the last one released is the first to be used again.
    pub idle: Vec<ServerId>,
    /// Those who wait, longest first. An entry whose session waits no more is passed over.
    pub waiters: VecDeque<Waiter>,
    /// Those who wait for a place among the pinned sessions, longest first.
    pub place_waiters: VecDeque<Waiter>,
    /// Sessions that wait, without the entries of those that do no more.
    pub waiting: u32,
    /// Logins that wait for the first server connection's welcome.
    pub logins: Vec<SessionId>,
    /// Server connections being opened.
    pub dialing: u32,
    /// When another worker was last asked for an idle server connection.
    pub asked_at: Option<Instant>,
    /// Workers that have asked for an idle server connection.
    pub asked_by: VecDeque<WorkerId>,
    /// Clients that belong to it.
    pub sessions: u32,
    /// Since when no worker has used it.
    pub unused_since: Option<Instant>,
    /// It is gone; its place waits for another.
    pub is_retired: bool,
    /// Counters.
    pub stats: PoolStats,
}

impl Pool {
    /// A pool without connections.
    #[must_use]
    pub fn new(
        id: PoolId,
        key: PoolKey,
        config: Arc<ResolvedPool>,
        shared: Arc<SharedPool>,
    ) -> Self {
        Self {
            id,
            key,
            cluster: None,
            replicas: Vec::new(),
            turn: 0,
            left_out_until: None,
            config,
            shared,
            idle: Vec::new(),
            waiters: VecDeque::new(),
            place_waiters: VecDeque::new(),
            waiting: 0,
            logins: Vec::new(),
            dialing: 0,
            asked_at: None,
            asked_by: VecDeque::new(),
            sessions: 0,
            unused_since: None,
            is_retired: false,
            stats: PoolStats::default(),
        }
    }

    /// The limits for one more server connection; the reserve counts once somebody has waited for
    /// `reserve_timeout`.
    #[must_use]
    pub fn limits(&self, reserve: Reserve) -> Limits {
        let pool = &self.config.pool;
        Limits {
            pool: match reserve {
                Reserve::Kept => pool.size,
                Reserve::Open => pool.size.saturating_add(pool.reserve_size),
            },
            database: self.config.max_db_connections.unwrap_or(u32::MAX),
            user: self.config.max_user_connections.unwrap_or(u32::MAX),
        }
    }

    /// One more session waits.
    pub fn begin_wait(&mut self) {
        self.waiting += 1;
        if let Some(cluster) = &self.shared.cluster {
            cluster.waiting.fetch_add(1, Relaxed);
        }
    }

    /// One session less waits.
    pub fn end_wait(&mut self) {
        self.waiting -= 1;
        if let Some(cluster) = &self.shared.cluster {
            cluster.waiting.fetch_sub(1, Relaxed);
        }
    }

    /// Whether one more dial would help: somebody waits for whom none is under way.
    #[must_use]
    pub fn wants_dial(&self) -> bool {
        let wanted = self.waiting.max(u32::from(!self.logins.is_empty()));
        self.dialing < wanted.min(DIALS_LIMIT)
    }

    /// Whether it leads to a cluster, so that a broken connection can be followed by another
    /// node's.
    #[inline]
    #[must_use]
    pub const fn is_clustered(&self) -> bool {
        self.cluster.is_some()
    }

    /// How long its clients wait for a server that is gone; `None` where they are told at once.
    #[must_use]
    pub fn failover_hold(&self) -> Option<Duration> {
        match &self.config.cluster {
            Some(cluster) => Some(cluster.config.failover_hold),
            None => self.config.pool.failover_hold,
        }
    }

    /// Whether its clients outlive its server: they wait for it, and what only reads is run again.
    #[inline]
    #[must_use]
    pub fn outlives_server(&self) -> bool {
        self.is_clustered() || self.config.pool.failover_hold.is_some()
    }

    /// A transaction has ended on one of its server connections.
    #[inline]
    pub fn count_transaction(&mut self) {
        self.stats.transactions += 1;
        if self.key.place != Place::Primary {
            self.stats.replica_transactions += 1;
        }
    }

    /// The code that clients get for a transaction that was lost with its server connection.
    #[must_use]
    pub fn lost_transaction_code(&self) -> SqlState {
        let chosen = self.config.cluster.as_ref().map(|c| c.config.lost_transaction_error);
        match chosen {
            Some(LostTransactionError::SerializationFailure) => SqlState::SERIALIZATION_FAILURE,
            Some(LostTransactionError::AdminShutdown) | None => SqlState::ADMIN_SHUTDOWN,
        }
    }

    /// Publishes the number of idle connections to the other workers.
    #[inline]
    pub fn publish_idle(&self, worker: WorkerId) {
        self.shared.share(worker).idle.store(self.idle.len() as u32, Relaxed);
    }
}

/// Whether the reserve connections may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reserve {
    /// Not yet.
    Kept,
    /// Somebody has waited long enough.
    Open,
}

/// The workers that a pool of `size` server connections uses, of `workers`: the first is given by
/// the pool's `hash`, so that small pools spread over the workers.
pub fn workers_of(hash: u64, size: u32, workers: u16) -> impl Iterator<Item = WorkerId> {
    let used = size.div_ceil(SERVERS_PER_WORKER).clamp(1, u32::from(workers)) as u16;
    let first = (hash % u64::from(workers)) as u16;
    (0..used).map(move |n| WorkerId((first + n) % workers))
}

/// A worker's fair share of a pool's connections.
#[must_use]
pub fn fair_share(size: u32, workers: u16) -> u32 {
    let used = size.div_ceil(SERVERS_PER_WORKER).clamp(1, u32::from(workers));
    size.div_ceil(used)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_uses_one_more_worker_for_each_24_servers() {
        assert_eq!(workers_of(5, 24, 4).collect::<Vec<_>>(), [WorkerId(1)]);
        assert_eq!(
            workers_of(7, 60, 4).collect::<Vec<_>>(),
            [WorkerId(3), WorkerId(0), WorkerId(1)]
        );
        assert_eq!(workers_of(7, 100, 2).count(), 2);
        assert_eq!(fair_share(40, 2), 20);
        assert_eq!(fair_share(5, 8), 5);
    }
}
