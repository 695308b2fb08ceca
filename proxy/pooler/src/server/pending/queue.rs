//! The queue of pending replies, in the order in which they will come.
//!
//! It is bounded, so that a client which pipelines without end is made to wait instead of filling
//! memory.

use std::collections::VecDeque;

use super::{CopyBegun, NameFor, Origin, Owner, Pending, Reply};
use crate::ids::SessionId;

/// The most entries (1024) in the queue of one server connection; the client is not read while it
/// is full. A pipeline of unnamed statements needs two entries for each Sync, so this is several
/// hundred round trips in flight: more than hides any latency.
pub const PENDING_LIMIT: usize = 1024;

/// The queue of replies that a server connection has still to send, oldest first. It is the only
/// record of what the server will say.
#[derive(Debug)]
pub struct PendingReplies {
    entries: VecDeque<Entry>,
    /// How many entries would have something undone if they were skipped.
    changes: usize,
    /// The owner of the replies that are added now.
    adding: Owner,
}

/// One entry: 32 bytes, as the reply by itself has 24.
#[derive(Debug)]
struct Entry {
    reply: Pending,
    owner: Owner,
}

impl Default for PendingReplies {
    fn default() -> Self {
        Self { entries: VecDeque::new(), changes: 0, adding: Owner::PGIMBAL }
    }
}

impl PendingReplies {
    /// What is added from now on is this owner's: said at the beginning of each step. In the middle
    /// of another owner's segment nothing may be added.
    #[inline]
    pub(crate) fn add_for(&mut self, owner: Owner) {
        self.adding = owner;
    }

    /// Notes that a final reply (such as ParseComplete or CommandComplete) will come which passes
    /// to the client. Joined with the last entry if that is alike.
    #[inline]
    pub fn pass(&mut self) {
        match self.last_mut() {
            Some(Pending::Pass(n)) => *n += 1,
            _ => self.add(self.adding, Pending::Pass(1)),
        }
    }

    /// Notes that `count` final replies will come which are swallowed. Joined with the last entry
    /// if that is alike.
    pub fn swallow(&mut self, count: u32) {
        match self.last_mut() {
            Some(Pending::Swallow(n)) => *n += count,
            _ => self.add(self.adding, Pending::Swallow(count)),
        }
    }

    /// Notes that CopyDone or CopyFail was forwarded while a reply is pending that may be a COPY;
    /// ignored if nothing is pending.
    pub fn copy_ended(&mut self) {
        if self.entries.is_empty() {
            return;
        }
        match self.last_mut() {
            Some(Pending::CopyEnd(n)) => *n += 1,
            _ => self.add(self.adding, Pending::CopyEnd(1)),
        }
    }

    /// The last entry, if it is of the owner for whom replies are added.
    #[inline]
    fn last_mut(&mut self) -> Option<&mut Pending> {
        let last = self.entries.back_mut().filter(|last| last.owner == self.adding)?;
        Some(&mut last.reply)
    }

    #[inline]
    fn add(&mut self, owner: Owner, reply: Pending) {
        self.entries.push_back(Entry { reply, owner });
    }

    /// Whether the meaning of the client's statement `name` depends on replies to an earlier
    /// segment (behind whose Sync the present messages stand). If so, the next message waits for
    /// them. A change in the present segment does not count, because an error in front of it makes
    /// the server skip the next message too. `name` is compared in full.
    #[inline]
    pub fn is_name_unsure(&self, name: &[u8]) -> bool {
        self.changes > 0
            && self.earlier_segments().any(|entry| match entry {
                Pending::Parse(parse) => parse.change.as_ref().is_some_and(|c| *c.name == *name),
                Pending::Closed(change) => *change.name == *name,
                _ => false,
            })
    }

    /// Whether the meaning of any of the client's statement names depends on replies to an earlier
    /// segment. If so, a message whose text (as EXECUTE or DEALLOCATE) names statements waits for
    /// them. Changes in the present segment do not count.
    pub fn are_names_unsure(&self) -> bool {
        self.changes > 0
            && self.earlier_segments().any(|entry| match entry {
                Pending::Parse(parse) => parse.change.is_some(),
                Pending::Closed(_) => true,
                _ => false,
            })
    }

