//! SHOW PEERS, and the columns that answers of several replicas have.

use super::answer::{Cell, Column, Row, int, text};
use crate::peers::{PeerStatus, Peers};

/// The answer of a command that acts on all replicas.
pub(super) const RESULTS: &[Column] = &[REPLICA, text("result")];

/// The column that rows of several replicas begin with.
pub(super) const REPLICA: Column = text("replica");

pub(super) const PEERS: &[Column] = &[
    REPLICA,
    text("instance"),
    text("address"),
    int("peer_id"),
    text("version"),
    text("state"),
    text("ready"),
    int("heard_ms"),
    text("why"),
];

/// PgBouncer's columns, and no others.
pub(super) const PGBOUNCER_PEERS: &[Column] =
    &[int("peer_id"), text("host"), int("port"), int("pool_size")];

/// The rows of SHOW PEERS: this replica, which is `ready` or not, then the others.
pub(super) fn peers(peers: &Peers, ready: bool) -> Vec<Row> {
    let own = peers.instance().map(|instance| -> Row {
        vec![
            peers.own_name().into(),
            instance.to_string().into(),
            peers.own_address().map(|address| address.to_string()).as_deref().into(),
            peers.peer_id().map(u32::from).into(),
            env!("CARGO_PKG_VERSION").into(),
            "self".into(),
            yes(ready).into(),
            Cell::Null,
            "".into(),
        ]
    });
    own.into_iter().chain(peers.members().into_iter().map(other)).collect()
}

fn other(peer: PeerStatus) -> Row {
    let state = match (peer.instance, peer.is_alive()) {
        (None, _) => "unreachable",
        (Some(_), true) => "alive",
        (Some(_), false) => "silent",
    };
    vec![
        peer.name.as_str().into(),
        peer.instance.map(|instance| instance.to_string()).as_deref().into(),
        peer.address.to_string().into(),
        peer.peer_id.map(u32::from).into(),
        peer.version.as_str().into(),
        state.into(),
        peer.instance.map(|_| yes(peer.ready)).into(),
        peer.heard.map_or(Cell::Null, |heard| (heard.as_millis() as u64).into()),
        peer.why.as_str().into(),
    ]
}

fn yes(is: bool) -> &'static str {
    if is { "yes" } else { "no" }
}

/// The rows of PgBouncer's SHOW PEERS: the others that have a peer id. No pool of connections to
/// them has a size.
pub(super) fn pgbouncer_peers(peers: &Peers) -> Vec<Row> {
    let row = |peer: PeerStatus| -> Option<Row> {
        let host = peer.address.ip().to_string();
        let port = u32::from(peer.address.port());
        Some(vec![u32::from(peer.peer_id?).into(), host.into(), port.into(), Cell::Null])
    };
    peers.members().into_iter().filter_map(row).collect()
}
