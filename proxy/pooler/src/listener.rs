//! The server connection over which one worker listens for all clients of a pool.
//!
//! It carries the union of its clients' channels, each with the sessions that listen to it. A
//! client's LISTEN is sent once this connection listens; when the last session of a channel is
//! gone, it unlistens. While it is lost, the channels stay, and the next connection begins with
//! them.

mod pace;
pub mod steps;
mod successor;
pub(crate) mod work;

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use pgimbal_config::Backoff;
use pgimbal_wire::encode;

use self::pace::Pace;
use self::successor::{Overdue, Successor};
use crate::ids::{ServerId, SessionId};
use crate::session::channels::Channel;

/// The most channels that one query listens to or unlistens: some 70 KiB of text.
const CHANNELS_AT_ONCE: usize = 1000;

/// The time for which a connection must have lasted for the next one to be opened at once.
const LASTED: Duration = Duration::from_secs(1);

/// The first pause after a connection that has not lasted, and the longest; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The channels of a pool's clients on one worker, and the connection that listens to them.
#[derive(Debug)]
pub(crate) struct Listener {
    channels: HashMap<Channel, Entry, RandomState>,
    /// Channels that the connection may have to listen to, or to unlisten.
    changed: Vec<Channel>,
    /// The sessions that wait for their channels, longest first.
    requests: VecDeque<Request>,
    line: Line,
    /// How many queries were made for it, and how many of these when the last answer came.
    made: u64,
    answered: u64,
    /// The connection that takes over from it; `None` mostly.
    successor: Option<Successor>,
    /// What that runs first.
    first_of_successor: Box<[u8]>,
    /// The pause after connections that have not lasted, and its end.
    backoff: Backoff,
    retry_at: Option<Instant>,
    /// Since when nobody listens, as far as that was looked at.
    unused_since: Option<Instant>,
    pace: Pace,
}

/// One channel.
#[derive(Debug, Default)]
struct Entry {
    sessions: Vec<SessionId>,
    on_server: OnServer,
    /// How many notifications of it have come.
    notifications: u64,
}

/// A channel that sessions listen to, as people see it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ChannelView<'a> {
    pub(crate) name: &'a Channel,
    /// The sessions that listen to it or wait for it.
    pub(crate) sessions: &'a [SessionId],
    /// Whether the connection listens to it.
    pub(crate) is_on_server: bool,
    /// How many notifications of it have come since somebody listens to it.
    pub(crate) notifications: u64,
}

/// Whether the connection listens to a channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum OnServer {
    #[default]
    No,
    /// A query is on its way that changes it.
    Changing,
    Yes,
}

/// A session whose next message waits for channels.
#[derive(Debug)]
struct Request {
    session: SessionId,
    channels: Vec<Channel>,
    since: Instant,
    /// How many queries were made before it came. The answer to a later one is behind all that was
    /// notified before, which the session does not hear.
    behind: u64,
}

/// A session, and the channels that it waits for or has got.
type Requested = (SessionId, Vec<Channel>);

/// The connection.
#[derive(Debug, Default)]
enum Line {
    #[default]
    None,
    /// It is being opened.
    Dialing(ServerId),
    Open(OpenLine),
}

#[derive(Debug)]
struct OpenLine {
    id: ServerId,
    since: Instant,
    /// What is to be written to it.
    out: Vec<u8>,
    /// The query that is not answered yet.
    in_flight: Option<Batch>,
    /// Answers that come before that one's, to what it ran while it took over.
    skips: u8,
}

/// A query that listens to channels and unlistens others, in one transaction.
#[derive(Debug, Default)]
struct Batch {
    listens: Vec<Channel>,
    unlistens: Vec<Channel>,
    has_failed: bool,
}

/// What has become of a query of the connection's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answered {
    Done,
    Refused,
}

/// What a notification means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    /// Those who listen to its channel are told.
    Told,
    Nothing,
    /// With it one connection takes over from the other.
    TakeOver,
}