    /// Whether the meaning of the client's unnamed statement depends on replies to an earlier
    /// segment: a Parse or Close of it is pending there that the server may skip. If so, the next
    /// message waits for them.
    #[inline]
    pub fn is_unnamed_unsure(&self) -> bool {
        let may_skip = self.changes > 0 && self.may_skip();
        self.changes > 0
            && self.earlier_segments().any(|entry| match entry {
                Pending::Unnamed(_, before) => may_skip || before.is_some(),
                _ => false,
            })
    }

    /// Whether the reply to a Parse or Close of the unnamed statement is pending, whoever has sent
    /// it. If so, a failed or skipped one before it is not undone: the later one decides.
    pub fn changes_unnamed(&self) -> bool {
        self.entries.iter().any(|entry| matches!(entry.reply, Pending::Unnamed(..)))
    }

    /// What the owner for whom replies are added has asked for before its last Sync.
    fn earlier_segments(&self) -> impl Iterator<Item = &Pending> {
        self.of(self.adding)
            .rev()
            .skip_while(|reply| !matches!(reply, Pending::Sync | Pending::OwnSync))
    }

    /// Whether the server would skip a message that is sent now if an earlier one fails: an
    /// extended-protocol reply, of any owner, is pending since the last Sync. False if nothing is.
    pub fn may_skip(&self) -> bool {
        self.entries
            .iter()
            .rev()
            .map(|entry| &entry.reply)
            .take_while(|reply| !matches!(reply, Pending::Sync | Pending::OwnSync))
            .any(|reply| {
                !matches!(reply, Pending::Query(_) | Pending::Own(_) | Pending::CopyEnd(_))
            })
    }

    /// Appends any entry, for the owner for whom replies are added. The queue may exceed its limit:
    /// the caller asks [`Self::is_full`] before.
    pub fn push(&mut self, reply: Pending) {
        self.changes += usize::from(reply.is_change());
        self.add(self.adding, reply);
    }

    /// Adds an entry that is pgimbal's own, whoever is linked.
    pub(crate) fn push_own(&mut self, reply: Pending) {
        debug_assert!(!reply.is_change(), "nobody's names can change");
        self.add(Owner::PGIMBAL, reply);
    }

    /// The entry of the reply that comes next, to be changed; `None` if none is pending.
    #[inline]
    pub fn front_mut(&mut self) -> Option<&mut Pending> {
        self.entries.front_mut().map(|entry| &mut entry.reply)
    }

    /// The entry of the reply that comes next; `None` if none is pending.
    #[inline]
    pub fn front(&self) -> Option<&Pending> {
        self.entries.front().map(|entry| &entry.reply)
    }

    /// Whose the reply is that comes next; `None` if none is pending.
    #[inline]
    pub(crate) fn front_owner(&self) -> Option<Owner> {
        self.entries.front().map(|entry| entry.owner)
    }

    /// Takes a final reply of an extended-protocol message, which has come, off the queue; of an
    /// entry that stands for several, one is taken. Returns what it was the answer to. `None` if
    /// the next entry is not such a reply (an entry that ReadyForQuery completes, or one of
    /// [`Pending::Closed`]) or the queue is empty.
    #[inline]
    pub fn take_reply(&mut self) -> Option<Reply> {
        let is_change = self.front().is_some_and(Pending::is_change);
        let reply = self.take_front();
        self.changes -= usize::from(is_change);
        self.settle_front();
        reply
    }

