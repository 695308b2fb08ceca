//! The exchange of facts with the peers: each gets the whole document after a change that was made
//! here, and when it is met; its answer is its own document, which is merged.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use hyper::body::Bytes;
use pgimbal_replicas::InstanceId;
use tokio::sync::mpsc;
use tokio::task::{Id, JoinSet};
use tokio::time::{Instant, sleep_until};
use tracing::{debug, warn};
use zeroize::Zeroizing;

use super::{Change, Facts, off_main_thread};
use crate::peers::{AskError, Asked, Kind, Peers};

/// Time limit for a peer's answer.
const PATIENCE: Duration = Duration::from_secs(4);

/// A peer that did not answer is told again after this pause, as often as it gives a sign of life.
const AGAIN: Duration = Duration::from_secs(1);

/// A peer with the last change that it was sent, and what became of it.
type Told = (InstanceId, Change, Outcome);

/// What became of a document that a peer was sent.
enum Outcome {
    /// It has it, and its own was merged.
    Merged,
    /// It has it, and its own cannot be read; with the reason.
    Unreadable(String),
    /// It may not have it.
    Failed(AskError),
}

/// Exchanges facts with the peers for as long as the process runs; `asked` are their documents.
pub async fn exchange(facts: Facts, peers: Peers, asked: mpsc::UnboundedReceiver<Asked>) {
    tokio::join!(answer(facts.clone(), asked), tell(facts, peers));
}

/// Answers the peers' documents, for as long as there are peers.
async fn answer(facts: Facts, mut requests: mpsc::UnboundedReceiver<Asked>) {
    while let Some(Asked { from, body, reply }) = requests.recv().await {
        let merged = merge(&facts, body).await;
        if let Err(reason) = &merged {
            warn!("the document of replica {from} is {reason}; it is not used");
        }
        reply.send(merged.map(|bytes| bytes.to_vec()));
    }
}

/// Merges a peer's document into the one here, and returns the merged one; an error is the reason
/// for which it cannot be read.
async fn merge(facts: &Facts, body: Bytes) -> Result<Zeroizing<Vec<u8>>, String> {
    let (size, facts) = (body.len().max(facts.stored_size()), facts.clone());
    let merged = off_main_thread(size, move || facts.merge_from_peer(&body)).await;
    merged.map_err(|error| error.to_string())
}

/// Tells one peer, and merges its answer.
async fn tell_one(facts: Facts, peers: Peers, peer: InstanceId) -> Told {
    // What is added from here on may be missing in what is sent.
    let (change, sender) = (facts.last_change(), facts.clone());
    let bytes = off_main_thread(facts.stored_size(), move || sender.to_bytes()).await;
    let outcome = match peers.ask(peer, Kind::Facts, bytes.to_vec(), PATIENCE).await {
        Ok(body) => merge(&facts, body).await.map_or_else(Outcome::Unreadable, |_| Outcome::Merged),
        Err(error) => Outcome::Failed(error),
    };
    (peer, change, outcome)
}

/// Sends what has changed here to every peer, for as long as the process. Ends at once without
/// peers.
async fn tell(facts: Facts, peers: Peers) {
    let Some(mut met) = peers.changed() else { return };
    let mut published = facts.document();
    let mut rounds = Rounds::default();
    let mut asking: JoinSet<Told> = JoinSet::new();
    let mut asked: HashMap<Id, InstanceId> = HashMap::new();
    loop {
        let members = peers.members();
        let alive = members.iter().filter(|peer| peer.is_alive()).filter_map(|peer| peer.instance);
        let now = Instant::now();
        for peer in rounds.due(&alive.collect(), facts.last_change(), now) {
            let task = asking.spawn(tell_one(facts.clone(), peers.clone(), peer));
            asked.insert(task.id(), peer);
        }
        let again = rounds.next_timeout(now);
        tokio::select! {
            Ok(()) = published.changed() => published.mark_unchanged(),
            changed = met.changed() => if changed.is_err() { return },
            () = sleep_until(again.unwrap_or(now)), if again.is_some() => {}
            Some(ended) = asking.join_next_with_id() => {
                let id = ended.as_ref().map_or_else(|error| error.id(), |(id, _)| *id);
                let peer = asked.remove(&id);
                match (ended, peer) {
                    (Ok((_, told)), _) => rounds.handle(told),
                    // It has panicked, and says so itself: the peer is told again.
                    (Err(_), Some(peer)) => rounds.handle_failure(peer, Instant::now()),
                    (Err(_), None) => {}
                }
            }
        }
    }
}

/// Which peers have which change, and when those that lack one are told. One that does not answer
/// delays no other.
#[derive(Default)]
struct Rounds {
    /// The last change that each living peer has.
    known: BTreeMap<InstanceId, Change>,
    /// Peers that are being told.
    busy: BTreeSet<InstanceId>,
    /// Peers that did not answer, and when they are told again.
    failed: BTreeMap<InstanceId, Instant>,
}

