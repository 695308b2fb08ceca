//! Since when a server connection runs what it runs.

use std::time::{Duration, Instant};

use pgimbal_wire::encode::TransactionStatus;

/// When the transaction and the query began whose end comes next.
///
/// A query is a simple query or the messages up to a Sync: what one ReadyForQuery answers. It begins
/// when its first message is sent while nothing else is under way; one that was pipelined behind
/// another begins with the end of that one, because the server does not look at it before.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timing {
    transaction: Instant,
    query: Instant,
    /// When the client that has the server connection began to wait for it, and when it got it;
    /// `None` once a transaction of its has ended.
    wait: Option<(Instant, Instant)>,
}

impl Timing {
    /// Nothing was sent yet.
    pub(crate) const fn new(now: Instant) -> Self {
        Self { transaction: now, query: now, wait: None }
    }

    /// The first message of a query is sent, and the server has answered all before; `status` is
    /// what it said last.
    #[inline]
    pub(crate) fn begin(&mut self, status: TransactionStatus, now: Instant) {
        self.query = now;
        if status == TransactionStatus::Idle {
            self.transaction = now;
        }
    }

    /// A client has the server connection from now on, and has waited for that long.
    #[inline]
    pub(crate) fn link(&mut self, waited: Duration, now: Instant) {
        self.wait = now.checked_sub(waited).map(|asked| (asked, now));
    }

    /// Takes the wait before the transaction that has ended, if that was the first.
    #[inline]
    pub(crate) fn take_wait(&mut self) -> Option<(Instant, Instant)> {
        self.wait.take()
    }

    /// A query of a client has ended. Returns how long it took.
    #[inline]
    pub(crate) fn end_query(&mut self, now: Instant) -> Duration {
        now - std::mem::replace(&mut self.query, now)
    }

    /// A transaction of a client has ended. Returns when it began.
    #[inline]
    pub(crate) fn end_transaction(&mut self, now: Instant) -> Instant {
        std::mem::replace(&mut self.transaction, now)
    }
}
