//! Snapshots of the workers and the process, gathered on request.
//!
//! This module owns the time that a worker may take to answer; it derives nothing and decides
//! nothing.

mod process;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pgimbal_pooler::pool::stats::{
    ClientSnapshot, ListenerSnapshot, PoolSnapshot, ServerSnapshot, WorkerSnapshot,
};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use crate::budget::{ServerBudgets, ServerStatus};
use crate::credentials::{CredentialManager, CredentialsStatus};
use crate::facts::{Facts, FactsStatus};
use crate::peers::{Peers, PeersSnapshot};
use crate::topology::{ClusterStatus, Clusters};

pub use process::{
    CertificateEnd, Connected, Gauges, LoginResult, Phase, ProcessSnapshot, ProcessStats, Refusal,
};

/// Time limit of a worker's answer. A worker answers within one turn of its loop, so one that takes
/// longer is stuck, and a scrape (10 s by default) must not wait for it.
const ANSWER_TIME: Duration = Duration::from_secs(1);

/// The amount of detail in a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// Pools and their counters only.
    Totals,
    /// Pools, every client and server connection, and every channel that is listened to.
    Everything,
}

/// A request to a worker for its snapshot.
#[derive(Debug)]
pub struct SnapshotRequest {
    /// The amount of detail that is asked for.
    pub detail: Detail,
    /// The channel for the answer. It is dropped without an answer when the worker has ended.
    pub reply: oneshot::Sender<WorkerSnapshot>,
}

/// The handle through which snapshots of all workers are taken. Clones are cheap and share their
/// state.
#[derive(Clone, Debug)]
pub struct Collector {
    senders: Arc<[mpsc::UnboundedSender<SnapshotRequest>]>,
    process: Arc<ProcessStats>,
    clusters: Clusters,
    credentials: CredentialManager,
    peers: Peers,
    budgets: ServerBudgets,
    facts: Facts,
    /// The pools of each worker as it told them last: a counter that went back because its worker
    /// was late would look like a restart, and then like a burst.
    known: Arc<Mutex<Vec<WorkerSnapshot>>>,
}

impl Collector {
    /// Makes a collector over one channel for each worker, in the order of their numbers.
    #[must_use]
    pub fn new(
        senders: Vec<mpsc::UnboundedSender<SnapshotRequest>>,
        process: Arc<ProcessStats>,
    ) -> Self {
        let known = vec![WorkerSnapshot::default(); senders.len()];
        let known = Arc::new(Mutex::new(known));
        Self {
            senders: senders.into(),
            process,
            clusters: Clusters::default(),
            credentials: CredentialManager::idle(),
            peers: Peers::default(),
            budgets: ServerBudgets::default(),
            facts: Facts::alone(),
            known,
        }
    }

    /// The same collector, whose snapshots have the status of these clusters; without this call
    /// they have none. Called at the start, before the collector is shared.
    #[must_use]
    pub fn with_clusters(self, clusters: Clusters) -> Self {
        Self { clusters, ..self }
    }

    /// The same collector, whose snapshots have the status of the passwords of this manager;
    /// without this call they have none.
    #[must_use]
    pub fn with_credentials(self, credentials: CredentialManager) -> Self {
        Self { credentials, ..self }
    }

    /// The same collector, whose snapshots have the status of these peers; without this call they
    /// have none.
    #[must_use]
    pub fn with_peers(self, peers: Peers) -> Self {
        Self { peers, ..self }
    }

    /// The other replicas.
    #[must_use]
    pub const fn peers(&self) -> &Peers {
        &self.peers
    }

    /// The same collector, whose snapshots have the budgets of servers; without this call they have
    /// none.
    #[must_use]
    pub fn with_budgets(self, budgets: ServerBudgets) -> Self {
        Self { budgets, ..self }
    }

    /// The budgets of servers.
    #[must_use]
    pub const fn budgets(&self) -> &ServerBudgets {
        &self.budgets
    }

    /// The same collector, whose snapshots have the status of the store of these facts; without
    /// this call that of no store.
    #[must_use]
    pub fn with_facts(self, facts: Facts) -> Self {
        Self { facts, ..self }
    }

