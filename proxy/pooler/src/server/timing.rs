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
}

impl Timing {
    /// Nothing was sent yet.
    pub(crate) const fn new(now: Instant) -> Self {
        Self { transaction: now, query: now }
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

    /// A query of a client has ended. Returns how long it took.
    #[inline]
    pub(crate) fn end_query(&mut self, now: Instant) -> Duration {
        now - std::mem::replace(&mut self.query, now)
    }

    /// A transaction of a client has ended. Returns how long it took.
    #[inline]
    pub(crate) fn end_transaction(&mut self, now: Instant) -> Duration {
        now - std::mem::replace(&mut self.transaction, now)
    }
}
