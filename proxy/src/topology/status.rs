//! A cluster as people see it.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, SystemTime};

use pgimbal_pooler::pool::shared::SharedCluster;
use pgimbal_pooler::topology::{Epoch, NodeDetail, View};

/// A cluster.
#[derive(Clone, Debug)]
pub struct ClusterStatus {
    /// Its name.
    pub name: Arc<str>,
    /// What the workers act on.
    pub view: Arc<View>,
    /// Its nodes, in the view's order.
    pub nodes: Vec<NodeStatus>,
    /// The last changes of primary, oldest first.
    pub failovers: Vec<FailoverStatus>,
    /// All changes of primary since the start.
    pub failovers_total: u64,
    /// What they meant to clients.
    pub counts: Counts,
}

/// A node.
#[derive(Clone, Debug)]
pub struct NodeStatus {
    /// What is known of it.
    pub detail: NodeDetail,
    /// The epoch it was last seen in.
    pub epoch: Option<Epoch>,
    /// Whether the prober has pg_monitor there, once it has looked.
    pub monitor: Option<bool>,
}

/// A change of primary.
#[derive(Clone, Debug)]
pub struct FailoverStatus {
    /// When the old primary was lost.
    pub began: SystemTime,
    /// The old primary.
    pub from: Box<str>,
    /// The new one.
    pub to: Box<str>,
    /// The new one's timeline.
    pub timeline: u32,
    /// How long writes went nowhere.
    pub lasted: Duration,
    /// What was wrong with the old one.
    pub why: Box<str>,
    /// What it meant to clients.
    pub counts: Counts,
}

/// What failovers meant to clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Waited.
    pub held: u64,
    /// Run again.
    pub rerun: u64,
    /// Told an error.
    pub failed: u64,
    /// Told that the outcome is unknown; among those told an error.
    pub outcome_unknown: u64,
}

impl Counts {
    pub(super) fn of(shared: &SharedCluster) -> Self {
        Self {
            held: shared.held.load(Relaxed),
            rerun: shared.rerun.load(Relaxed),
            failed: shared.failed.load(Relaxed),
            outcome_unknown: shared.outcome_unknown.load(Relaxed),
        }
    }

    /// What has been counted since `base`.
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
            Lsn, NodeId, NodeSpec, Options, Remembered, Report, Role, SystemId, TimelineId,
            Topology,
        };

        let now = Instant::now();
        let node = |name: &str| NodeSpec {
            name: name.into(),
            host: Host::Tcp(format!("{name}.test")),
            port: 5432,
            candidate: true,
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
        });
        let counts = Counts { held: 4, rerun: 3, failed: 2, outcome_unknown: 1 };
        let failover = FailoverStatus {
            began: SystemTime::now(),
            from: "a".into(),
            to: "b".into(),
            timeline: 2,
            lasted: Duration::from_millis(305),
            why: "connection refused".into(),
            counts,
        };
        Self {
            name: "main".into(),
            nodes: nodes.collect(),
            view: Arc::clone(&view),
            failovers: vec![failover],
            failovers_total: 1,
            counts,
        }
    }
}
