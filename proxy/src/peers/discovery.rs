//! Where the other replicas are: looks names up, and says hello to every address each second.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pgimbal_config::PeerAddress;
use tokio::sync::mpsc;
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

/// Looks the places up, again and again, and lists their addresses, until the process ends.
pub(super) async fn look_up(inner: Arc<Inner>, places: Vec<PeerAddress>) {
    let resolve = |place: PeerAddress| async move { addresses(&place).await };
    let list = |all: &BTreeSet<SocketAddr>, complete| inner.list(all, complete, Instant::now());
    follow(places, resolve, list).await;
}

/// Resolves each place again and again, and lists what is known of all after each answer; the flag
/// says whether every place has had one. While a name cannot be resolved, its last addresses stay,
/// and the others do not wait for it.
async fn follow<F>(
    places: Vec<PeerAddress>,
    resolve: impl Fn(PeerAddress) -> F + Clone + Send + 'static,
    mut list: impl FnMut(&BTreeSet<SocketAddr>, bool),
) where
    F: Future<Output = Result<BTreeSet<SocketAddr>, String>> + Send + 'static,
{
    list(&BTreeSet::new(), places.is_empty());
    let mut known: Vec<Option<BTreeSet<SocketAddr>>> = vec![None; places.len()];
    let (tell, mut told) = mpsc::channel(1);
    for (index, place) in places.into_iter().enumerate() {
        let (tell, resolve) = (tell.clone(), resolve.clone());
        tokio::spawn(async move {
            let mut failed = false;
            let mut ticks = interval(LOOK_UP);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                match resolve(place.clone()).await {
                    Ok(found) => {
                        failed = false;
                        if tell.send((index, found)).await.is_err() {
                            return;
                        }
                    }
                    Err(why) => {
                        // Told once.
                        if !std::mem::replace(&mut failed, true) {
                            tracing::warn!("the replicas at {place} cannot be looked up: {why}");
                        }
                    }
                }
            }
        });
    }
    drop(tell);
    while let Some((index, found)) = told.recv().await {
        known[index] = Some(found);
        let all = known.iter().flatten().flatten().copied().collect();
        list(&all, known.iter().all(Option::is_some));
    }
}

async fn addresses(place: &PeerAddress) -> Result<BTreeSet<SocketAddr>, String> {
    let found = timeout(RESOLVER, tokio::net::lookup_host((&*place.host, place.port))).await;
    let found = found.map_err(|_| "no answer".to_owned())?.map_err(|error| error.to_string())?;
    Ok(found.map(|address| SocketAddr::new(address.ip().to_canonical(), address.port())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_name_that_does_not_resolve_delays_no_other() {
        let place = |host: &str| PeerAddress { host: host.to_owned(), port: 1 };
        let resolve = |place: PeerAddress| async move {
            match &*place.host {
                "hangs" => std::future::pending().await,
                "fails" => Err("no such name".to_owned()),
                host => Ok(BTreeSet::from([SocketAddr::new(host.parse().unwrap(), place.port)])),
            }
        };
        let (listed, mut lists) = mpsc::unbounded_channel();
        let list = |all: &BTreeSet<SocketAddr>, complete| {
            listed.send((all.len(), complete)).unwrap();
        };
        let places = ["hangs", "10.0.0.1", "fails", "10.0.0.2"].map(place);
        let seen = async { while lists.recv().await.unwrap() != (2, false) {} };
        tokio::select! {
            () = follow(places.into(), resolve, list) => panic!("it has ended"),
            seen = tokio::time::timeout(Duration::from_secs(60), seen) => seen.unwrap(),
        }
    }
}
