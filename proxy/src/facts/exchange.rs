//! The exchange of facts with the peers: each gets the whole document after a change that was made
//! here, and when it is met; its answer is its own document, which is merged.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use hyper::body::Bytes;
use pgimbal_replicas::InstanceId;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tracing::{debug, warn};

use super::{Change, Facts};
use crate::peers::{AskError, Asked, Kind, Peers};

/// Time limit for a peer's answer. A peer that does not answer is told again at the next sign of
/// life.
const PATIENCE: Duration = Duration::from_secs(4);

/// A peer with the last change that it was sent, and its answer.
type Told = (InstanceId, Change, Result<Bytes, AskError>);

/// Exchanges facts with the peers for as long as the process runs; `asked` are their documents.
pub async fn exchange(facts: Facts, peers: Peers, asked: mpsc::UnboundedReceiver<Asked>) {
    tokio::join!(answer(facts.clone(), asked), tell(facts, peers));
}

/// Answers the peers' documents, for as long as there are peers.
async fn answer(facts: Facts, mut requests: mpsc::UnboundedReceiver<Asked>) {
    while let Some(Asked { from, body, reply }) = requests.recv().await {
        let merged = facts.merge_from_peer(&body).map_err(|error| {
            warn!("the document of replica {from} is {error}; it is not used");
            error.to_string()
        });
        reply.send(merged.map(|bytes| bytes.to_vec()));
    }
}

/// Sends what has changed here to every peer, for as long as the process. Ends at once without
/// peers.
async fn tell(facts: Facts, peers: Peers) {
    let Some(mut met) = peers.changed() else { return };
    let mut published = facts.document();
    // The last change that each living peer has.
    let mut known: BTreeMap<InstanceId, Change> = BTreeMap::new();
    let mut busy = BTreeSet::new();
    let mut asking: JoinSet<Told> = JoinSet::new();
    loop {
        let change = facts.last_change();
        let members = peers.members();
        let alive: BTreeSet<InstanceId> = members
            .iter()
            .filter(|peer| peer.is_alive())
            .filter_map(|peer| peer.instance)
            .collect();
        known.retain(|peer, _| alive.contains(peer));
        for peer in alive {
            let is_told = known.get(&peer).is_some_and(|known| *known >= change);
            if !is_told && busy.insert(peer) {
                let (peers, body) = (peers.clone(), facts.to_bytes().to_vec());
                asking.spawn(async move {
                    let answer = peers.ask(peer, Kind::Facts, body, PATIENCE).await;
                    (peer, change, answer)
                });
            }
        }
        tokio::select! {
            Ok(()) = published.changed() => published.mark_unchanged(),
            changed = met.changed() => if changed.is_err() { return },
            Some(Ok((peer, change, answer))) = asking.join_next() => {
                busy.remove(&peer);
                match answer.map(|bytes| facts.merge_from_peer(&bytes)) {
                    Ok(Ok(_)) => _ = known.insert(peer, change),
                    Ok(Err(error)) => {
                        warn!("the document of replica {peer} is {error}; it is not used");
                        known.insert(peer, change);
                    }
                    Err(error) => {
                        debug!("replica {peer} was not told of the facts: {error}");
                        // It is told again when the next sign of life comes, within a second.
                        let _ = met.changed().await;
                    }
                }
            }
        }
    }
}
