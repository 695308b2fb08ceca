//! A worker's clock: one task that looks at what time brings.

use std::rc::Rc;
use std::time::Instant;

use pgimbal_pooler::pool::timers::QUIET_TICK;

use super::Worker;

impl Worker {
    /// Calls the core's tick, often while somebody waits. Runs until the worker ends.
    pub(super) async fn run_timers(self: Rc<Self>) {
        let mut reaped = Instant::now();
        loop {
            let pause = self.state.borrow().pooler.timeout_interval();
            self.pause.set(pause);
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                // Something has come up that cannot wait so long.
                () = self.housekeeping.notified() => continue,
            }
            let now = Instant::now();
            {
                let mut state = self.state.borrow_mut();
                if now >= reaped + QUIET_TICK {
                    reaped = now;
                    state.reap_idle(now);
                }
                state.pooler.handle_timeout(now);
            }
            self.look_for_readers(now);
            self.perform();
        }
    }
}