impl Rounds {
    /// The peers among those `alive` that are to be told now of everything up to `change`; each is
    /// busy until its answer or its failure is handled.
    fn due(
        &mut self,
        alive: &BTreeSet<InstanceId>,
        change: Change,
        now: Instant,
    ) -> Vec<InstanceId> {
        self.known.retain(|peer, _| alive.contains(peer));
        self.failed.retain(|peer, again| alive.contains(peer) && *again > now);
        let lacks = |peer: &InstanceId| self.known.get(peer).is_none_or(|known| *known < change);
        let due: Vec<InstanceId> = alive
            .iter()
            .filter(|peer| lacks(peer))
            .filter(|peer| !self.busy.contains(peer) && !self.failed.contains_key(peer))
            .copied()
            .collect();
        self.busy.extend(&due);
        due
    }

    /// Handles what became of a document that a peer was sent.
    fn handle(&mut self, (peer, change, outcome): Told) {
        match outcome {
            Outcome::Merged => self.handle_answer(peer, change),
            Outcome::Unreadable(reason) => {
                warn!("the document of replica {peer} is {reason}; it is not used");
                self.handle_answer(peer, change);
            }
            Outcome::Failed(error) => {
                debug!("replica {peer} was not told of the facts: {error}");
                self.handle_failure(peer, Instant::now());
            }
        }
    }

    /// Handles the answer of a peer, which has `change` and all before it.
    fn handle_answer(&mut self, peer: InstanceId, change: Change) {
        self.busy.remove(&peer);
        self.known.insert(peer, change);
    }

    /// Handles a peer that has not answered.
    fn handle_failure(&mut self, peer: InstanceId, now: Instant) {
        self.busy.remove(&peer);
        self.failed.insert(peer, now + AGAIN);
    }

    /// When [`Self::due`] must be asked again although nothing has happened; `None` when nobody
    /// waits for a pause to end. Later than `now`.
    fn next_timeout(&self, now: Instant) -> Option<Instant> {
        self.failed.values().copied().filter(|again| *again > now).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// More than is merged at once.
    const LARGE: usize = 1 << 20;
    const PEERS: [InstanceId; 3] = [InstanceId(1), InstanceId(2), InstanceId(3)];

    #[test]
    fn a_peer_that_does_not_answer_delays_no_other() {
        let (alive, start) = (BTreeSet::from(PEERS), Instant::now());
        let mut rounds = Rounds::default();
        assert_eq!(rounds.due(&alive, Change(1), start), PEERS);
        assert_eq!(rounds.due(&alive, Change(1), start), [], "all are being told");
        rounds.handle_failure(PEERS[0], start);
        rounds.handle_answer(PEERS[1], Change(1));
        // The next change goes to the one that has answered, at once.
        assert_eq!(rounds.due(&alive, Change(2), start), [PEERS[1]]);
        rounds.handle_answer(PEERS[1], Change(2));
        rounds.handle_answer(PEERS[2], Change(1));
        assert_eq!(rounds.due(&alive, Change(2), start), [PEERS[2]]);
        let again = rounds.next_timeout(start).expect("one waits");
        assert_eq!(again, start + AGAIN);
        assert_eq!(rounds.due(&alive, Change(2), again), [PEERS[0]]);
        assert_eq!(rounds.next_timeout(again), None);
    }

    #[test]
    fn a_peer_that_has_gone_is_forgotten_and_told_everything_when_it_is_back() {
        let (alive, now) = (BTreeSet::from(PEERS), Instant::now());
        let mut rounds = Rounds::default();
        for peer in rounds.due(&alive, Change(1), now) {
            rounds.handle_answer(peer, Change(1));
        }
        assert_eq!(rounds.due(&BTreeSet::new(), Change(1), now), []);
        assert_eq!(rounds.due(&alive, Change(1), now), PEERS);
        rounds.handle_failure(PEERS[0], now);
        assert_eq!(rounds.due(&BTreeSet::new(), Change(1), now), []);
        assert_eq!(rounds.next_timeout(now), None);
    }

    #[test]
    fn a_large_document_does_not_hold_up_the_main_thread() {
        // The one other thread is busy, so that what goes there waits.
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.max_blocking_threads(1).build().expect("a runtime");
        runtime.block_on(async {
            let (release, released) = std::sync::mpsc::channel::<()>();
            let busy = tokio::task::spawn_blocking(move || released.recv().is_err());
            let facts = Facts::alone();
            let mut merging = Box::pin(merge(&facts, facts.to_bytes().to_vec().into()));
            assert!(is_ready(&mut merging), "a small one is merged at once");
            let mut merging = Box::pin(merge(&facts, vec![0; LARGE].into()));
            assert!(!is_ready(&mut merging));
            drop(release);
            assert!(busy.await.expect("an end"));
            assert!(merging.await.is_err(), "it is no document");
        });
    }

    fn is_ready<F: Future>(future: &mut std::pin::Pin<Box<F>>) -> bool {
        let waker = std::task::Waker::noop();
        future.as_mut().poll(&mut std::task::Context::from_waker(waker)).is_ready()
    }
}