    /// The durable facts of the replicas.
    #[must_use]
    pub const fn facts(&self) -> &Facts {
        &self.facts
    }

    /// The manager of passwords that rotate.
    #[must_use]
    pub const fn credentials(&self) -> &CredentialManager {
        &self.credentials
    }

    /// The handle of the watched clusters.
    #[must_use]
    pub const fn clusters(&self) -> &Clusters {
        &self.clusters
    }

    /// The counters of the process.
    #[must_use]
    pub fn process(&self) -> &ProcessStats {
        &self.process
    }

    /// Asks all workers at once and waits for at most one second, and then asks the clusters and
    /// the passwords' task, each for at most a second. [`Snapshot::unresponsive`] lists the workers
    /// that did not answer; their pools are those of their last answer, and their clients and
    /// server connections are missing.
    pub async fn snapshot(&self, detail: Detail) -> Snapshot {
        let deadline = Instant::now() + ANSWER_TIME;
        let mut replies = Vec::with_capacity(self.senders.len());
        for sender in self.senders.iter() {
            let (reply, answer) = oneshot::channel();
            // A closed channel drops the request, which the answer's end then shows.
            let _ = sender.send(SnapshotRequest { detail, reply });
            replies.push(answer);
        }
        let mut answers = Vec::with_capacity(replies.len());
        for answer in replies {
            answers.push(timeout_at(deadline, answer).await.ok().and_then(Result::ok));
        }
        let clusters = self.clusters.status().await;
        let credentials = self.credentials.status().await;
        let peers = self.peers.snapshot();
        let budgets = self.budgets.status();
        Snapshot { clusters, credentials, peers, budgets, ..self.merge(answers) }
    }

    fn merge(&self, answers: Vec<Option<WorkerSnapshot>>) -> Snapshot {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let mut unresponsive = Vec::new();
        let mut workers = Vec::with_capacity(answers.len());
        for (index, (answer, known)) in answers.into_iter().zip(known.iter_mut()).enumerate() {
            if let Some(answer) = answer {
                known.pools.clone_from(&answer.pools);
                known.retired.clone_from(&answer.retired);
                known.panics = answer.panics;
                workers.push(answer);
            } else {
                unresponsive.push(index);
                workers.push(known.clone());
            }
        }
        Snapshot {
            workers,
            unresponsive,
            process: self.process.snapshot(),
            clusters: Vec::new(),
            credentials: CredentialsStatus::default(),
            peers: PeersSnapshot::default(),
            budgets: Vec::new(),
            facts: self.facts.status(),
        }
    }
}

/// The user name that stands for all retired pools of a database, see [`Snapshot::retired`].
pub const RETIRED: &str = "(retired)";

/// The state of all workers and of the process at one time.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The snapshot of each worker, by its number.
    pub workers: Vec<WorkerSnapshot>,
    /// Numbers of the workers that did not answer in time; their pools are those of their last
    /// answer.
    pub unresponsive: Vec<usize>,
    /// The counters and gauges of the process.
    pub process: ProcessSnapshot,
    /// The status of each cluster; empty when none is configured.
    pub clusters: Vec<ClusterStatus>,
    /// The status of the passwords that rotate; empty when none does, or their task did not answer
    /// within a second.
    pub credentials: CredentialsStatus,
    /// The other replicas, and what has passed between them.
    pub peers: PeersSnapshot,
    /// The budget of each server that a connection was to be opened to.
    pub budgets: Vec<ServerStatus>,
    /// The status of the store of the replicas' facts.
    pub facts: FactsStatus,
}

impl Snapshot {
    /// The pools of all workers, those of the same database and user added up, sorted by database
    /// and user. Pools that are gone are left out: [`Self::retired`] has their counters.
    #[must_use]
    pub fn pools(&self) -> Vec<PoolSnapshot> {
        let mut pools: BTreeMap<(&str, &str), PoolSnapshot> = BTreeMap::new();
        for part in self.workers.iter().flat_map(|worker| &worker.pools) {
            pools
                .entry((&part.database, &part.user))
                .and_modify(|pool| pool.add(part))
                .or_insert_with(|| part.clone());
        }
        pools.into_values().collect()
    }

