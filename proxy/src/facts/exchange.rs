//! The way of the facts between replicas: what has changed here goes to all peers, and a peer that
//! comes, or comes back, is given everything. Each answers with what it knows then.

use std::collections::BTreeSet;
use std::time::Duration;

use pgimbal_replicas::InstanceId;
use tokio::sync::mpsc;

use super::Facts;
use crate::peers::{Asked, Kind, Peers};

/// Time limit of a peer for merging a document; the store tells it what it has missed.
const PATIENCE: Duration = Duration::from_secs(5);

/// Exchanges facts with the peers for as long as the process runs; `asked` are their documents.
pub async fn exchange(facts: Facts, peers: Peers, asked: mpsc::Receiver<Asked>) {
    tokio::join!(
        answer(facts.clone(), asked),
        tell_changes(facts.clone(), peers.clone()),
        tell_who_comes(facts, peers)
    );
}

async fn answer(facts: Facts, mut asked: mpsc::Receiver<Asked>) {
    while let Some(asked) = asked.recv().await {
        let merged = facts.merge_from_peer(&asked.body).map_err(|error| error.to_string());
        // The peer may have gone.
        let _ = asked.reply.send(merged.map(|bytes| bytes.to_vec()));
    }
}

async fn tell_changes(facts: Facts, peers: Peers) {
    let mut changes = facts.to_peers();
    loop {
        let document = changes.next().await;
        let (facts, peers) = (facts.clone(), peers.clone());
        // A peer that is slow to answer does not hold up the next change.
        tokio::spawn(async move {
            for (peer, answer) in peers.ask_all(Kind::Facts, &document, PATIENCE).await {
                if let Ok(document) = answer {
                    learn(&facts, &peer.name, &document);
                }
            }
        });
    }
}

async fn tell_who_comes(facts: Facts, peers: Peers) {
    let Some(mut changed) = peers.changed() else { return };
    let mut known: BTreeSet<InstanceId> = BTreeSet::new();
    loop {
        let alive: Vec<_> = peers.members().into_iter().filter(|peer| peer.is_alive()).collect();
        let now = alive.iter().filter_map(|peer| peer.instance).collect();
        for peer in alive {
            let Some(instance) = peer.instance.filter(|instance| !known.contains(instance)) else {
                continue;
            };
            let (facts, peers) = (facts.clone(), peers.clone());
            tokio::spawn(async move {
                let document = facts.to_bytes().to_vec();
                let answer = peers.ask(instance, Kind::Facts, document, PATIENCE).await;
                match answer {
                    Ok(document) => learn(&facts, &peer.name, &document),
                    Err(error) => {
                        tracing::debug!(replica = peer.name, %error, "it was told no facts");
                    }
                }
            });
        }
        known = now;
        if changed.changed().await.is_err() {
            return;
        }
    }
}

fn learn(facts: &Facts, peer: &str, document: &[u8]) {
    if let Err(error) = facts.merge_from_peer(document) {
        tracing::warn!(replica = peer, %error, "its facts cannot be used");
    }
}
