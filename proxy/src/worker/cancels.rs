//! Cancel requests on their way from a client to the worker of its session, and on to the server.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use pgimbal_pooler::ids::ServerId;
use tokio::sync::mpsc;

/// A cancel request on its way. When the last copy is dropped, the client's connection ends.
#[derive(Clone, Debug)]
pub struct Delivery {
    known: Arc<AtomicBool>,
    _end: mpsc::Sender<()>,
}

/// Waits for the end of a [`Delivery`].
#[derive(Debug)]
pub(super) struct Delivered {
    known: Arc<AtomicBool>,
    ended: mpsc::Receiver<()>,
}

/// Requests that are being sent to servers, and who waits for the end of each.
#[derive(Debug, Default)]
pub(super) struct Cancels(Vec<(ServerId, Delivery)>);

impl Delivery {
    pub(super) fn new() -> (Self, Delivered) {
        let (end, ended) = mpsc::channel(1);
        let known = Arc::new(AtomicBool::new(false));
        (Self { known: Arc::clone(&known), _end: end }, Delivered { known, ended })
    }

    /// The key was that of a session.
    pub(super) fn set_known(&self) {
        self.known.store(true, Relaxed);
    }
}

impl Delivered {
    /// Waits until the last copy is dropped; whether the key was that of a session.
    pub(super) async fn wait(mut self) -> bool {
        // Nothing is ever sent.
        let _ = self.ended.recv().await;
        self.known.load(Relaxed)
    }
}

impl Cancels {
    pub(super) fn add(&mut self, server: ServerId, delivery: Delivery) {
        self.0.push((server, delivery));
    }

    /// A request has been sent to this server.
    pub(super) fn sent(&mut self, server: ServerId) {
        if let Some(at) = self.0.iter().position(|(of, _)| *of == server) {
            drop(self.0.swap_remove(at));
        }
    }
}
