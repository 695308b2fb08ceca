//! Metrics of the other replicas. Without `[peers]` there are none.

use super::sample::{Counters, Gauges, label};
use crate::peers::PeersSnapshot;

/// Records the samples of the other replicas.
pub(super) fn record(peers: &PeersSnapshot) {
    if !peers.is_on {
        return;
    }
    let gauge = |name, help, is: &dyn Fn(&crate::peers::PeerStatus) -> bool| {
        let count = peers.peers.iter().filter(|peer| is(peer)).count();
        Gauges::described(name, help).sample(vec![], count as f64);
    };
    gauge("pgimbal_peers", "Other replicas that are heard.", &|peer| peer.is_alive());
    gauge(
        "pgimbal_peers_silent",
        "Replicas that were heard, have been silent for more than 5 s, and did not drain.",
        &|peer| peer.instance.is_some() && !peer.is_alive() && peer.ready,
    );
    gauge("pgimbal_peers_unreachable", "Addresses of replicas at which nobody answers.", &|peer| {
        peer.instance.is_none()
    });
    gauge(
        "pgimbal_peers_with_a_fault",
        "Replicas with something in the column why of SHOW PEERS.",
        &|peer| !peer.why.is_empty(),
    );
    let strangers = Counters::described(
        "pgimbal_peer_handshakes_failed_total",
        "Connections to peers.listen that did not prove the deployment's key.",
    );
    for (why, count) in &peers.strangers {
        strangers.sample(vec![label("reason", why.as_str())], *count);
    }
    let sent = Counters::described(
        "pgimbal_peer_requests_total",
        "Requests to other replicas; kind cancel are forwarded cancel requests.",
    );
    for (kind, outcome, count) in &peers.sent {
        let labels = vec![label("kind", kind.as_str()), label("result", outcome.as_str())];
        sent.sample(labels, *count);
    }
    let received =
        Counters::described("pgimbal_peer_requests_received_total", "Requests of other replicas.");
    for (kind, count) in &peers.received {
        received.sample(vec![label("kind", kind.as_str())], *count);
    }
}