impl Default for Listener {
    fn default() -> Self {
        Self {
            channels: HashMap::default(),
            changed: Vec::new(),
            requests: VecDeque::new(),
            line: Line::None,
            made: 0,
            answered: 0,
            successor: None,
            first_of_successor: Box::default(),
            backoff: Backoff::new(FIRST_PAUSE),
            retry_at: None,
            unused_since: None,
            pace: Pace::default(),
        }
    }
}

impl Listener {
    /// The name of a channel, as all sessions share it.
    pub(crate) fn channel(&self, name: &[u8]) -> Channel {
        self.channels.get_key_value(name).map_or_else(|| name.into(), |(known, _)| Rc::clone(known))
    }

    /// A session is to listen to these channels from its next message on. It waits until the
    /// connection listens to all of them, and has told what was notified before.
    pub(crate) fn request(&mut self, session: SessionId, channels: Vec<Channel>, now: Instant) {
        self.unused_since = None;
        for channel in &channels {
            let entry = self.channels.entry(Rc::clone(channel)).or_default();
            if !entry.sessions.contains(&session) {
                entry.sessions.push(session);
            }
            if entry.on_server != OnServer::Yes {
                self.changed.push(Rc::clone(channel));
            }
        }
        self.requests.push_back(Request { session, channels, since: now, behind: self.made });
    }

    /// A session does not listen to these channels any more.
    fn release(&mut self, session: SessionId, channels: &[Channel]) {
        for channel in channels {
            let Some(entry) = self.channels.get_mut(channel) else { continue };
            entry.sessions.retain(|known| *known != session);
            if entry.sessions.is_empty() {
                self.changed.push(Rc::clone(channel));
            }
        }
    }

    /// The session waits no more.
    fn forget_request(&mut self, session: SessionId) {
        self.requests.retain(|request| request.session != session);
    }

    fn listens_to(&self, channels: &[Channel]) -> bool {
        let is_there = |channel: &Channel| {
            self.channels.get(channel).is_some_and(|entry| entry.on_server == OnServer::Yes)
        };
        channels.iter().all(is_there)
    }

    /// Takes the sessions whose channels the connection listens to by now.
    fn take_granted(&mut self) -> Vec<Requested> {
        let requests = std::mem::take(&mut self.requests);
        let (granted, waiting) = requests.into_iter().partition::<VecDeque<_>, _>(|request| {
            self.answered > request.behind && self.listens_to(&request.channels)
        });
        self.requests = waiting;
        granted.into_iter().map(|request| (request.session, request.channels)).collect()
    }

    /// Takes the sessions that have waited since `since` or longer, to be told that they wait in
    /// vain.
    fn take_refused(&mut self, since: Instant) -> Vec<Requested> {
        let requests = std::mem::take(&mut self.requests);
        let (refused, waiting) =
            requests.into_iter().partition::<VecDeque<_>, _>(|request| request.since <= since);
        self.requests = waiting;
        refused.into_iter().map(|request| (request.session, request.channels)).collect()
    }

    /// A notification of `name` has come. Returns the sessions that listen to it, and the name as
    /// they share it.
    fn note_notification(&mut self, name: &[u8]) -> Option<(&Channel, &[SessionId])> {
        let (channel, entry) = self.channels.get_key_value_mut(name)?;
        entry.notifications += 1;
        Some((channel, &entry.sessions))
    }

    /// Every session that listens to a channel or waits for one, some more than once.
    fn sessions(&self) -> impl Iterator<Item = SessionId> {
        self.channels.values().flat_map(|entry| entry.sessions.iter().copied())
    }

