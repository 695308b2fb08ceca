//! How long a worker's timers rest, and what ends that early.

use std::cell::Cell;
use std::time::Duration;

use pgimbal_pooler::pool::timers::QUIET_TICK;
use tokio::sync::Notify;

/// The pause between two looks at a worker's timers. One task waits, all others may end its pause.
#[derive(Debug)]
pub(super) struct Clock {
    early: Notify,
    /// How long the current pause is.
    pause: Cell<Duration>,
}

impl Clock {
    pub(super) fn new() -> Self {
        Self { early: Notify::new(), pause: Cell::new(QUIET_TICK) }
    }

    /// Waits for `pause`; `false` when it was ended early.
    pub(super) async fn wait(&self, pause: Duration) -> bool {
        self.pause.set(pause);
        tokio::select! {
            () = tokio::time::sleep(pause) => true,
            () = self.early.notified() => false,
        }
    }

    /// Ends the current pause if it is longer than `pause`.
    pub(super) fn shorten_to(&self, pause: Duration) {
        if pause < self.pause.get() {
            self.end_pause();
        }
    }

    /// Ends the current pause at once.
    pub(super) fn end_pause(&self) {
        self.early.notify_one();
    }
}
