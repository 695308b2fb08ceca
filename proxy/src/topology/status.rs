//! The status of a cluster, for the console and metrics.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, SystemTime};

use pgimbal_pooler::pool::shared::SharedCluster;
use pgimbal_pooler::topology::{Epoch, NodeDetail, View};

/// The status of a cluster at one moment, for the console and the metrics.
#[derive(Clone, Debug)]
pub struct ClusterStatus {
    /// The cluster's name in the configuration.
    pub name: Arc<str>,
    /// The view by which the workers route transactions.
    pub view: Arc<View>,
    /// The nodes, in the order of the view.
    pub nodes: Vec<NodeStatus>,
    /// The latest changes of primary, at most 64, the oldest first.
    pub failovers: Vec<FailoverStatus>,
    /// Number of changes of primary since the start of the process.
    pub failovers_total: u64,
    /// Effects of all failovers on clients since the start of the process.
    pub counts: Counts,
}

/// The status of a node of a cluster at one moment.
#[derive(Clone, Debug)]
pub struct NodeStatus {
    /// The node's role, timeline, position and state, as the topology knows them.
    pub detail: NodeDetail,
    /// The epoch in which the node was last seen; `None` when it was never seen.
    pub epoch: Option<Epoch>,
    /// Whether the probing role is a member of `pg_monitor`; `None` before the first answer.
    pub monitor: Option<bool>,
    /// Number of statements and transactions that were sent to the node as to a replica since the
    /// start of the process.
    pub reads: u64,
    /// The node's share of those of the whole cluster within the last minute, in percent; `None`
    /// if there were none.
    pub reads_percent: Option<u64>,
}

/// A change of primary, as SHOW FAILOVERS lists it.
#[derive(Clone, Debug)]
pub struct FailoverStatus {
    /// Time at which the old primary was lost.
    pub started_at: SystemTime,
    /// Name of the node that was the primary.
    pub from: Box<str>,
    /// Name of the node that became the primary.
    pub to: Box<str>,
    /// PostgreSQL timeline of the new primary.
    pub timeline: u32,
    /// Time during which writes could not be served, from the loss of the old primary to the new
    /// one.
    pub duration: Duration,
    /// The fault of the old primary for which it was given up, as text.
    pub why: Box<str>,
    /// Effects on clients, counted until 5 s after the change.
    pub counts: Counts,
}

/// The effects of failovers on clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Transactions and statements that waited for a primary.
    pub held: u64,
    /// Statements that ran again on another connection.
    pub rerun: u64,
    /// Errors that clients were sent because of a failover.
    pub failed: u64,
    /// Errors among `failed` that leave the outcome of a transaction unknown (08007).
    pub outcome_unknown: u64,
}

impl Counts {
    /// Reads the counts of a cluster that the workers keep, since the start of the process.
    pub(super) fn of(shared: &SharedCluster) -> Self {
        Self {
            held: shared.held.load(Relaxed),
            rerun: shared.rerun.load(Relaxed),
            failed: shared.failed.load(Relaxed),
            outcome_unknown: shared.outcome_unknown.load(Relaxed),
        }
    }

    /// The difference to earlier counts.
    pub(super) const fn since(self, base: Self) -> Self {
        Self {
            held: self.held.saturating_sub(base.held),
            rerun: self.rerun.saturating_sub(base.rerun),
            failed: self.failed.saturating_sub(base.failed),
            outcome_unknown: self.outcome_unknown.saturating_sub(base.outcome_unknown),
        }
    }
}

#[cfg(test)]
impl ClusterStatus {
    /// A cluster after a failover: `a` is quarantined, `b` primary, `c` a replica that is behind.
    pub(crate) fn example() -> Self {
        use std::time::Instant;

        use pgimbal_config::Host;
        use pgimbal_pooler::topology::{
            Lsn, NodeId, NodeSpec, Options, Placement, Remembered, Report, Role, SystemId,
            TimelineId, Topology,
        };

        let now = Instant::now();
        let node = |name: &str| NodeSpec {
            name: name.into(),
            host: Host::Tcp(format!("{name}.test")),
            port: 5432,
            candidate: true,
            placement: Placement::default(),
        };
        let options = Options {
            probe_interval: Duration::from_secs(1),
            failover_hold: Duration::from_secs(30),
            max_lag_bytes: None,
            max_lag: None,
        };
        let specs = vec![node("a"), node("b"), node("c")];
        let mut topology = Topology::new(options, specs, Remembered::default(), now);
        let primary = |at| Role::Primary { insert: Lsn(at), flush: Lsn(at) };
        let replica = Role::Standby { replay: Lsn(0x300_0000), paused: false };
        let reports = [(0, 1, primary(0x300_0000)), (1, 2, primary(0x300_0100)), (2, 2, replica)];
        for (id, timeline, role) in reports {
            let report = Report {
                system: SystemId(7000),
                timeline: TimelineId(timeline),
                role,
                server_version: 150_018,
                started_at_micros: i64::from(id),
            };
            topology.handle_report(NodeId(id), now, now, report);
        }
        let view = topology.view();
        let details = topology.details(now + Duration::from_millis(20));
        let nodes = details.into_iter().zip(&view.nodes).map(|(detail, node)| NodeStatus {
            detail,
            epoch: node.epoch,
            monitor: Some(node.id.0 != 2),
            reads: 30 * u64::from(node.id.0),
            reads_percent: Some(50 * u64::from(node.id.0)),
        });
        let counts = Counts { held: 4, rerun: 3, failed: 2, outcome_unknown: 1 };
        Self {
            name: "main".into(),
            nodes: nodes.collect(),
            view: Arc::clone(&view),
            failovers: vec![FailoverStatus::example(counts)],
            failovers_total: 1,
            counts,
        }
    }
}

#[cfg(test)]
impl FailoverStatus {
    fn example(counts: Counts) -> Self {
        Self {
            started_at: SystemTime::now(),
            from: "a".into(),
            to: "b".into(),
            timeline: 2,
            duration: Duration::from_millis(305),
            why: "connection refused".into(),
            counts,
        }
    }
}
