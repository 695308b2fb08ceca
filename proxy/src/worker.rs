//! A worker: one thread with a runtime of its own, its clients and its server connections.
//!
//! The tasks of a worker share a `Worker` (see `shared.rs`). The core (`pgimbal_pooler`) decides
//! what the bytes mean.

mod actions;
mod cancels;
mod client;
mod client_task;
mod clients;
mod clock;
mod dead_peers;
mod idle_servers;
mod inbox;
mod lifecycle;
mod listener_task;
mod login;
mod message;
mod migrant;
mod migration;
mod outbox;
mod peer_cancels;
mod pools;
mod receive;
mod server_task;
mod servers;
mod serving;
mod shared;
mod snapshot;
mod start;
mod state;
mod timers;
mod turn;

use std::io;
use std::rc::Rc;
use std::thread::JoinHandle;

use pgimbal_pooler::ids::WorkerId;
use tokio::sync::mpsc;

pub use message::{Accepted, Message, Origin};
pub use peer_cancels::serve_peers as serve_peer_cancels;
pub use shared::Common;

use crate::admin::collect::SnapshotRequest;
use receive::receive;
use shared::Worker;

/// The receiving ends of a worker's channels, which its thread reads until [`Message::Stop`].
#[derive(Debug)]
pub struct Channels {
    /// Messages of the main task, the listeners, the credentials' task, the clusters' watchers and
    /// other workers. The worker also ends when all senders are dropped.
    pub messages: mpsc::UnboundedReceiver<Message>,
    /// Requests of the console and of the metrics for a snapshot of the worker's state. They are
    /// answered between messages; the worker goes on without them when all senders are dropped.
    pub snapshots: mpsc::UnboundedReceiver<SnapshotRequest>,
}

/// Number of tasks that run before the kernel is asked for events although more are ready. Each
/// takes about 10 us, so a new event waits for a millisecond at most; tokio's 61 asks twice as
/// often.
const POLLS_BETWEEN_EVENTS: u32 = 128;

/// Starts worker `id` on a thread of its own, named `worker-ID` (`worker-0`), with a runtime for
/// one thread; the main task does so once for each worker at pgimbal's start. It returns once the
/// runtime is made. [`Message::Drain`] ends sessions but not the thread, which ends at
/// [`Message::Stop`] or when all senders of messages are dropped; whatever is still connected then
/// is dropped. Joining the handle waits for that end.
///
/// # Errors
/// The operating system's error when the thread or its runtime could not be made.
pub fn spawn(id: WorkerId, common: Common, channels: Channels) -> io::Result<JoinHandle<()>> {
    let (ready, started) = std::sync::mpsc::sync_channel(1);
    let thread = std::thread::Builder::new().name(format!("worker-{}", id.0)).spawn(move || {
        // A runtime for tasks of one thread cannot leave the thread that made it.
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        match runtime
            .enable_all()
            .event_interval(POLLS_BETWEEN_EVENTS)
            .build_local(Default::default())
        {
            Ok(runtime) => {
                let _ = ready.send(Ok(()));
                runtime.block_on(run(id, common, channels));
            }
            Err(error) => {
                let _ = ready.send(Err(error));
            }
        }
    })?;
    match started.recv() {
        Ok(started) => started.map(|()| thread),
        Err(_) => Err(io::Error::other("the worker's thread has ended")),
    }
}

async fn run(id: WorkerId, common: Common, mut channels: Channels) {
    let worker = Rc::new(Worker::new(id, common));
    let timers = tokio::task::spawn_local(timers::run(Rc::clone(&worker)));
    loop {
        tokio::select! {
            message = channels.messages.recv() => match message {
                Some(Message::Stop) | None => break,
                Some(message) => receive(&worker, message),
            },
            Some(request) = channels.snapshots.recv() => {
                snapshot::answer(&mut worker.state_mut(), request);
            }
        }
    }
    timers.abort();
}

#[cfg(test)]
mod tests;
