//! What is brought back after a RESET or DEALLOCATE of a client's.

use std::sync::Arc;

/// What is to be brought back when a server connection is ready.
#[derive(Debug, Default)]
pub(crate) struct Restore {
    /// Settings that may stand at the server's defaults, where the client has startup values.
    pub(crate) names: Vec<Arc<[u8]>>,
    /// Queries.
    pub(crate) queries: Vec<Box<[u8]>>,
    /// Queries that hold until the transaction block ends.
    pub(crate) local: Vec<Box<[u8]>>,
    /// Settings that were brought back in the segment that is under way, with which that is rolled
    /// back too; DISCARD ALL is not.
    pub(crate) in_segment: Vec<Arc<[u8]>>,
    /// Settings that were brought back in the transaction block that is open.
    pub(crate) in_block: Vec<Arc<[u8]>>,
}

impl Restore {
    /// Whether something may have to be brought back when the segment has ended.
    #[inline]
    pub(crate) const fn may_be_due(&self) -> bool {
        !self.is_empty() || !self.in_segment.is_empty() || !self.in_block.is_empty()
    }

    /// The transaction has committed: what was brought back in it stays, unless code has set it
    /// since.
    pub(crate) fn on_commit(&mut self) {
        self.in_segment.clear();
        self.in_block.clear();
    }

    /// A savepoint was gone back to: what was brought back behind it has gone with it.
    pub(crate) fn on_rollback_to(&mut self) {
        self.names.extend_from_slice(&self.in_block);
    }

    /// Notes that `names` are brought back in a transaction block.
    pub(crate) fn remember(&mut self, names: &[Arc<[u8]>]) {
        for name in names {
            if !self.in_block.contains(name) {
                self.in_block.push(Arc::clone(name));
            }
        }
    }

    /// Whether nothing is due.
    #[inline]
    pub(crate) const fn is_empty(&self) -> bool {
        self.names.is_empty() && self.queries.is_empty() && self.local.is_empty()
    }
}
