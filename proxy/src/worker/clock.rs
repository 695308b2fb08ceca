//! The pause between two runs of a worker's timers, and how it is ended early.

use std::cell::Cell;
use std::time::Duration;

use pgimbal_pooler::pool::timers::QUIET_TICK;
use tokio::sync::Notify;

/// The pause between two runs of a worker's timers. One task waits for it, and all others of the
/// worker may end it.
#[derive(Debug)]
pub(super) struct Clock {
    early: Notify,
    /// The length of the current pause.
    pause: Cell<Duration>,
}

impl Clock {
    /// Makes a clock whose first pause counts as [`QUIET_TICK`].
    pub(super) fn new() -> Self {
        Self { early: Notify::new(), pause: Cell::new(QUIET_TICK) }
    }

    /// Waits for `pause`, in the timers' task only. Returns false when [`Self::end_pause`] ended
    /// it.
    pub(super) async fn wait(&self, pause: Duration) -> bool {
        self.pause.set(pause);
        tokio::select! {
            () = tokio::time::sleep(pause) => true,
            () = self.early.notified() => false,
        }
    }

    /// Ends the current pause if it is longer than `pause`, because a timer is due sooner.
    pub(super) fn shorten_to(&self, pause: Duration) {
        if pause < self.pause.get() {
            self.end_pause();
        }
    }

    /// Ends the current pause at once; without one, the next pause ends at once.
    pub(super) fn end_pause(&self) {
        self.early.notify_one();
    }
}
