//! Verifiers are made beside the work, a few at a time: each costs milliseconds.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use pgimbal_auth::account::{LoginKeys, UnusableSecret};
use pgimbal_auth::verifier::Salting;
use pgimbal_config::Secret;
use tokio::task::{JoinError, JoinSet};

/// Threads that do so at a time; the workers need the cores too.
const AT_ONCE: usize = 2;

/// A verifier to make.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) role: Arc<str>,
    pub(super) number: u32,
    pub(super) password: Secret,
    pub(super) salting: Salting,
    /// When the question was sent whose answer this is.
    pub(super) since: Instant,
}

/// One that was made.
#[derive(Debug)]
pub(super) struct Derived {
    pub(super) role: Arc<str>,
    pub(super) number: u32,
    pub(super) keys: Result<LoginKeys, UnusableSecret>,
    pub(super) since: Instant,
}

/// Those that are to be made.
#[derive(Debug, Default)]
pub(super) struct Derivations {
    waiting: VecDeque<Order>,
    running: JoinSet<Derived>,
}

impl Derivations {
    pub(super) fn add_all(&mut self, orders: impl IntoIterator<Item = Order>) {
        self.waiting.extend(orders);
        self.start();
    }

    fn start(&mut self) {
        while self.running.len() < AT_ONCE
            && let Some(order) = self.waiting.pop_front()
        {
            self.running.spawn_blocking(move || {
                let Order { role, number, password, salting, since } = order;
                let keys = LoginKeys::derive(&role, &password, &salting);
                Derived { role, number, keys, since }
            });
        }
    }

    /// The next one that is made; `None` while none is.
    pub(super) async fn next(&mut self) -> Option<Result<Derived, JoinError>> {
        let done = self.running.join_next().await?;
        self.start();
        Some(done)
    }
}
