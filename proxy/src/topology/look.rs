//! A single look at a node, for `pgimbal check`.

use pgimbal_pooler::topology::{NodeSpec, Role, SystemId};
use tokio::time::timeout;

use super::names;
use super::probe;
use super::spec::{ClusterSpec, NodeSource};
use crate::dial;
use crate::transport::Conversation;

/// A node's answer to a single look.
#[derive(Clone, Debug)]
pub(crate) struct NodeLook {
    /// The answer in one line.
    pub(crate) text: String,
    /// Whether the node is a primary and may be written to (`candidate`).
    pub(crate) primary: bool,
    /// The node's system identifier.
    pub(crate) system: SystemId,
    /// Start of the postmaster in microseconds since 1970, which tells two names of one server from
    /// two servers.
    pub(crate) started_at_micros: i64,
    /// Whether the probing role is a member of `pg_monitor`.
    pub(crate) monitor: bool,
}

impl ClusterSpec {
    /// The cluster's nodes; those of a DNS name are looked up now, within 10 s. The error is the
    /// cause in words. Empty only when the configuration lists none.
    pub(crate) async fn nodes(&self) -> Result<Vec<NodeSpec>, String> {
        match &self.source {
            NodeSource::Listed(nodes) => Ok(nodes.clone()),
            NodeSource::Name { dns, port } => names::look_up(dns, *port)
                .await
                .map_err(|why| format!("{dns} cannot be resolved: {why}")),
        }
    }

    /// Asks a node once, on a connection of its own, within `probe_timeout` for the login and again
    /// for the answer. The password is that of the configuration: one that rotates must be set
    /// before. The error is the cause in words, the second line a hint where there is one.
    pub(crate) async fn look(&self, node: &NodeSpec) -> Result<NodeLook, String> {
        let target = self.target(&node.host, node.port);
        let dialed = Box::pin(dial::dial(&target)).await.map_err(|error| {
            let hint = error.hint().map_or_else(String::new, |hint| format!("\n    {hint}"));
            format!("{}{hint}", error.with_sqlstate())
        })?;
        let mut conversation = Conversation::new(dialed.transport);
        conversation.inbox = dialed.residual;
        let answer = timeout(self.probe_timeout, probe::ask_all(&mut conversation)).await;
        let answer = answer.map_err(|_| "no answer within probe_timeout".to_owned())?;
        let answer = answer.map_err(|fault| fault.to_string())?;
        let report = answer.report;
        let mut text = match report.role {
            Role::Primary { .. } => "primary".to_owned(),
            Role::Standby { paused: true, .. } => "replica, replay paused".to_owned(),
            Role::Standby { .. } => "replica".to_owned(),
        };
        let (major, minor) = (report.server_version / 10_000, report.server_version % 10_000);
        text.push_str(&format!(
            ", timeline {}, at {}, PostgreSQL {major}.{minor}, system_identifier {}",
            report.timeline,
            report.position(),
            report.system
        ));
        if !node.candidate {
            text.push_str(", never written to (candidate = false)");
        }
        Ok(NodeLook {
            text,
            primary: report.is_primary() && node.candidate,
            system: report.system,
            started_at_micros: report.started_at_micros,
            monitor: answer.monitor,
        })
    }
}
