//! When a session has last written, so that its reads show it.

use std::time::Instant;

/// Whether a session may have written since its last transaction ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Wrote {
    /// No: everything that it has sent is known to read only.
    No,
    /// Perhaps; every transaction begins so.
    #[default]
    Perhaps,
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

    /// Something ends at `now` that the session has sent to a primary. Returns whether it may have
    /// been a write.
    pub(crate) const fn end(&mut self, now: Instant) -> Wrote {
        if matches!(self.wrote, Wrote::Perhaps) {
            self.last = Some(now);
        }
        self.wrote
    }

    /// Says whether what the session sends may write, until all of it is answered: then it may
    /// again. [`Wrote::No`] is for what is known to read only, said while the session has no server
    /// connection, and taken back before anything else follows on that.
    pub(crate) const fn set(&mut self, wrote: Wrote) {
        self.wrote = wrote;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_reads_is_no_write() {
        let now = Instant::now();
        let mut writing = Writing::default();
        writing.set(Wrote::No);
        assert_eq!((writing.end(now), writing.last()), (Wrote::No, None));
        writing.set(Wrote::Perhaps);
        assert_eq!((writing.end(now), writing.last()), (Wrote::Perhaps, Some(now)));
    }
}
