//! SHOW NODES, SHOW FAILOVERS, HOLD, RESUME and ADOPT NODE.

use std::time::SystemTime;

use pgimbal_pooler::topology::{NodeState, Writes};
use pgimbal_wire::error::{Severity, SqlState};

use super::answer::{Cell, Column, Fault, Notices, Row, int, notice, text};
use super::connections::moment;
use crate::topology::{ClusterStatus, Clusters, FailoverStatus, NodeStatus, OperatorError};

pub(super) const NODES: &[Column] = &[
    text("cluster"),
    text("node"),
    text("address"),
    text("role"),
    int("timeline"),
    text("lsn"),
    int("lag_bytes"),
    int("lag_ms"),
    text("epoch"),
    text("state"),
    int("last_probe_ms"),
    text("why"),
    int("fresh_ms"),
    int("reads"),
    int("reads_percent"),
];

pub(super) const FAILOVERS: &[Column] = &[
    text("cluster"),
    text("started"),
    text("from"),
    text("to"),
    int("timeline"),
    int("duration_ms"),
    int("held"),
    int("rerun"),
    int("failed"),
    text("why"),
];

/// The rows of SHOW NODES.
pub(super) fn nodes(clusters: &[ClusterStatus]) -> Vec<Row> {
    let rows = |cluster: &ClusterStatus| -> Vec<Row> {
        cluster.nodes.iter().map(|node| node_row(cluster, node)).collect()
    };
    clusters.iter().flat_map(rows).collect()
}

fn node_row(cluster: &ClusterStatus, node: &NodeStatus) -> Row {
    let detail = &node.detail;
    let epoch = node.epoch.map(|epoch| format!("{}.{}", epoch.system, epoch.timeline));
    let millis = |time: std::time::Duration| Cell::from(time.as_millis() as u64);
    vec![
        (*cluster.name).into(),
        (*detail.name).into(),
        detail.address.as_str().into(),
        detail.role.into(),
        detail.timeline.map(|timeline| timeline.0).into(),
        detail.lsn.map_or(Cell::Null, |lsn| lsn.to_string().into()),
        detail.lag_bytes.map_or(Cell::Null, Cell::from),
        detail.lag.map_or(Cell::Null, millis),
        epoch.as_deref().into(),
        detail.state.word().into(),
        detail.last_probe.map_or(Cell::Null, millis),
        why(cluster, node).into(),
        detail.fresh.map_or(Cell::Null, millis),
        node.reads.into(),
        node.reads_percent.map_or(Cell::Null, Cell::from),
    ]
}

/// The reason for a node's state; for a primary that gets no writes, why not.
fn why(cluster: &ClusterStatus, node: &NodeStatus) -> String {
    let detail = &node.detail;
    let mut parts = Vec::new();
    if !detail.why.is_empty() {
        parts.push(detail.why.clone());
    } else if detail.state == NodeState::Primary {
        match &cluster.view.writes {
            Writes::To(_) => {}
            Writes::Held(reason) => parts.push(format!("writes wait: {reason}")),
            Writes::Refused(text) => parts.push(text.to_string()),
        }
    }
    if node.monitor == Some(false) {
        parts.push("the prober's role has no pg_monitor".to_owned());
    }
    parts.join("; ")
}

/// The rows of SHOW FAILOVERS, the latest last.
pub(super) fn failovers(clusters: &[ClusterStatus]) -> Vec<Row> {
    let rows = |cluster: &ClusterStatus| -> Vec<Row> {
        cluster.failovers.iter().map(|one| failover_row(cluster, one)).collect()
    };
    clusters.iter().flat_map(rows).collect()
}

fn failover_row(cluster: &ClusterStatus, failover: &FailoverStatus) -> Row {
    let age = SystemTime::now().duration_since(failover.started_at).unwrap_or_default();
    vec![
        (*cluster.name).into(),
        moment(SystemTime::now(), age).into(),
        (*failover.from).into(),
        (*failover.to).into(),
        failover.timeline.into(),
        (failover.duration.as_millis() as u64).into(),
        failover.counts.held.into(),
        failover.counts.rerun.into(),
        failover.counts.failed.into(),
        (*failover.why).into(),
    ]
}

/// A command for a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ClusterCommand {
    /// HOLD: writes of this cluster wait.
    Hold(Box<str>),
    /// RESUME: writes go on, in this cluster or in all for `None`.
    Resume(Option<Box<str>>),
    /// ADOPT NODE: the history of the node (`cluster.node`) becomes the cluster's.
    Adopt(Box<str>),
}

/// Reads HOLD, RESUME and ADOPT NODE, in any case, with a name that is taken as it is written.
/// `None` for any other words.
pub(super) fn parse(words: &[&str]) -> Option<ClusterCommand> {
    let is = str::eq_ignore_ascii_case;
    match words {
        [hold, cluster] if is(hold, "HOLD") => Some(ClusterCommand::Hold((*cluster).into())),
        [resume] if is(resume, "RESUME") => Some(ClusterCommand::Resume(None)),
        [resume, cluster] if is(resume, "RESUME") => {
            Some(ClusterCommand::Resume(Some((*cluster).into())))
        }
        [adopt, node, which] if is(adopt, "ADOPT") && is(node, "NODE") => {
            Some(ClusterCommand::Adopt((*which).into()))
        }
        _ => None,
    }
}

