//! A worker's clock: one task that looks at what time brings.

use std::rc::Rc;
use std::time::Instant;

use pgimbal_pooler::tick::{QUIET_TICK, WAITING_TICK};

use super::Worker;

impl Worker {
    /// Calls the core's tick, often while somebody waits. Runs until the worker ends.
    pub(super) async fn keep_house(self: Rc<Self>) {
        let mut looked_over = Instant::now();
        loop {
            let waits = self.state.borrow().pooler.anybody_waits();
            if waits {
                tokio::time::sleep(WAITING_TICK).await;
            } else {
                let pause = tokio::time::sleep(QUIET_TICK);
                tokio::select! {
                    () = pause => {}
                    () = self.housekeeping.notified() => continue,
                }
            }
            let now = Instant::now();
            {
                let mut state = self.state.borrow_mut();
                if now >= looked_over + QUIET_TICK {
                    state.reap_idle(now);
                }
                state.pooler.tick(now, &mut looked_over);
            }
            self.perform();
        }
    }
}
