//! The process's signals, handled from its start: a signal without a handler would end the process
//! at once.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

/// The request that a signal stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignalRequest {
    /// SIGTERM: let transactions end, then end the process.
    Drain,
    /// SIGINT: end the process now.
    Stop,
    /// SIGHUP: read the configuration again.
    Reload,
    /// SIGUSR2: start a new process that takes the listeners over, then drain.
    TakeOver,
}

/// The handlers of SIGTERM, SIGINT, SIGHUP and SIGUSR2.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    user_2: Signal,
}

impl Signals {
    /// Installs the handlers. A signal that arrives before [`Self::next`] is called is kept for it.
    /// Must be called within a tokio runtime.
    ///
    /// # Errors
    /// The operating system's error, when a handler cannot be installed.
    pub fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            user_2: signal(SignalKind::user_defined2())?,
        })
    }

    /// Waits for the next signal. It is cancel-safe: no signal is lost when the future is dropped.
    pub async fn next(&mut self) -> SignalRequest {
        tokio::select! {
            _ = self.terminate.recv() => SignalRequest::Drain,
            _ = self.interrupt.recv() => SignalRequest::Stop,
            _ = self.hangup.recv() => SignalRequest::Reload,
            _ = self.user_2.recv() => SignalRequest::TakeOver,
        }
    }

    /// Runs `work` and returns its result; `None` when SIGTERM or SIGINT arrives first, even before
    /// the call. Then `work` is dropped where it stands, and the signal is taken: [`Self::next`]
    /// does not return it again. A SIGHUP or SIGUSR2 waits for [`Self::next`]. Called during the start.
    pub async fn until_shutdown<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            done = work => Some(done),
            _ = self.end() => None,
        }
    }

    async fn end(&mut self) -> SignalRequest {
        tokio::select! {
            _ = self.terminate.recv() => SignalRequest::Drain,
            _ = self.interrupt.recv() => SignalRequest::Stop,
        }
    }
}

/// Runs `work`, which may block, on a thread that the end of the process does not wait for.
///
/// # Errors
/// An error when no thread can be started, or `work` panicked.
pub async fn run_on_own_thread<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    let (reply, done) = oneshot::channel();
    std::thread::Builder::new().name("start".to_owned()).spawn(move || {
        // Nobody waits for it when the process ends.
        let _ = reply.send(work());
    })?;
    done.await.map_err(|_| io::Error::other("the start has failed"))
}
