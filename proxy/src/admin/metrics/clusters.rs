//! Metrics of clusters and their nodes.

use std::iter;

use metrics::Label;
use pgimbal_pooler::topology::NodeState;

use super::sample::{Counters, Gauges, label};
use crate::topology::{ClusterStatus, Counts, NodeStatus};

/// Records the samples of all clusters.
pub(super) fn record(clusters: &[ClusterStatus]) {
    nodes(clusters);
    lag(clusters);
    staleness(clusters);
    reads(clusters);
    writable(clusters);
    failovers(clusters);
}

fn labels(cluster: &ClusterStatus, node: &NodeStatus) -> Vec<Label> {
    vec![label("cluster", &cluster.name), label("node", &node.detail.name)]
}

/// A node that has left drains; what it was is nobody's concern.
fn listed(clusters: &[ClusterStatus]) -> impl Iterator<Item = (&ClusterStatus, &NodeStatus)> {
    let nodes = |cluster| ClusterStatus::nodes_of(cluster).map(move |node| (cluster, node));
    clusters.iter().flat_map(nodes)
}

impl ClusterStatus {
    fn nodes_of(&self) -> impl Iterator<Item = &NodeStatus> {
        self.nodes.iter().filter(|node| node.detail.state != NodeState::Removed)
    }
}

fn nodes(clusters: &[ClusterStatus]) {
    let up = Gauges::described("pgimbal_node_up", "1 while the node answers its prober.");
    for (cluster, node) in listed(clusters) {
        let silent = matches!(node.detail.state, NodeState::Down | NodeState::Unknown);
        up.sample(labels(cluster, node), u8::from(!silent));
    }
    let role = Gauges::described(
        "pgimbal_node_role",
        "1 for what the node last said it is, and what pgimbal takes it for.",
    );
    for (cluster, node) in listed(clusters) {
        let state = node.detail.state;
        for word in iter::once(state.word()).chain(state.old_word()) {
            let mut labels = labels(cluster, node);
            labels.push(Label::from_static_parts("role", node.detail.role.unwrap_or("unknown")));
            labels.push(Label::from_static_parts("state", word));
            role.sample(labels, 1);
        }
    }
    let timeline = Gauges::described("pgimbal_node_timeline", "The timeline the node is on.");
    for (cluster, node) in listed(clusters) {
        if let Some(number) = node.detail.timeline {
            timeline.sample(labels(cluster, node), number.0);
        }
    }
}

fn lag(clusters: &[ClusterStatus]) {
    let bytes = Gauges::described(
        "pgimbal_node_lag_bytes",
        "Write-ahead log that a standby has not replayed, in bytes.",
    );
    for (cluster, node) in listed(clusters) {
        if let Some(behind) = node.detail.lag_bytes {
            bytes.sample(labels(cluster, node), behind as f64);
        }
    }
    let seconds = Gauges::described(
        "pgimbal_node_lag_seconds",
        "Age of the oldest known position of the primary that a standby has not replayed.",
    );
    for (cluster, node) in listed(clusters) {
        if let Some(behind) = node.detail.lag {
            seconds.sample(labels(cluster, node), behind.as_secs_f64());
        }
    }
}

fn staleness(clusters: &[ClusterStatus]) {
    let seconds = Gauges::described(
        "pgimbal_node_staleness_seconds",
        "Age of the moment up to which a standby shows every write that was acknowledged.",
    );
    for (cluster, node) in listed(clusters) {
        if let Some(age) = node.detail.fresh {
            seconds.sample(labels(cluster, node), age.as_secs_f64());
        }
    }
}

fn reads(clusters: &[ClusterStatus]) {
    let total = Counters::described(
        "pgimbal_node_reads_total",
        "Statements and transactions that were sent to the node as to a replica.",
    );
    for (cluster, node) in listed(clusters) {
        total.sample(labels(cluster, node), node.reads);
    }
}

fn writable(clusters: &[ClusterStatus]) {
    let family = Gauges::described(
        "pgimbal_cluster_writable",
        "1 while writes go somewhere, 0 while they wait or are refused.",
    );
    for cluster in clusters {
        let writable = u8::from(cluster.view.primary().is_some());
        family.sample(vec![label("cluster", &cluster.name)], writable);
    }
}

type Counter = (&'static str, &'static str, fn(&Counts) -> u64);

const COUNTERS: &[Counter] = &[
    (
        "pgimbal_failover_held_total",
        "Transactions and statements that waited for a primary.",
        |counts| counts.held,
    ),
    (
        "pgimbal_failover_rerun_total",
        "Statements that ran again on another connection.",
        |counts| counts.rerun,
    ),
    ("pgimbal_failover_failed_total", "Errors that clients were told because of it.", |counts| {
        counts.failed
    }),
    (
        "pgimbal_failover_outcome_unknown_total",
        "Those among them that left the outcome unknown (08007).",
        |counts| counts.outcome_unknown,
    ),
];

fn failovers(clusters: &[ClusterStatus]) {
    let total = Counters::described("pgimbal_failovers_total", "Changes of primary seen.");
    for cluster in clusters {
        total.sample(vec![label("cluster", &cluster.name)], cluster.failovers_total);
    }
    for (name, help, value) in COUNTERS {
        let family = Counters::described(name, help);
        for cluster in clusters {
            family.sample(vec![label("cluster", &cluster.name)], value(&cluster.counts));
        }
    }
}
