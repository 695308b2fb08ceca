//! When a session has last written, so that its reads show it.

use std::time::Instant;

/// Whether a session may have written since its last transaction ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Wrote {
    /// No: everything that it has sent is known to read only.
    No,
    /// Perhaps, if it is at a primary; every transaction begins so.
    #[default]
    Perhaps,
    /// It has, wherever it is: also where its replica has become a primary meanwhile.
    Surely,
}

/// What a session has written on a cluster.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Writing {
    last: Option<Instant>,
    wrote: Wrote,
    /// When the read has come that waits for a fresh replica; `None` if none does.
    read_since: Option<Instant>,
}

impl Writing {
    /// When the last write ended, or what may have been one; `None` before the first.
    pub(crate) const fn last(self) -> Option<Instant> {
        self.last
    }

    /// When the read has come that waits for a fresh replica; `None` if none does.
    pub(crate) const fn read_since(self) -> Option<Instant> {
        self.read_since
    }

    /// A read that has come then waits for a fresh replica.
    pub(crate) const fn begin_read(&mut self, since: Instant) {
        self.read_since = Some(since);
    }

    /// No read waits any more.
    pub(crate) const fn end_read(&mut self) {
        self.read_since = None;
    }

    /// Whether what the session has sent since its last transaction ended may have written.
    pub(crate) const fn wrote(self) -> Wrote {
        self.wrote
    }

    /// A write has ended at `now`, or what may have been one.
    pub(crate) const fn note(&mut self, now: Instant) {
        self.last = Some(now);
    }

    /// Says whether what the session sends may write, until all of it is answered: then it may
    /// again. [`Wrote::No`] is for what is known to read only, said while the session has no server
    /// connection, and taken back before anything else follows on that.
    pub(crate) const fn set(&mut self, wrote: Wrote) {
        self.wrote = wrote;
    }
}
