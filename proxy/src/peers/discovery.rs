//! Where the other replicas are: looks names up, and says hello to every address each second.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pgimbal_config::PeerAddress;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::Inner;

/// Interval of hellos, the heartbeats.
const HELLO: Duration = Duration::from_secs(1);
/// Interval of look-ups: answers of a headless Service live for 5 s or longer.
const LOOK_UP: Duration = Duration::from_secs(2);
/// The resolver's own limit is 5 s for each of its servers.
const RESOLVER: Duration = Duration::from_secs(10);

/// Says hello until the process ends.
pub(super) async fn greet(inner: Arc<Inner>) {
    let mut ticks = interval(HELLO);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            // New addresses, or a heartbeat that should not wait.
            () = inner.hurry.notified() => {}
        }
        for address in inner.due() {
            let inner = Arc::clone(&inner);
            tokio::spawn(async move { inner.greet(address).await });
        }
    }
}

/// Looks the places up, again and again, and lists their addresses. While a name cannot be
/// resolved, its last addresses stay.
pub(super) async fn look_up(inner: Arc<Inner>, places: Vec<PeerAddress>) {
    let mut known: Vec<BTreeSet<SocketAddr>> = vec![BTreeSet::new(); places.len()];
    let mut failed = vec![false; places.len()];
    let mut ticks = interval(LOOK_UP);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        for (index, place) in places.iter().enumerate() {
            match addresses(place).await {
                Ok(found) => {
                    failed[index] = false;
                    known[index] = found;
                }
                Err(why) => {
                    // Told once.
                    if !std::mem::replace(&mut failed[index], true) {
                        tracing::warn!("the replicas at {place} cannot be looked up: {why}");
                    }
                }
            }
        }
        let all: BTreeSet<SocketAddr> = known.iter().flatten().copied().collect();
        inner.list(&all, Instant::now());
    }
}

async fn addresses(place: &PeerAddress) -> Result<BTreeSet<SocketAddr>, String> {
    let found = timeout(RESOLVER, tokio::net::lookup_host((&*place.host, place.port))).await;
    let found = found.map_err(|_| "no answer".to_owned())?.map_err(|error| error.to_string())?;
    Ok(found.map(|address| SocketAddr::new(address.ip().to_canonical(), address.port())).collect())
}
