//! Cancel requests on their way from a client to the worker of its session, and on to the server.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use pgimbal_pooler::ids::ServerId;
use tokio::sync::mpsc;

/// A cancel request (protocol's "Canceling Requests in Progress") on its way to a server. Each
/// worker gets a copy, and drops it at once unless the session is its own and runs something: then
/// it keeps the copy until the request to the server was sent, or has failed. When the last copy is
/// dropped, the request has ended, and pgimbal closes the connection of the client that sent it.
#[derive(Clone, Debug)]
pub struct Delivery {
    known: Arc<AtomicBool>,
    _end: mpsc::Sender<()>,
}

/// Waits for the end of a [`Delivery`], in the login of the client that sent the request.
#[derive(Debug)]
pub(super) struct Delivered {
    known: Arc<AtomicBool>,
    ended: mpsc::Receiver<()>,
}

/// The cancel requests that are being sent to servers, each with the server connection that it is
/// for.
#[derive(Debug, Default)]
pub(super) struct Cancels(Vec<(ServerId, Delivery)>);

impl Delivery {
    /// Makes a request, and the end that waits for it.
    pub(super) fn new() -> (Self, Delivered) {
        let (end, ended) = mpsc::channel(1);
        let known = Arc::new(AtomicBool::new(false));
        (Self { known: Arc::clone(&known), _end: end }, Delivered { known, ended })
    }

    /// Records that the shown key was that of a session, so that the client's address is not blamed
    /// for a wrong key.
    pub(super) fn set_known(&self) {
        self.known.store(true, Relaxed);
    }
}

impl Delivered {
    /// Waits until the last copy of the [`Delivery`] is dropped. Returns whether the key was that
    /// of a session of some worker.
    pub(super) async fn wait(mut self) -> bool {
        // Nothing is ever sent.
        let _ = self.ended.recv().await;
        self.known.load(Relaxed)
    }
}

impl Cancels {
    /// Keeps `delivery` until the cancel request to `server` was sent ([`Self::sent`]).
    pub(super) fn add(&mut self, server: ServerId, delivery: Delivery) {
        self.0.push((server, delivery));
    }

    /// Ends one request for `server`: it was sent, or could not be. No effect when there is none.
    pub(super) fn sent(&mut self, server: ServerId) {
        if let Some(at) = self.0.iter().position(|(of, _)| *of == server) {
            drop(self.0.swap_remove(at));
        }
    }
}