    /// Each channel to which sessions listen, or for which they wait, in no order.
    pub(crate) fn channels(&self) -> impl Iterator<Item = ChannelView<'_>> {
        let used = self.channels.iter().filter(|(_, entry)| !entry.sessions.is_empty());
        used.map(|(name, entry)| ChannelView {
            name,
            sessions: &entry.sessions,
            is_on_server: entry.on_server == OnServer::Yes,
            notifications: entry.notifications,
        })
    }

    /// The connection, if it is open or being opened.
    pub(crate) fn server(&self) -> Option<ServerId> {
        match &self.line {
            Line::None => None,
            Line::Dialing(id) => Some(*id),
            Line::Open(open) => Some(open.id),
        }
    }

    /// Whether it waits for this connection to be opened.
    fn awaits(&self, id: ServerId) -> bool {
        matches!(self.line, Line::Dialing(awaited) if awaited == id)
    }

    /// Whether a connection is to be opened now: somebody listens or waits, there is none, and the
    /// pause is over.
    fn wants_line(&self, now: Instant) -> bool {
        matches!(self.line, Line::None)
            && self.may_retry(now)
            && self.channels.values().any(|entry| !entry.sessions.is_empty())
    }

    /// For how long nobody has listened at `now`, as far as that was looked at; `None` while
    /// somebody does.
    fn unused_for(&mut self, now: Instant) -> Option<Duration> {
        if self.channels.values().any(|entry| !entry.sessions.is_empty()) {
            self.unused_since = None;
            return None;
        }
        Some(now - *self.unused_since.get_or_insert(now))
    }

    /// The connection is being opened.
    fn begin_dial(&mut self, id: ServerId) {
        self.line = Line::Dialing(id);
    }

    /// The connection is open; `first` is the text that it runs before anything else, if it is not
    /// empty.
    fn opened(&mut self, id: ServerId, first: &[u8], now: Instant) {
        let (mut out, mut in_flight) = (Vec::new(), None);
        if !first.is_empty() {
            encode::query(&mut out, first);
            in_flight = Some(Batch::default());
            self.made += 1;
        }
        self.line = Line::Open(OpenLine { id, since: now, out, in_flight, skips: 0 });
    }

    /// The connection is gone, or was not opened: the next one listens to everything. Returns
    /// whether it was open.
    fn lose(&mut self, now: Instant) -> bool {
        let since = match std::mem::take(&mut self.line) {
            Line::Open(open) => Some(open.since),
            Line::None | Line::Dialing(_) => None,
        };
        self.retry_at = match since {
            Some(since) if now - since < LASTED => Some(now + self.backoff.grow(LONGEST_PAUSE)),
            _ => {
                self.backoff = Backoff::new(FIRST_PAUSE);
                None
            }
        };
        self.successor = None;
        for request in &mut self.requests {
            request.behind = self.made;
        }
        self.channels.retain(|_, entry| !entry.sessions.is_empty());
        self.changed.clear();
        for (channel, entry) in &mut self.channels {
            entry.on_server = OnServer::No;
            self.changed.push(Rc::clone(channel));
        }
        since.is_some()
    }

    /// The connection that takes over, or is being opened for that.
    fn successor(&self) -> Option<ServerId> {
        self.successor.as_ref().map(Successor::id)
    }

    /// A connection is being opened that is to take over.
    fn begin_succession(&mut self, id: ServerId, now: Instant) {
        self.successor = Some(Successor::dialing(id, now));
    }

    /// Whether this connection is to take over and is being opened.
    fn awaits_successor(&self, id: ServerId) -> bool {
        self.successor.as_ref().is_some_and(|next| next.id() == id && next.is_dialing())
    }

    /// The connection that takes over is open.
    fn successor_opened(&mut self, process_id: u32, first: &[u8], now: Instant) {
        if let Some(next) = &mut self.successor {
            next.opened(process_id, now);
        }
        self.first_of_successor = first.into();
        self.go_on_with_succession();
    }

    /// The connection that takes over listens to what the other one does, once nothing is on its
    /// way there. Returns it if something is to be written to it.
    fn go_on_with_succession(&mut self) -> Option<ServerId> {
        let next = self.successor.as_mut()?;
        if matches!(&self.line, Line::Open(open) if open.in_flight.is_none()) {
            let listened = |(channel, entry): (&'_ Channel, &Entry)| {
                (entry.on_server == OnServer::Yes).then(|| Rc::clone(channel))
            };
            let channels: Vec<Channel> = self.channels.iter().filter_map(listened).collect();
            next.join(&self.first_of_successor, channels.iter());
        }
        next.has_output().then_some(next.id())
    }

    /// The connection that takes over has answered. Returns the other one if something is to be
    /// written to that.
    fn successor_answered(&mut self) -> Option<ServerId> {
        let text = self.successor.as_mut()?.answered()?;
        let Line::Open(open) = &mut self.line else { return None };
        encode::query(&mut open.out, &text);
        open.in_flight = Some(Batch::default());
        self.made += 1;
        Some(open.id)
    }

    /// The connection that was to take over is gone, or too slow.
    fn end_succession(&mut self, now: Instant) {
        self.successor = None;
        self.retry_at = Some(now + self.backoff.grow(LONGEST_PAUSE));
    }

    /// What the notification of a channel means that has come on this connection.
    fn meaning(&mut self, id: ServerId, name: &[u8]) -> Meaning {
        let is_old = self.server() == Some(id);
        let Some(next) = &mut self.successor else {
            return if is_old { Meaning::Told } else { Meaning::Nothing };
        };
        let takes_over = match (is_old, next.is_mark(name)) {
            (true, false) if next.lets_old_tell() => return Meaning::Told,
            (_, false) => false,
            (true, true) => next.old_sees_mark(),
            (false, true) => next.sees_mark(),
        };
        if takes_over { Meaning::TakeOver } else { Meaning::Nothing }
    }

    /// Whether what comes on this connection waits: until it has taken over, or for a client.
    fn is_held_back(&self, id: ServerId) -> bool {
        self.pace.is_held()
            || self.successor.as_ref().is_some_and(|next| next.id() == id && next.waits())
    }

    /// Whether the connection that is to take over takes too long.
    fn overdue(&self, now: Instant) -> Overdue {
        self.successor.as_ref().map_or(Overdue::No, |next| next.overdue(now))
    }

    /// Whether no pause lasts after a connection that has not lasted.
    fn may_retry(&self, now: Instant) -> bool {
        self.retry_at.is_none_or(|at| at <= now)
    }

    /// A query of the connection that is to be replaced is answered. Returns the other one if
    /// something is to be written to that.
    fn old_answered(&mut self) -> Option<ServerId> {
        let next = self.successor.as_mut()?;
        let marks = next.old_answered();
        let id = next.id();
        let joins = self.go_on_with_succession();
        if marks { Some(id) } else { joins }
    }

    /// One connection takes over from the other, which is returned.
    fn take_over(&mut self, now: Instant) -> Option<ServerId> {
        let mut next = self.successor.take()?;
        let old = self.server();
        let mut out = next.take_output();
        encode::query(&mut out, &next.last_query());
        let (in_flight, skips) = (Some(Batch::default()), next.unanswered());
        self.line = Line::Open(OpenLine { id: next.id(), since: now, out, in_flight, skips });
        self.made += 1;
        old
    }

    /// Makes the next query, if one is due and none is on its way. Returns the connection if there
    /// is something to be written to it.
    fn pump(&mut self) -> Option<ServerId> {
        let is_held = self.successor.as_ref().is_some_and(Successor::holds_queries);
        // An empty query does for who only has to be behind what was notified before.
        let is_awaited = self.requests.back().is_some_and(|last| last.behind == self.made);
        let is_due = is_awaited || !self.changed.is_empty();
        let Line::Open(open) = &mut self.line else { return None };
        if open.in_flight.is_none() && is_due && !is_held {
            let (mut batch, mut text) = (Batch::default(), Vec::new());
            let at_once = self.changed.len().min(CHANNELS_AT_ONCE);
            for channel in self.changed.drain(..at_once) {
                let Some(entry) = self.channels.get_mut(&channel) else { continue };
                match (entry.sessions.is_empty(), entry.on_server) {
                    (false, OnServer::No) => {
                        command(&mut text, b"LISTEN ", &channel);
                        entry.on_server = OnServer::Changing;
                        batch.listens.push(channel);
                    }
                    (true, OnServer::Yes) => {
                        command(&mut text, b"UNLISTEN ", &channel);
                        entry.on_server = OnServer::Changing;
                        batch.unlistens.push(channel);
                    }
                    (true, OnServer::No) => drop(self.channels.remove(&channel)),
                    (_, OnServer::Changing) | (false, OnServer::Yes) => {}
                }
            }
            if is_awaited || !text.is_empty() {
                encode::query(&mut open.out, &text);
                open.in_flight = Some(batch);
                self.made += 1;
            }
        }
        (!open.out.is_empty()).then_some(open.id)
    }

    /// Takes what is to be written to one of the connections.
    fn take_output_of(&mut self, id: ServerId) -> Vec<u8> {
        if self.server() == Some(id) {
            self.pump();
            return self.take_output();
        }
        self.go_on_with_succession();
        let next = self.successor.as_mut().filter(|next| next.id() == id);
        next.map_or_else(Vec::new, Successor::take_output)
    }

    /// Takes what is to be written to the connection.
    fn take_output(&mut self) -> Vec<u8> {
        match &mut self.line {
            Line::Open(open) => std::mem::take(&mut open.out),
            Line::None | Line::Dialing(_) => Vec::new(),
        }
    }

    /// The query that is on its way has failed.
    fn note_failed(&mut self) {
        if let Line::Open(OpenLine { in_flight: Some(batch), .. }) = &mut self.line {
            batch.has_failed = true;
        }
    }

    /// The query that was on its way is answered; `None` if none was.
    fn answered(&mut self) -> Option<Answered> {
        let Line::Open(open) = &mut self.line else { return None };
        if open.skips > 0 {
            open.skips -= 1;
            return Some(Answered::Done);
        }
        let batch = open.in_flight.take()?;
        self.answered = self.made;
        let (listened, unlistened) = match batch.has_failed {
            true => (OnServer::No, OnServer::Yes),
            false => (OnServer::Yes, OnServer::No),
        };
        let listens = batch.listens.into_iter().map(|channel| (channel, listened));
        let unlistens = batch.unlistens.into_iter().map(|channel| (channel, unlistened));
        for (channel, on_server) in listens.chain(unlistens) {
            let Some(entry) = self.channels.get_mut(&channel) else { continue };
            entry.on_server = on_server;
            // Meanwhile the last session may have left it, or the first one come.
            if entry.sessions.is_empty() || on_server == OnServer::No {
                self.changed.push(channel);
            }
        }
        Some(if batch.has_failed { Answered::Refused } else { Answered::Done })
    }
}

