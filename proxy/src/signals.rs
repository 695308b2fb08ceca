//! Signals, from the process's first moment on: one that comes before anybody listens would end it
//! in the kernel's way.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// SIGTERM: let transactions come to their end, then end.
    Drain,
    /// SIGINT: end now.
    Stop,
    /// SIGHUP: read the configuration again.
    Reload,
}

/// The signals that the process listens to.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    /// Listens from here on. What comes before [`Self::next`] is called is kept for it. Must be
    /// called inside a runtime.
    ///
    /// # Errors
    /// The system's.
    pub fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// The next signal; nothing is lost when this is not awaited to its end.
    pub async fn next(&mut self) -> Told {
        tokio::select! {
            _ = self.terminate.recv() => Told::Drain,
            _ = self.interrupt.recv() => Told::Stop,
            _ = self.hangup.recv() => Told::Reload,
        }
    }

    /// `work`'s result, or `None` when a signal ends the process before. A reload waits for
    /// [`Self::next`].
    pub async fn unless_ended<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            done = work => Some(done),
            _ = self.end() => None,
        }
    }

    async fn end(&mut self) -> Told {
        tokio::select! {
            _ = self.terminate.recv() => Told::Drain,
            _ = self.interrupt.recv() => Told::Stop,
        }
    }
}

/// Runs what may block, such as reading a file, on a thread that nobody waits for when the process
/// ends.
///
/// # Errors
/// There is no thread to be had, or `work` panicked.
pub async fn beside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    let (reply, done) = oneshot::channel();
    std::thread::Builder::new().name("start".to_owned()).spawn(move || {
        // Nobody waits for it when the process ends.
        let _ = reply.send(work());
    })?;
    done.await.map_err(|_| io::Error::other("the start has failed"))
}
