//! Each node of each cluster: what it is, and whether the prober may see all of it.

use crate::topology::{ClusterSpec, Looked};

/// Asks every node, and says in a line each what it is and what to fix. Whether all is well.
pub(super) async fn try_all(specs: &[ClusterSpec]) -> bool {
    let mut all_well = true;
    for spec in specs {
        all_well &= try_one(spec).await;
    }
    all_well
}

async fn try_one(spec: &ClusterSpec) -> bool {
    let nodes = match spec.nodes().await {
        Ok(nodes) => nodes,
        Err(why) => {
            println!("cluster {}: {why}", spec.name);
            return false;
        }
    };
    let mut all_well = true;
    let mut seen = Vec::new();
    for node in nodes {
        let place =
            format!("cluster {}, node {} ({}:{})", spec.name, node.name, node.host, node.port);
        match spec.look(&node).await {
            Ok(looked) => {
                println!("{place}: {}", looked.text);
                if !looked.monitor {
                    println!(
                        "    the role {user} has no pg_monitor, so a standby's new timeline is \
                         seen late: GRANT pg_monitor TO {user}",
                        user = spec.user
                    );
                    all_well = false;
                }
                seen.push((node.name, looked));
            }
            Err(why) => {
                println!("{place}: {why}");
                all_well = false;
            }
        }
    }
    all_well & belong_together(spec, &seen)
}

/// Whether all nodes are of one cluster, and one of them at most is its primary.
fn belong_together(spec: &ClusterSpec, seen: &[(Box<str>, Looked)]) -> bool {
    let Some((first, looked)) = seen.first() else { return true };
    let mut together = true;
    for (other, found) in seen {
        if found.system != looked.system {
            println!(
                "cluster {}: nodes {first} and {other} are of different clusters \
                 (system_identifier {} and {})",
                spec.name, looked.system, found.system
            );
            together = false;
        }
    }
    let primaries: Vec<&str> =
        seen.iter().filter(|(_, looked)| looked.primary).map(|(name, _)| &**name).collect();
    let one_server = seen.iter().filter(|(_, looked)| looked.primary).all(|(_, other)| {
        seen.iter()
            .find(|(_, looked)| looked.primary)
            .is_some_and(|(_, looked)| looked.started_at_micros == other.started_at_micros)
    });
    match primaries.len() {
        0 => println!("cluster {}: no node is primary, so writes wait", spec.name),
        2.. if together && !one_server => {
            let names = primaries.join(" and ");
            println!("cluster {}: {names} are all primary; one of them must not be", spec.name);
            together = false;
        }
        _ => {}
    }
    together
}