    /// The counters of pools that no longer exist: one entry for each database, whose user is
    /// [`RETIRED`], so that the sums over a database never decrease.
    #[must_use]
    pub fn retired(&self) -> Vec<PoolSnapshot> {
        let mut databases: BTreeMap<&str, PoolSnapshot> = BTreeMap::new();
        for (database, stats) in self.workers.iter().flat_map(|worker| &worker.retired) {
            let sum = databases.entry(database).or_insert_with(|| PoolSnapshot {
                database: database.clone(),
                user: RETIRED.to_owned(),
                ..PoolSnapshot::default()
            });
            sum.stats.add(stats);
        }
        databases.into_values().collect()
    }

    /// Iterates over all clients; empty unless the snapshot has [`Detail::Everything`].
    pub fn clients(&self) -> impl Iterator<Item = &ClientSnapshot> {
        self.workers.iter().flat_map(|worker| &worker.clients)
    }

    /// Iterates over all server connections; empty unless the snapshot has [`Detail::Everything`].
    pub fn servers(&self) -> impl Iterator<Item = &ServerSnapshot> {
        self.workers.iter().flat_map(|worker| &worker.servers)
    }

    /// Iterates over all channels that clients listen to, for each worker; empty unless the snapshot
    /// has [`Detail::Everything`].
    pub fn listeners(&self) -> impl Iterator<Item = &ListenerSnapshot> {
        self.workers.iter().flat_map(|worker| &worker.listeners)
    }

    /// Number of the workers' tasks that ended in a panic.
    #[must_use]
    pub fn panics(&self) -> u64 {
        self.workers.iter().map(|worker| worker.panics).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(user: &str, transactions: u64) -> PoolSnapshot {
        let mut pool =
            PoolSnapshot { database: "d".into(), user: user.into(), ..Default::default() };
        pool.stats.transactions = transactions;
        pool
    }

    fn worker(pools: Vec<PoolSnapshot>) -> mpsc::UnboundedSender<SnapshotRequest> {
        let (sender, mut requests) = mpsc::unbounded_channel::<SnapshotRequest>();
        tokio::spawn(async move {
            while let Some(request) = requests.recv().await {
                let answer =
                    WorkerSnapshot { pools: pools.clone(), panics: 1, ..Default::default() };
                let _ = request.reply.send(answer);
            }
        });
        sender
    }

    fn process() -> Arc<ProcessStats> {
        Arc::new(ProcessStats::new(std::time::SystemTime::UNIX_EPOCH, 10))
    }

    #[tokio::test]
    async fn parts_of_one_pool_are_added_up() {
        let collector = Collector::new(
            vec![worker(vec![pool("b", 1), pool("a", 2)]), worker(vec![pool("b", 4)])],
            process(),
        );
        let snapshot = collector.snapshot(Detail::Totals).await;
        let sums: Vec<_> =
            snapshot.pools().into_iter().map(|p| (p.user, p.stats.transactions)).collect();
        assert_eq!(sums, [("a".to_owned(), 2), ("b".to_owned(), 5)]);
        assert!(snapshot.unresponsive.is_empty());
        assert_eq!(snapshot.panics(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stuck_worker_is_named_and_its_counters_do_not_go_back() {
        let (sender, mut requests) = mpsc::unbounded_channel::<SnapshotRequest>();
        let stuck = tokio::spawn(async move {
            let first = requests.recv().await.unwrap();
            let answer = WorkerSnapshot { pools: vec![pool("a", 7)], ..Default::default() };
            first.reply.send(answer).unwrap();
            let _second = requests.recv().await.unwrap();
            std::future::pending::<()>().await;
        });
        let (gone, _) = mpsc::unbounded_channel();
        let collector = Collector::new(vec![sender, gone], process());
        assert_eq!(collector.snapshot(Detail::Totals).await.unresponsive, [1]);
        let before = Instant::now();
        let snapshot = collector.snapshot(Detail::Everything).await;
        assert_eq!(before.elapsed(), ANSWER_TIME);
        assert_eq!(snapshot.unresponsive, [0, 1]);
        assert_eq!(snapshot.pools()[0].stats.transactions, 7);
        stuck.abort();
    }
}