    #[inline]
    fn take_front(&mut self) -> Option<Reply> {
        match &mut self.entries.front_mut()?.reply {
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
            | Pending::Unnamed(..) => match self.entries.pop_front()?.reply {
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

    /// Whether the reply at the front is one that the proxy makes.
    #[inline]
    pub(crate) fn is_made(&self) -> bool {
        matches!(self.front(), Some(Pending::Closed(_)))
    }

    /// Takes the reply at the front if it is one that the proxy makes, and says whose it is.
    pub(crate) fn take_made(&mut self) -> Option<Owner> {
        if !self.is_made() {
            return None;
        }
        let made = self.entries.pop_front()?;
        self.changes -= 1;
        self.settle_front();
        Some(made.owner)
    }

    /// Takes the entry that a ReadyForQuery, which has come, completes: a Sync, a query or one of
    /// the proxy's own. `None` if the next entry is not such a one, or the queue is empty: then the
    /// server has broken the protocol.
    #[inline]
    pub fn take_ready(&mut self) -> Option<Pending> {
        let settled = match self.front()? {
            Pending::Sync | Pending::OwnSync | Pending::Query(_) | Pending::Own(_) => {
                self.entries.pop_front()
            }
            _ => None,
        };
        self.settle_front();
        settled.map(|entry| entry.reply)
    }

    /// Takes the entries in front of the next Sync, which the server skips after an error in the
    /// extended protocol; oldest first, without the Sync. The flag says whether there is such a
    /// Sync; without one, everything is taken. The caller undoes what was noted ahead for these
    /// entries.
    pub fn take_skipped(&mut self) -> (Vec<Pending>, bool) {
        let ends = |entry: &Entry| matches!(entry.reply, Pending::Sync | Pending::OwnSync);
        let sync = self.entries.iter().position(ends);
        let skipped: Vec<Pending> = self
            .entries
            .drain(..sync.unwrap_or(self.entries.len()))
            .map(|entry| entry.reply)
            .collect();
        self.changes -= skipped.iter().filter(|reply| reply.is_change()).count();
        (skipped, sync.is_some())
    }

    /// Notes that COPY FROM STDIN has begun (CopyInResponse). The server ignores each Sync between
    /// the statement and the end of its data: their entries are taken out, with that of the
    /// CopyDone or CopyFail if it was sent. Nothing changes, and both flags are false, if the reply
    /// that comes next is not one that a COPY may give.
    pub fn copy_begins(&mut self) -> CopyBegun {
        let mut begun = CopyBegun { ended: false, lost_sync: false };
        let Some(Entry { reply, owner }) = self.entries.front() else { return begun };
        if !matches!(reply, Pending::Pass(1) | Pending::Execute(_) | Pending::Query(_)) {
            return begun;
        }
        let (owner, is_query) = (*owner, matches!(reply, Pending::Query(_)));
        let mut forgotten = false;
        while matches!(self.second_of(owner), Some(Pending::Sync)) {
            self.entries.remove(1);
            forgotten = true;
        }
        if let Some(Pending::CopyEnd(n)) = self.second_of(owner) {
            begun.ended = true;
            *n -= 1;
            if *n == 0 {
                self.entries.remove(1);
            }
        }
        let has_sync = self.of(owner).any(|reply| matches!(reply, Pending::Sync));
        begun.lost_sync = forgotten && !is_query && !has_sync;
        begun
    }

    fn second_of(&mut self, owner: Owner) -> Option<&mut Pending> {
        let second = self.entries.get_mut(1).filter(|entry| entry.owner == owner)?;
        Some(&mut second.reply)
    }

    /// The connection is gone: takes what a session waits for, oldest first.
    pub(crate) fn take_of(&mut self, session: SessionId) -> Vec<Pending> {
        let owner = Owner::of(session);
        let (taken, left) =
            std::mem::take(&mut self.entries).into_iter().partition(|entry| entry.owner == owner);
        self.entries = left;
        let taken: VecDeque<Entry> = taken;
        self.changes -= taken.iter().filter(|entry| entry.reply.is_change()).count();
        taken.into_iter().map(|entry| entry.reply).collect()
    }

    /// The session of the oldest reply that is not pgimbal's own or `linked`'s; `None` if there is
    /// none.
    pub(crate) fn first_other(&self, linked: Option<SessionId>) -> Option<SessionId> {
        self.entries.iter().filter_map(|entry| entry.owner.session()).find(|id| Some(*id) != linked)
    }

    /// Whether the message on which the server works now was added by the proxy; false if none is
    /// pending. A NoticeResponse that comes meanwhile does not pass to the client.
    pub fn is_proxys_own(&self) -> bool {
        match self.front() {
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

    /// Whether what the server works on now is this session's client's.
    pub(crate) fn runs_client_of(&self, session: SessionId) -> bool {
        self.entries.front().is_some_and(|entry| {
            entry.owner == Owner::of(session)
                && !matches!(entry.reply, Pending::Own(_) | Pending::OwnSync)
        })
    }

    /// Whether the ReadyForQuery of a Sync or simple query of this session's client is pending.
    pub(crate) fn has_end_of(&self, session: SessionId) -> bool {
        self.of(Owner::of(session)).any(|reply| matches!(reply, Pending::Sync | Pending::Query(_)))
    }

    /// What stands at the front without a reply to wait for has had its time.
    #[inline]
    fn settle_front(&mut self) {
        while matches!(self.front(), Some(Pending::CopyEnd(_))) {
            self.entries.pop_front();
        }
    }

    /// Whether no reply is pending: the server has answered everything that was sent.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether the queue has [`PENDING_LIMIT`] entries or more, so that the client is not read for
    /// now. The caller sends Flush if a segment is open: the server may hold its replies back.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.entries.len() >= PENDING_LIMIT
    }

    /// How many entries the queue has. One entry may stand for several replies.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// What a session waits for, oldest first, to be undone.
    pub(crate) fn iter_mut_of(
        &mut self,
        session: SessionId,
    ) -> impl DoubleEndedIterator<Item = &mut Pending> {
        let is_its = move |entry: &&mut Entry| entry.owner == Owner::of(session);
        self.entries.iter_mut().filter(is_its).map(|entry| &mut entry.reply)
    }

    fn of(&self, owner: Owner) -> impl DoubleEndedIterator<Item = &Pending> {
        let is_its = move |entry: &&Entry| entry.owner == owner;
        self.entries.iter().filter(is_its).map(|entry| &entry.reply)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: SessionId = SessionId { slot: 0, serial: 1 };
    const OTHER: SessionId = SessionId { slot: 1, serial: 2 };

    #[test]
    fn an_entry_takes_32_bytes() {
        assert_eq!((size_of::<Pending>(), size_of::<Entry>()), (24, 32));
    }

    #[test]
    fn a_run_is_of_one_owner() {
        let mut replies = PendingReplies::default();
        for owner in [ONE, ONE, OTHER, ONE] {
            replies.add_for(Owner::of(owner));
            replies.pass();
        }
        replies.push_own(Pending::OwnSync);
        assert_eq!(replies.len(), 4);
        let mut owners = Vec::new();
        while let Some(owner) = replies.front_owner() {
            owners.push(owner.session());
            if replies.take_reply().is_none() {
                assert!(replies.take_ready().is_some());
            }
        }
        assert_eq!(owners, [Some(ONE), Some(ONE), Some(OTHER), Some(ONE), None]);
    }

    #[test]
    fn what_one_session_waits_for_is_taken_without_the_others() {
        let mut replies = PendingReplies::default();
        for owner in [ONE, OTHER] {
            replies.add_for(Owner::of(owner));
            replies.push(Pending::Unnamed(Origin::Client, None));
            replies.push(Pending::Sync);
        }
        assert_eq!(replies.first_other(Some(ONE)), Some(OTHER));
        assert_eq!(replies.take_of(OTHER).len(), 2);
        assert_eq!(replies.first_other(Some(ONE)), None);
        assert!(replies.has_end_of(ONE) && !replies.has_end_of(OTHER));
        assert!(replies.runs_client_of(ONE));
        assert_eq!((replies.len(), replies.changes), (2, 1));
    }
}
