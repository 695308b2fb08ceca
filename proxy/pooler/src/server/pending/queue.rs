//! The queue of pending replies, in the order in which they will come.
//!
//! It is bounded, so that a client which pipelines without end is made to wait instead of filling
//! memory.

use std::collections::VecDeque;

use super::{CopyBegun, NameFor, Origin, Pending, Reply};

/// Entries that one server connection may have pending. A pipeline of unnamed statements needs two
/// entries for each Sync, so this is several hundred round trips in flight: more than hides any
/// latency.
pub const PENDING_LIMIT: usize = 1024;

/// The replies that a server connection has still to send, oldest first.
#[derive(Debug, Default)]
pub struct PendingReplies {
    entries: VecDeque<Pending>,
    /// Entries that would be undone if they were skipped.
    changes: usize,
}

impl PendingReplies {
    /// Adds a final reply that passes to the client.
    #[inline]
    pub fn pass(&mut self) {
        if let Some(Pending::Pass(n)) = self.entries.back_mut() {
            *n += 1;
        } else {
            self.entries.push_back(Pending::Pass(1));
        }
    }

    /// Adds `count` final replies that are swallowed.
    pub fn swallow(&mut self, count: u32) {
        if let Some(Pending::Swallow(n)) = self.entries.back_mut() {
            *n += count;
        } else {
            self.entries.push_back(Pending::Swallow(count));
        }
    }

    /// Notes that CopyDone or CopyFail was forwarded while a reply is pending that may be a COPY.
    pub fn copy_ended(&mut self) {
        match self.entries.back_mut() {
            Some(Pending::CopyEnd(n)) => *n += 1,
            Some(_) => self.entries.push_back(Pending::CopyEnd(1)),
            None => {}
        }
    }

    /// Whether what the client calls `name` depends on replies to an earlier segment.
    #[inline]
    pub fn is_name_unsure(&self, name: &[u8]) -> bool {
        self.changes > 0
            && self.earlier_segments().any(|entry| match entry {
                Pending::Parse(parse) => parse.change.as_ref().is_some_and(|c| *c.name == *name),
                Pending::Closed(change) => *change.name == *name,
                _ => false,
            })
    }

    /// Whether what any of the client's names means depends on replies to an earlier segment.
    pub fn are_names_unsure(&self) -> bool {
        self.changes > 0
            && self.earlier_segments().any(|entry| match entry {
                Pending::Parse(parse) => parse.change.is_some(),
                Pending::Closed(_) => true,
                _ => false,
            })
    }

    /// Whether what the unnamed statement is depends on replies to an earlier segment.
    #[inline]
    pub fn is_unnamed_unsure(&self) -> bool {
        let may_skip = self.changes > 0 && self.may_skip();
        self.changes > 0
            && self.earlier_segments().any(|entry| match entry {
                Pending::Unnamed(_, before) => may_skip || before.is_some(),
                _ => false,
            })
    }

    /// Whether a Parse or Close of the unnamed statement is pending.
    pub fn changes_unnamed(&self) -> bool {
        self.entries.iter().any(|entry| matches!(entry, Pending::Unnamed(..)))
    }

    /// What was asked for before the last Sync.
    fn earlier_segments(&self) -> impl Iterator<Item = &Pending> {
        self.entries
            .iter()
            .rev()
            .skip_while(|entry| !matches!(entry, Pending::Sync | Pending::OwnSync))
    }

    /// Whether an error in front of what is added now would make the server skip it.
    pub fn may_skip(&self) -> bool {
        self.entries
            .iter()
            .rev()
            .take_while(|entry| !matches!(entry, Pending::Sync | Pending::OwnSync))
            .any(|entry| {
                !matches!(entry, Pending::Query(_) | Pending::Own(_) | Pending::CopyEnd(_))
            })
    }

    /// Adds any entry.
    pub fn push(&mut self, entry: Pending) {
        self.changes += usize::from(entry.is_change());
        self.entries.push_back(entry);
    }

    /// As [`Self::front`], to be changed.
    #[inline]
    pub fn front_mut(&mut self) -> Option<&mut Pending> {
        self.entries.front_mut()
    }

    /// The reply that comes next.
    #[inline]
    pub fn front(&self) -> Option<&Pending> {
        self.entries.front()
    }

    /// One final reply of an extended-protocol message has come: takes it off the queue.
    /// Returns what it was, or `None` when no such reply was pending.
    #[inline]
    pub fn take_reply(&mut self) -> Option<Reply> {
        let is_change = self.entries.front().is_some_and(Pending::is_change);
        let reply = self.take_front();
        self.changes -= usize::from(is_change);
        self.settle_front();
        reply
    }

