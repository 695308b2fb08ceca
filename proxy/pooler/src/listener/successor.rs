//! The connection that takes over from one which is to be closed, without a notification lost or
//! told twice.
//!
//! Both listen to everything, and to a mark of their own, which is notified once. Every backend is
//! told of notifications in the order of their commits: up to the mark what the old connection says
//! counts, behind it what the new one says.

use std::time::{Duration, Instant};

use pgimbal_wire::encode;

use super::command;
use crate::ids::ServerId;
use crate::session::channels::Channel;

/// How long one connection takes over from the other at most. A notification takes milliseconds.
const LONGEST: Duration = Duration::from_secs(5);

/// The connection that takes over.
#[derive(Debug)]
pub(super) struct Successor {
    id: ServerId,
    since: Instant,
    step: Step,
    /// The channel of the mark; empty before the connection is open.
    mark: Box<[u8]>,
    out: Vec<u8>,
    /// Its queries that are not answered yet.
    unanswered: u8,
}

/// How far it has taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// It is being opened.
    Dialing,
    /// It is open, and waits for the query that is on its way on the old connection.
    Open,
    /// It begins to listen to everything.
    Joining,
    /// The old connection begins to listen to the mark.
    Marking,
    /// The mark is notified, and was seen on neither.
    Marked,
    /// It has come to the mark: what follows there waits for the old connection.
    Ahead,
    /// The old connection has come to the mark: nothing of it counts any more.
    Behind,
}

/// What has become of a connection that takes over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Overdue {
    No,
    /// It has not come so far that both could have seen the mark.
    GiveUp,
    /// One of them should have seen the mark.
    TakeOver,
}

impl Successor {
    /// A connection that is being opened to take over.
    pub(super) fn dialing(id: ServerId, now: Instant) -> Self {
        let (mark, out) = (Box::default(), Vec::new());
        Self { id, since: now, step: Step::Dialing, mark, out, unanswered: 0 }
    }

    /// The connection.
    pub(super) const fn id(&self) -> ServerId {
        self.id
    }

    /// Whether it is still being opened.
    pub(super) fn is_dialing(&self) -> bool {
        self.step == Step::Dialing
    }

    /// Whether `name` is the channel of the mark.
    pub(super) fn is_mark(&self, name: &[u8]) -> bool {
        !self.mark.is_empty() && *self.mark == *name
    }

    /// Whether the old connection's queries wait until it has taken over.
    pub(super) fn holds_queries(&self) -> bool {
        self.step != Step::Dialing
    }

    /// Whether notifications of the old connection count.
    pub(super) fn lets_old_tell(&self) -> bool {
        self.step != Step::Behind
    }

    /// Whether what comes on it waits for the old connection.
    pub(super) fn waits(&self) -> bool {
        self.step == Step::Ahead
    }

    /// It is open, as a backend of this process id, by which its mark is called.
    pub(super) fn opened(&mut self, process_id: u32, now: Instant) {
        self.mark = format!("pgimbal_takes_over_{process_id}").into_bytes().into();
        (self.step, self.since) = (Step::Open, now);
    }

    /// The old connection has no query on its way: it listens to these channels, as that does.
    pub(super) fn join<'a>(&mut self, first: &[u8], channels: impl Iterator<Item = &'a Channel>) {
        if self.step != Step::Open {
            return;
        }
        let mut text = first.to_vec();
        for channel in channels {
            command(&mut text, b"LISTEN ", channel);
        }
        command(&mut text, b"LISTEN ", &self.mark);
        self.query(&text);
        self.step = Step::Joining;
    }

    /// Its query is answered. Returns what the old connection is to run now.
    pub(super) fn answered(&mut self) -> Option<Vec<u8>> {
        self.unanswered = self.unanswered.saturating_sub(1);
        if self.step != Step::Joining {
            // NOTIFY.
            return None;
        }
        self.step = Step::Marking;
        let mut text = Vec::new();
        command(&mut text, b"LISTEN ", &self.mark);
        Some(text)
    }

    /// A query of the old connection is answered. Returns whether something is to be written.
    pub(super) fn old_answered(&mut self) -> bool {
        if self.step != Step::Marking {
            return false;
        }
        let mut text = Vec::new();
        command(&mut text, b"NOTIFY ", &self.mark);
        self.query(&text);
        self.step = Step::Marked;
        true
    }

    /// It has come to the mark. Returns whether it takes over now.
    pub(super) fn sees_mark(&mut self) -> bool {
        let takes_over = self.step == Step::Behind;
        self.step = Step::Ahead;
        takes_over
    }

    /// The old connection has come to the mark. Returns whether this one takes over now.
    pub(super) fn old_sees_mark(&mut self) -> bool {
        let takes_over = self.step == Step::Ahead;
        self.step = Step::Behind;
        takes_over
    }

    /// Takes what is to be written to it.
    pub(super) fn take_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out)
    }

    /// Whether something is to be written to it.
    pub(super) fn has_output(&self) -> bool {
        !self.out.is_empty()
    }

    /// How many of its queries are not answered yet.
    pub(super) const fn unanswered(&self) -> u8 {
        self.unanswered
    }

    fn query(&mut self, text: &[u8]) {
        encode::query(&mut self.out, text);
        self.unanswered += 1;
    }

    /// Whether it takes too long.
    pub(super) fn overdue(&self, now: Instant) -> Overdue {
        match self.step {
            // How long a connection may take to be opened is the driver's to say.
            Step::Dialing => Overdue::No,
            _ if now - self.since < LONGEST => Overdue::No,
            Step::Open | Step::Joining | Step::Marking => Overdue::GiveUp,
            Step::Marked | Step::Ahead | Step::Behind => Overdue::TakeOver,
        }
    }

    /// What it runs first when it has taken over.
    pub(super) fn last_query(&self) -> Vec<u8> {
        let mut text = Vec::new();
        command(&mut text, b"UNLISTEN ", &self.mark);
        text
    }
}
