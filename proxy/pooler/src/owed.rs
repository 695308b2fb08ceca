//! The replies that a server connection still owes, in the order in which they will come.
//!
//! One entry for a run of alike replies; the queue is bounded, so that a client which pipelines
//! without end is made to wait instead of filling memory.

use std::collections::VecDeque;
use std::rc::Rc;

use crate::effect::Effect;
use crate::prepared::{Statement, StatementId};

/// Entries that one server connection may owe. A pipeline of unnamed statements needs two entries
/// for each Sync, so this is several hundred round trips in flight: more than hides any latency.
pub const OWED_LIMIT: usize = 1024;

/// One entry of the queue.
#[derive(Debug)]
pub enum Owed {
    /// So many final replies of extended-protocol messages, which pass to the client.
    Pass(u32),
    /// So many final replies to messages that the proxy put in; they are swallowed.
    Swallow(u32),
    /// So many replies that the proxy makes when their turn comes.
    Made(MadeReply, u32),
    /// As [`Owed::Made`], once, where the client's names changed with the request.
    MadeChange(MadeReply, Box<NameChange>),
    /// The reply to a Parse that was forwarded or put in.
    Parse(Box<ParseInFlight>),
    /// The reply to a Close that frees a place among the server's prepared statements.
    Evict(StatementId),
    /// The last reply to an Execute that changes session state.
    Execute(Box<Effect>),
    /// ReadyForQuery for the client's Sync.
    Sync,
    /// ReadyForQuery for a Sync that the proxy put in.
    OwnSync,
    /// All replies to a simple query or function call of the client, up to ReadyForQuery.
    Query(Option<Box<Effect>>),
    /// All replies to a simple query of the proxy's own, up to ReadyForQuery.
    Own(OwnQuery),
}

/// A reply that the proxy makes itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MadeReply {
    /// ParseComplete for a statement that the server already has.
    ParseComplete,
    /// CloseComplete for a statement that stays on the server.
    CloseComplete,
}

/// Why the proxy sent a simple query of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnQuery {
    /// Settings are brought to the client's before its first message is forwarded.
    Setup,
    /// As `Setup`, the first of two queries.
    SetupFirst,
    /// Settings are brought back to the client's startup values after its RESET.
    Restore,
    /// A transaction that its client left open is rolled back.
    Rollback,
    /// The reset query before the connection serves somebody else.
    Reset,
}

/// A Parse on its way.
#[derive(Debug)]
pub struct ParseInFlight {
    /// What is parsed; `None` where the server's list is not concerned (a probe for a duplicate).
    pub statement: Option<Rc<Statement>>,
    /// How to undo the client's name when the Parse fails; `None` when the proxy put it in.
    pub change: Option<NameChange>,
}

/// How a name of the client's looked before a request that has not succeeded yet.
#[derive(Debug)]
pub struct NameChange {
    /// The client's name of the statement.
    pub name: Box<[u8]>,
    /// What it meant before.
    pub before: Option<Rc<Statement>>,
}

/// The queue itself.
#[derive(Debug, Default)]
pub struct OwedQueue {
    entries: VecDeque<Owed>,
}

impl OwedQueue {
    /// Adds a final reply that passes to the client.
    #[inline]
    pub fn pass(&mut self) {
        if let Some(Owed::Pass(n)) = self.entries.back_mut() {
            *n += 1;
        } else {
            self.entries.push_back(Owed::Pass(1));
        }
    }

    /// Adds `count` final replies that are swallowed.
    pub fn swallow(&mut self, count: u32) {
        if let Some(Owed::Swallow(n)) = self.entries.back_mut() {
            *n += count;
        } else {
            self.entries.push_back(Owed::Swallow(count));
        }
    }

    /// Adds a reply that is made when its turn comes.
    pub fn made(&mut self, reply: MadeReply) {
        match self.entries.back_mut() {
            Some(Owed::Made(last, n)) if *last == reply => *n += 1,
            _ => self.entries.push_back(Owed::Made(reply, 1)),
        }
    }

