//! Cancel requests whose session is at another replica: to that replica, and from it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pgimbal_pooler::cancel::KeyOwner;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::cancels::Delivery;
use super::message::Message;
use crate::cancel_keys::WrongKeyLimiter;
use crate::peers::{Asked, Kind, Peers};
use crate::pending_logins::Subnet;

/// How long a peer may take to deliver a cancel request; a server that does not answer ends it
/// earlier, after `server_connect_timeout`.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is known of a shown key when its request has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shown {
    /// It is that of a session.
    Known,
    /// No session has it.
    Wrong,
    /// The replica that could say did not answer, or was not met yet.
    Unanswered,
}

/// A cancel request on its way to the replica of its session. It has no `Debug`: the secret is
/// one.
#[derive(Serialize, Deserialize)]
struct PeerCancel {
    process_id: u32,
    secret: Box<[u8]>,
    /// The address of the client that has sent it; `None` for a Unix socket.
    from: Option<IpAddr>,
}

/// Hands a cancel request to the workers of this replica, of which one may have the session, or to
/// the replicas that the key names, and waits until it has been dealt with.
pub(super) async fn deliver(
    workers: &[mpsc::UnboundedSender<Message>],
    peers: &Peers,
    (process_id, secret): (u32, Box<[u8]>),
    from: Option<IpAddr>,
) -> Shown {
    if !peers.is_on() {
        return deliver_here(workers, process_id, secret.into()).await;
    }
    let (id, is_own) = match KeyOwner::of(process_id, &secret) {
        KeyOwner::Peer(id) => (Some(id.get()), peers.is_own_peer_id(id.get())),
        KeyOwner::Unknown => (None, true),
        KeyOwner::Nobody => return Shown::Wrong,
    };
    let here: Arc<[u8]> = secret.as_ref().into();
    if is_own && deliver_here(workers, process_id, here).await == Shown::Known {
        return Shown::Known;
    }
    let others = peers.owners(id).await;
    // Nobody who was asked can tell that such a key is wrong.
    let is_unmet =
        id.map_or(peers.may_be_more(), |_| !is_own && others.is_empty() && peers.may_be_more());
    let request = PeerCancel { process_id, secret, from };
    // A struct of numbers can always be written.
    let body = serde_json::to_vec(&request).unwrap_or_default();
    let mut asked = JoinSet::new();
    for peer in others {
        let (peers, body) = (peers.clone(), body.clone());
        asked.spawn(async move { peers.ask(peer, Kind::Cancel, body, PATIENCE).await });
    }
    let mut shown = if is_unmet { Shown::Unanswered } else { Shown::Wrong };
    while let Some(answer) = asked.join_next().await {
        match answer {
            // A key is that of one session; the rest need not be waited for.
            Ok(Ok(known)) if &*known == b"true" => return Shown::Known,
            Ok(Ok(_)) => {}
            Ok(Err(_)) | Err(_) => shown = Shown::Unanswered,
        }
    }
    shown
}

async fn deliver_here(
    workers: &[mpsc::UnboundedSender<Message>],
    process_id: u32,
    secret: Arc<[u8]>,
) -> Shown {
    let (delivery, delivered) = Delivery::new();
    for to in workers {
        let (secret, delivery) = (Arc::clone(&secret), delivery.clone());
        // A worker that has ended has no sessions.
        let _ = to.send(Message::Cancel { process_id, secret, delivery });
    }
    drop(delivery);
    if delivered.wait().await { Shown::Known } else { Shown::Wrong }
}

/// Delivers the cancel requests that other replicas forward, until the process ends. They are not
/// forwarded again. A wrong key counts for the client's address here too, whichever replica it has
/// chosen.
pub async fn serve_peers(
    mut requests: mpsc::UnboundedReceiver<Asked>,
    workers: Arc<[mpsc::UnboundedSender<Message>]>,
    keys: Arc<WrongKeyLimiter>,
) {
    while let Some(asked) = requests.recv().await {
        let (workers, keys) = (Arc::clone(&workers), Arc::clone(&keys));
        tokio::spawn(async move {
            let answer = match serde_json::from_slice(&asked.body) {
                Ok(request) => Ok(serve(request, &workers, &keys).await),
                Err(_) => Err("no cancel request".to_owned()),
            };
            asked.reply.send(answer);
        });
    }
}

async fn serve(
    request: PeerCancel,
    workers: &[mpsc::UnboundedSender<Message>],
    keys: &WrongKeyLimiter,
) -> Vec<u8> {
    let from = Subnet::of(request.from);
    let allowed = keys.allows(from, Instant::now());
    let is_known = allowed
        && deliver_here(workers, request.process_id, request.secret.into()).await == Shown::Known;
    if allowed && !is_known && keys.record_wrong(from, Instant::now()) {
        let from = request.from.map(|from| from.to_string());
        tracing::warn!(
            peer = from.as_deref().unwrap_or("unix"),
            "too many cancel requests with wrong keys, through other replicas; those from this \
             address are passed over for a minute"
        );
    }
    is_known.to_string().into_bytes()
}