    #[inline]
    fn take_front(&mut self) -> Option<Reply> {
        match self.entries.front_mut()? {
            Pending::Pass(n) => {
                *n -= 1;
                if *n == 0 {
                    self.entries.pop_front();
                }
                Some(Reply::Pass)
            }
            Pending::Swallow(n) => {
                *n -= 1;
                if *n == 0 {
                    self.entries.pop_front();
                }
                Some(Reply::Swallow)
            }
            Pending::Parse(_)
            | Pending::Describe(_)
            | Pending::Evict(_)
            | Pending::Execute(_)
            | Pending::TemporaryName(..)
            | Pending::Witness(_)
            | Pending::ShapeCheck(_)
            | Pending::DescribeUnnamed(..)
            | Pending::UnnamedCheck(..)
            | Pending::Changed
            | Pending::Refused(_)
            | Pending::Unnamed(..) => match self.entries.pop_front()? {
                Pending::Unnamed(Origin::Client, _) => Some(Reply::Pass),
                Pending::Unnamed(Origin::Proxy, _) => Some(Reply::Swallow),
                Pending::Parse(parse) => Some(Reply::Parse(parse)),
                Pending::Describe(describe) => Some(Reply::Describe(describe)),
                Pending::Evict(id) => Some(Reply::Evict(id)),
                Pending::Execute(script) => Some(Reply::Execute(script)),
                Pending::TemporaryName(_, Some(name)) => Some(Reply::TemporaryName(name)),
                Pending::TemporaryName(_, None) | Pending::Witness(_) => Some(Reply::Swallow),
                Pending::ShapeCheck(check) => Some(Reply::ShapeCheck(check)),
                Pending::DescribeUnnamed(serial, parameters) => {
                    Some(Reply::DescribeUnnamed(serial, parameters))
                }
                Pending::UnnamedCheck(serial, parameters) => {
                    Some(Reply::UnnamedCheck(serial, parameters))
                }
                Pending::Changed | Pending::Refused(_) => Some(Reply::Pass),
                _ => None,
            },
            _ => None,
        }
    }

    /// Takes the reply at the front if it is one that the proxy makes.
    #[inline]
    pub fn take_made(&mut self) -> bool {
        let made = matches!(self.entries.front(), Some(Pending::Closed(_)));
        if made {
            self.entries.pop_front();
            self.changes -= 1;
            self.settle_front();
        }
        made
    }

    /// Takes the entry that a ReadyForQuery settles; `None` when none was pending.
    #[inline]
    pub fn take_ready(&mut self) -> Option<Pending> {
        let settled = match self.entries.front()? {
            Pending::Sync | Pending::OwnSync | Pending::Query(_) | Pending::Own(_) => {
                self.entries.pop_front()
            }
            _ => None,
        };
        self.settle_front();
        settled
    }

    /// After an error in the extended protocol: takes what the server will skip, the entries in
    /// front of the next Sync. The flag says whether there is such a Sync.
    pub fn take_skipped(&mut self) -> (Vec<Pending>, bool) {
        let sync = self.entries.iter().position(|e| matches!(e, Pending::Sync | Pending::OwnSync));
        let skipped: Vec<Pending> =
            self.entries.drain(..sync.unwrap_or(self.entries.len())).collect();
        self.changes -= skipped.iter().filter(|entry| entry.is_change()).count();
        (skipped, sync.is_some())
    }

    /// COPY FROM STDIN has begun: the server ignores the Syncs between the running statement and
    /// the end of its data.
    pub fn copy_begins(&mut self) -> CopyBegun {
        let mut begun = CopyBegun { ended: false, lost_sync: false };
        if !matches!(
            self.entries.front(),
            Some(Pending::Pass(1) | Pending::Execute(_) | Pending::Query(_))
        ) {
            return begun;
        }
        let mut forgotten = false;
        while matches!(self.entries.get(1), Some(Pending::Sync)) {
            self.entries.remove(1);
            forgotten = true;
        }
        if let Some(Pending::CopyEnd(n)) = self.entries.get_mut(1) {
            begun.ended = true;
            *n -= 1;
            if *n == 0 {
                self.entries.remove(1);
            }
        }
        begun.lost_sync = forgotten
            && !matches!(self.entries.front(), Some(Pending::Query(_)))
            && !self.entries.iter().any(|entry| matches!(entry, Pending::Sync));
        begun
    }

    /// Takes everything: the connection is gone.
    pub fn take_all(&mut self) -> VecDeque<Pending> {
        self.changes = 0;
        std::mem::take(&mut self.entries)
    }

    /// Whether what the server works on now was added by the proxy.
    pub fn is_proxys_own(&self) -> bool {
        match self.entries.front() {
            Some(
                Pending::Own(_)
                | Pending::OwnSync
                | Pending::Swallow(_)
                | Pending::TemporaryName(NameFor::Query | NameFor::Segment, _)
                | Pending::Witness(_)
                | Pending::Describe(_)
                | Pending::ShapeCheck(_)
                | Pending::UnnamedCheck(..)
                | Pending::Evict(_)
                | Pending::Unnamed(Origin::Proxy, _),
            ) => true,
            Some(Pending::Parse(parse)) => {
                parse.is_probed || (parse.change.is_none() && parse.statement.is_some())
            }
            _ => false,
        }
    }

    /// Whether what the server works on now is the client's.
    pub fn runs_clients(&self) -> bool {
        self.entries
            .front()
            .is_some_and(|entry| !matches!(entry, Pending::Own(_) | Pending::OwnSync))
    }

    /// What stands at the front without a reply to wait for has had its time.
    #[inline]
    fn settle_front(&mut self) {
        while matches!(self.entries.front(), Some(Pending::CopyEnd(_))) {
            self.entries.pop_front();
        }
    }

    /// Whether nothing is pending.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether no more may be added for now.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.entries.len() >= PENDING_LIMIT
    }

    /// Entries in the queue.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// The entries, oldest first, to be undone.
    pub fn iter_mut(&mut self) -> impl DoubleEndedIterator<Item = &mut Pending> {
        self.entries.iter_mut()
    }

    /// The entries, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Pending> {
        self.entries.iter()
    }
}