    /// Adds any entry.
    pub fn push(&mut self, entry: Owed) {
        self.entries.push_back(entry);
    }

    /// The reply that comes next.
    #[inline]
    pub fn front(&self) -> Option<&Owed> {
        self.entries.front()
    }

    /// One final reply of an extended-protocol message has come: takes it off the queue.
    /// Returns what it was, or `None` when no such reply was owed.
    #[inline]
    pub fn take_reply(&mut self) -> Option<Reply> {
        match self.entries.front_mut()? {
            Owed::Pass(n) => {
                *n -= 1;
                if *n == 0 {
                    self.entries.pop_front();
                }
                Some(Reply::Pass)
            }
            Owed::Swallow(n) => {
                *n -= 1;
                if *n == 0 {
                    self.entries.pop_front();
                }
                Some(Reply::Swallow)
            }
            Owed::Parse(_) | Owed::Evict(_) | Owed::Execute(_) => {
                match self.entries.pop_front()? {
                    Owed::Parse(parse) => Some(Reply::Parse(parse)),
                    Owed::Evict(id) => Some(Reply::Evict(id)),
                    Owed::Execute(effect) => Some(Reply::Execute(effect)),
                    _ => None,
                }
            }
            _ => None,
        }
    }

    /// Takes the made replies that stand at the front, if any.
    #[inline]
    pub fn take_made(&mut self) -> Option<(MadeReply, u32)> {
        match self.entries.front()? {
            Owed::Made(reply, n) => {
                let taken = (*reply, *n);
                self.entries.pop_front();
                Some(taken)
            }
            Owed::MadeChange(reply, _) => {
                let taken = (*reply, 1);
                self.entries.pop_front();
                Some(taken)
            }
            _ => None,
        }
    }

    /// Takes the entry that a ReadyForQuery settles; `None` when none was owed.
    #[inline]
    pub fn take_ready(&mut self) -> Option<Owed> {
        match self.entries.front()? {
            Owed::Sync | Owed::OwnSync | Owed::Query(_) | Owed::Own(_) => self.entries.pop_front(),
            _ => None,
        }
    }

    /// After an error in the extended protocol: takes what the server will skip, the entries in
    /// front of the next Sync. The flag says whether there is such a Sync.
    pub fn take_skipped(&mut self) -> (Vec<Owed>, bool) {
        let sync = self.entries.iter().position(|e| matches!(e, Owed::Sync | Owed::OwnSync));
        let skipped = self.entries.drain(..sync.unwrap_or(self.entries.len())).collect();
        (skipped, sync.is_some())
    }

    /// COPY has begun: the server ignores the Syncs that stand right behind the running Execute.
    pub fn forget_syncs_behind_copy(&mut self) {
        if matches!(self.entries.front(), Some(Owed::Pass(1) | Owed::Execute(_))) {
            while matches!(self.entries.get(1), Some(Owed::Sync)) {
                self.entries.remove(1);
            }
        }
    }

    /// Takes everything: the connection is gone.
    pub fn take_all(&mut self) -> VecDeque<Owed> {
        std::mem::take(&mut self.entries)
    }

    /// Whether nothing is owed.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether no more may be added for now.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.entries.len() >= OWED_LIMIT
    }

    /// Entries in the queue.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// The entries, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Owed> {
        self.entries.iter()
    }
}

/// What a final reply was the answer to.
#[derive(Debug)]
pub enum Reply {
    /// A message of the client's: it passes.
    Pass,
    /// A message of the proxy's: it is swallowed.
    Swallow,
    /// A Parse.
    Parse(Box<ParseInFlight>),
    /// A Close that the proxy put in.
    Evict(StatementId),
    /// An Execute with an effect: it passes.
    Execute(Box<Effect>),
}
