//! The check of clusters: what each node is, and whether the probing role may see all of it.

use super::findings::Findings;
use crate::topology::{ClusterSpec, NodeLook};

/// Asks every node, and says in a line each what it is and what to fix.
pub(super) async fn try_all(specs: &[ClusterSpec], report: &Findings) {
    for spec in specs {
        try_one(spec, report).await;
    }
}

async fn try_one(spec: &ClusterSpec, report: &Findings) {
    let nodes = match spec.nodes().await {
        Ok(nodes) => nodes,
        Err(why) => return report.fail(format!("cluster {}", spec.name), why),
    };
    let mut seen = Vec::new();
    for node in nodes {
        let place =
            format!("cluster {}, node {} ({}:{})", spec.name, node.name, node.host, node.port);
        match spec.look(&node).await {
            Ok(look) => {
                report.ok(&place, &look.text);
                if !look.monitor {
                    let text = format!(
                        "the role {user} has no pg_monitor, so a standby's new timeline is seen \
                         late: GRANT pg_monitor TO {user}",
                        user = spec.user
                    );
                    report.warn(&place, text);
                }
                seen.push((node.name, look));
            }
            Err(why) => report.fail(place, why),
        }
    }
    belong_together(spec, &seen, report);
}

/// Whether all nodes are of one cluster, and one of them at most is its primary.
fn belong_together(spec: &ClusterSpec, seen: &[(Box<str>, NodeLook)], report: &Findings) {
    let Some((first, look)) = seen.first() else { return };
    let place = || format!("cluster {}", spec.name);
    let mut together = true;
    for (other, found) in seen {
        if found.system != look.system {
            let text = format!(
                "nodes {first} and {other} are of different clusters (system_identifier {} and {})",
                look.system, found.system
            );
            report.fail(place(), text);
            together = false;
        }
    }
    let primaries: Vec<&str> =
        seen.iter().filter(|(_, look)| look.primary).map(|(name, _)| &**name).collect();
    let one_server = seen.iter().filter(|(_, look)| look.primary).all(|(_, other)| {
        seen.iter()
            .find(|(_, look)| look.primary)
            .is_some_and(|(_, look)| look.started_at_micros == other.started_at_micros)
    });
    match primaries.len() {
        0 => report.warn(place(), "no node is primary, so writes wait"),
        2.. if together && !one_server => {
            let names = primaries.join(" and ");
            report.fail(place(), format!("{names} are all primary; one of them must not be"));
        }
        _ => {}
    }
}