impl ClusterCommand {
    /// The cluster or node that the command names, for the log; `None` for RESUME of all clusters.
    pub(super) fn target(&self) -> Option<&str> {
        match self {
            Self::Hold(name) | Self::Adopt(name) => Some(name),
            Self::Resume(name) => name.as_deref(),
        }
    }

    pub(super) const fn tag(&self) -> &'static str {
        match self {
            Self::Hold(_) => "HOLD",
            Self::Resume(_) => "RESUME",
            Self::Adopt(_) => "ADOPT NODE",
        }
    }

    /// Runs the command. Its outcome is a notice, because the answer has no rows.
    pub(super) async fn run(
        &self,
        clusters: &Clusters,
        out: &mut Notices,
    ) -> Result<Vec<Row>, Fault> {
        match self {
            Self::Hold(cluster) => {
                clusters.hold(cluster).await?;
                let text = format!(
                    "writes of {cluster} wait until RESUME; after failover_hold they are refused"
                );
                notice(out, Severity::Notice, &text);
            }
            Self::Resume(cluster) => {
                let resumed = clusters.resume(cluster.as_deref()).await?;
                let text = match resumed.as_slice() {
                    [] => "nothing was held".to_owned(),
                    resumed => format!("resumed: {}", resumed.join(", ")),
                };
                notice(out, Severity::Notice, &text);
            }
            Self::Adopt(node) => {
                clusters.adopt(node).await?;
            }
        }
        Ok(vec![])
    }
}

impl From<OperatorError> for Fault {
    fn from(error: OperatorError) -> Self {
        let (code, hint) = match &error {
            OperatorError::UnknownCluster(_)
            | OperatorError::UnknownNode(_)
            | OperatorError::AmbiguousNode(_) => {
                (SqlState::UNDEFINED_OBJECT, "SHOW NODES lists clusters and nodes.")
            }
            OperatorError::Refused(_) => {
                (SqlState::INVALID_PARAMETER_VALUE, "SHOW NODES tells what each node says.")
            }
            OperatorError::ShuttingDown => (SqlState::ADMIN_SHUTDOWN, "Connect again."),
        };
        Self::new(code, error.to_string()).hint(hint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::console::command::tests::with_words;

    fn shown(row: &Row) -> Vec<String> {
        let cell = |cell: &Cell| match cell {
            Cell::Text(text) => text.clone(),
            Cell::Int(number) => number.to_string(),
            Cell::Null => "-".to_owned(),
        };
        row.iter().map(cell).collect()
    }

    #[test]
    fn failover_nodes_and_failovers_are_shown_with_the_reason() {
        let clusters = [ClusterStatus::example()];
        let rows = nodes(&clusters);
        assert!(rows.iter().all(|row| row.len() == NODES.len()));
        let rows: Vec<_> = rows.iter().map(shown).collect();
        let quarantined = &rows[0];
        assert_eq!(quarantined[..3], ["main", "a", "a.test:5432"]);
        assert_eq!(quarantined[9], "quarantined");
        assert!(quarantined[11].contains("pg_rewind"), "{quarantined:?}");
        let primary = ["primary", "2", "0/3000100", "-", "-", "7000.2", "primary", "20", "", "-"];
        assert_eq!(rows[1][3..13], primary);
        assert_eq!(rows[2][13..], ["60", "100"]);
        assert_eq!(rows[2][3..10], ["replica", "2", "0/3000000", "256", "20", "7000.2", "replica"]);
        assert_eq!(rows[2][11], "the prober's role has no pg_monitor");
        let rows = failovers(&clusters);
        assert_eq!(rows[0].len(), FAILOVERS.len());
        let row = shown(&rows[0]);
        assert!(row[1].ends_with("UTC"), "{row:?}");
        assert_eq!(row[2..], ["a", "b", "2", "305", "4", "3", "2", "connection refused"]);
    }

    #[test]
    fn failover_names_in_commands_are_taken_as_they_are_written() {
        assert_eq!(with_words("hold Main", parse), Some(ClusterCommand::Hold("Main".into())));
        assert_eq!(with_words("RESUME", parse), Some(ClusterCommand::Resume(None)));
        assert_eq!(
            with_words("Resume \"a b\"", parse),
            Some(ClusterCommand::Resume(Some("a b".into())))
        );
        assert_eq!(
            with_words("RESUME main", parse),
            Some(ClusterCommand::Resume(Some("main".into())))
        );
        let adopt = Some(ClusterCommand::Adopt("main.10.0.0.1".into()));
        assert_eq!(with_words("ADOPT  NODE main.10.0.0.1", parse), adopt);
        for text in ["HOLD", "HOLD a b", "ADOPT main.a", "RESUME a b", "ADOPT NODE"] {
            assert_eq!(with_words(text, parse), None, "{text}");
        }
    }
}