/// Appends a command that names a channel, and a semicolon.
fn command(text: &mut Vec<u8>, command: &[u8], channel: &[u8]) {
    text.extend_from_slice(command);
    text.push(b'"');
    for byte in channel {
        if *byte == b'"' {
            text.push(b'"');
        }
        text.push(*byte);
    }
    text.extend_from_slice(b"\";");
}

/// The text that listens to these channels.
pub(crate) fn listen_sql(channels: &[Channel]) -> Vec<u8> {
    let mut text = Vec::new();
    for channel in channels {
        command(&mut text, b"LISTEN ", channel);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: SessionId = SessionId { slot: 0, serial: 1 };
    const TWO: SessionId = SessionId { slot: 1, serial: 2 };
    const LINE: ServerId = ServerId { slot: 0, serial: 3 };

    fn channels(names: &[&str]) -> Vec<Channel> {
        names.iter().map(|name| name.as_bytes().into()).collect()
    }

    /// Takes the sessions that wait no more.
    fn granted(listener: &mut Listener) -> Vec<SessionId> {
        listener.take_granted().into_iter().map(|(session, _)| session).collect()
    }

    /// The text of the query that is to be written, if there is one.
    fn query(listener: &mut Listener) -> Option<String> {
        listener.pump()?;
        let out = listener.take_output();
        Some(String::from_utf8_lossy(&out[5..out.len() - 1]).into_owned())
    }

    #[test]
    fn a_channel_is_listened_to_once_and_until_its_last_session_is_gone() {
        let (mut listener, now) = (Listener::default(), Instant::now());
        listener.opened(LINE, b"", now);
        listener.request(ONE, channels(&["a\"b"]), now);
        assert_eq!(query(&mut listener).as_deref(), Some("LISTEN \"a\"\"b\";"));
        listener.request(TWO, channels(&["a\"b"]), now);
        assert_eq!(query(&mut listener), None, "it is on its way");
        assert_eq!(listener.answered(), Some(Answered::Done));
        assert_eq!(granted(&mut listener), [ONE]);
        assert_eq!(query(&mut listener).as_deref(), Some(""), "what was notified comes first");
        assert_eq!(listener.answered(), Some(Answered::Done));
        assert_eq!(granted(&mut listener), [TWO]);
        listener.release(ONE, &channels(&["a\"b"]));
        assert_eq!(query(&mut listener), None);
        assert_eq!(listener.unused_for(now), None);
        listener.release(TWO, &channels(&["a\"b"]));
        assert_eq!(listener.unused_for(now), Some(Duration::ZERO));
        assert_eq!(query(&mut listener).as_deref(), Some("UNLISTEN \"a\"\"b\";"));
        // Somebody comes while that is on its way.
        listener.request(ONE, channels(&["a\"b"]), now);
        assert_eq!(listener.answered(), Some(Answered::Done));
        assert!(listener.take_granted().is_empty());
        assert_eq!(query(&mut listener).as_deref(), Some("LISTEN \"a\"\"b\";"));
        assert_eq!(listener.answered(), Some(Answered::Done));
        assert_eq!(listener.take_granted().len(), 1);
        assert_eq!(query(&mut listener), None);
    }

    #[test]
    fn who_waits_while_the_connection_is_lost_waits_for_the_next_one() {
        let (mut listener, now) = (Listener::default(), Instant::now());
        listener.opened(LINE, b"", now);
        listener.request(ONE, channels(&["a"]), now);
        assert!(query(&mut listener).is_some());
        assert_eq!(listener.answered(), Some(Answered::Done));
        assert_eq!(granted(&mut listener), [ONE]);
        listener.request(TWO, channels(&["a"]), now);
        assert_eq!(query(&mut listener).as_deref(), Some(""));
        listener.lose(now);
        listener.opened(LINE, b"SET x TO 1", now);
        assert_eq!(query(&mut listener).as_deref(), Some("SET x TO 1"));
        assert_eq!(listener.answered(), Some(Answered::Done));
        assert!(granted(&mut listener).is_empty());
        assert_eq!(query(&mut listener).as_deref(), Some("LISTEN \"a\";"));
        assert_eq!(listener.answered(), Some(Answered::Done));
        assert_eq!(granted(&mut listener), [TWO]);
        assert_eq!(query(&mut listener), None);
    }

    #[test]
    fn a_new_connection_listens_to_everything() {
        let (mut listener, now) = (Listener::default(), Instant::now());
        listener.request(ONE, channels(&["a"]), now);
        listener.request(TWO, channels(&["a"]), now);
        assert!(listener.wants_line(now));
        listener.begin_dial(LINE);
        assert_eq!(query(&mut listener), None);
        listener.opened(LINE, b"SET x TO 1", now);
        assert_eq!(query(&mut listener).as_deref(), Some("SET x TO 1"));
        assert_eq!(query(&mut listener), None);
        assert_eq!(listener.answered(), Some(Answered::Done));
        assert_eq!(query(&mut listener).as_deref(), Some("LISTEN \"a\";"));
        assert_eq!(listener.answered(), Some(Answered::Done));
        assert_eq!(listener.take_granted().len(), 2);
        listener.request(ONE, channels(&["b"]), now);
        assert_eq!(query(&mut listener).as_deref(), Some("LISTEN \"b\";"));
        assert!(listener.lose(now + LASTED));
        assert!(listener.wants_line(now + LASTED), "it has lasted");
        listener.opened(LINE, b"", now);
        let again = query(&mut listener).unwrap_or_default();
        assert!(again.contains("LISTEN \"a\";") && again.contains("LISTEN \"b\";"), "{again}");
        assert!(listener.lose(now));
        assert!(!listener.wants_line(now) && listener.wants_line(now + FIRST_PAUSE));
    }

    #[test]
    fn a_refused_query_grants_nothing() {
        let (mut listener, now) = (Listener::default(), Instant::now());
        listener.opened(LINE, b"", now);
        listener.request(ONE, channels(&["a"]), now);
        assert!(query(&mut listener).is_some());
        listener.note_failed();
        assert_eq!(listener.answered(), Some(Answered::Refused));
        assert!(listener.take_granted().is_empty());
        assert_eq!(listener.take_refused(now).len(), 1);
    }
}
