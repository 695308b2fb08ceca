//! The nodes of a cluster whose addresses are those of one DNS name.

use std::sync::Arc;
use std::time::Duration;

use pgimbal_config::Host;
use pgimbal_pooler::topology::{NodeSpec, Placement};
use tokio::sync::{Notify, mpsc};
use tokio::time::{sleep, timeout};
use tracing::warn;

/// Interval of look-ups: answers of a headless Service live for 5 s to 30 s.
const STEADY: Duration = Duration::from_secs(5);
/// Shortest pause between look-ups, when there is no primary.
const HURRIED: Duration = Duration::from_millis(250);
/// The resolver's own limit is 5 s for each of its servers.
const LIMIT: Duration = Duration::from_secs(10);

/// Looks a name up again and again, sooner when `hurry` says so, and sends every set of nodes that
/// is not empty.
pub(super) async fn follow(
    name: String,
    port: u16,
    hurry: Arc<Notify>,
    found: mpsc::Sender<Vec<NodeSpec>>,
) {
    let mut failed = false;
    loop {
        match look_up(&name, port).await {
            Ok(nodes) => {
                failed = false;
                if found.send(nodes).await.is_err() {
                    return;
                }
            }
            // Said once: the last nodes stay.
            Err(why) if !failed => {
                failed = true;
                warn!("{name} cannot be resolved, its last addresses stay: {why}");
            }
            Err(_) => {}
        }
        sleep(HURRIED).await;
        tokio::select! {
            () = sleep(STEADY) => {}
            () = hurry.notified() => {}
            () = found.closed() => return,
        }
    }
}

/// Looks up the addresses of `name` once, within 10 s, and returns a node with `port` for each,
/// sorted and each once; the node's name is its address. The error is the cause in words; no
/// address is an error too.
pub(super) async fn look_up(name: &str, port: u16) -> Result<Vec<NodeSpec>, String> {
    let found = timeout(LIMIT, tokio::net::lookup_host((name, port))).await;
    let found = found.map_err(|_| "no answer".to_owned())?.map_err(|error| error.to_string())?;
    let mut addresses: Vec<_> = found.map(|address| address.ip()).collect();
    addresses.sort();
    addresses.dedup();
    if addresses.is_empty() {
        return Err("no address".to_owned());
    }
    let node = |address: std::net::IpAddr| NodeSpec {
        name: address.to_string().into(),
        host: Host::Tcp(address.to_string()),
        port,
        candidate: true,
        placement: Placement::default(),
    };
    Ok(addresses.into_iter().map(node).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn failover_every_address_of_a_name_is_a_node() {
        let nodes = look_up("127.0.0.1", 5433).await.expect("an address resolves");
        assert_eq!(nodes.len(), 1);
        assert_eq!((&*nodes[0].name, nodes[0].port), ("127.0.0.1", 5433));
        assert!(look_up("no-such-host.invalid", 1).await.is_err());
    }
}
