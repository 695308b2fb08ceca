//! What a client listens to over the connection that the clients of its pool share for that, and
//! the notifications that wait for it.
//!
//! Before a LISTEN is sent, the shared connection listens to its channel for the session. A change
//! counts when the transaction around it has committed, as the books tell. Notifications wait while
//! the session is in a transaction, as they do on PostgreSQL.

use std::collections::VecDeque;
use std::rc::Rc;

/// The name of a channel, as the client's texts have it and notifications bear it; shared by all
/// sessions of a worker that listen to it.
pub(crate) type Channel = Rc<[u8]>;

/// The most channels of one client that the shared connection carries. A client with more keeps
/// its server connection, as with `listen_mode = "pin"`.
pub const MOST_CHANNELS: usize = 256;

/// The most bytes of notifications (1 MiB) that wait for one client: those that have come since it
/// stopped to read, or since its transaction began. Beyond, it is dismissed (53400).
pub const QUEUE_LIMIT: usize = 1024 * 1024;

/// With more bytes of notifications waiting (256 KiB), a client is behind: the shared connection is
/// not read for a while.
const BEHIND: usize = QUEUE_LIMIT / 4;

/// With so few (64 KiB) it has caught up.
const CAUGHT_UP: usize = BEHIND / 4;

/// The most bytes of notifications that are given to a client's task at once.
const BYTES_AT_ONCE: usize = 64 * 1024;

/// The most changes and savepoints of one transaction that are followed.
const MOST_CHANGES: usize = 1024;

/// The channels of one session; 8 bytes for one that listens to none.
#[derive(Debug, Default)]
pub(crate) struct Channels(Option<Box<Listening>>);

#[derive(Debug, Default)]
struct Listening {
    /// Those whose LISTEN has been committed: their notifications are the client's.
    held: Vec<Channel>,
    /// Those of them whose LISTEN was committed on the server connection that the session has.
    held_here: Vec<Channel>,
    /// Those of a message that was not sent yet; the shared connection listens to them.
    granted: Vec<Channel>,
    /// Those of messages that were sent, whose transaction has not ended.
    sent: Vec<Channel>,
    /// All for which the shared connection counts the session.
    counted: Vec<Channel>,
    /// What the transaction that is under way has changed, oldest first.
    changes: Vec<Change>,
    /// The savepoints behind the first change, and how many changes were made before each.
    savepoints: Vec<(Box<[u8]>, usize)>,
    wait: Wait,
    here: Here,
    queue: VecDeque<Notification>,
    queued_bytes: usize,
    progress: Progress,
}

/// One change of what a session listens to, which its server has confirmed.
#[derive(Debug)]
enum Change {
    Listen(Channel),
    Unlisten(Box<[u8]>),
    UnlistenAll,
}

/// A notification that waits for its client.
#[derive(Debug)]
struct Notification {
    channel: Channel,
    /// The whole message, shared by all who get it.
    message: Rc<[u8]>,
}

/// How a client takes its notifications.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Progress {
    #[default]
    Along,
    /// The shared connection waits for it.
    Behind,
    /// The shared connection has waited for it in vain.
    LeftBehind,
}

/// Whether the session's next message waits for the shared connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Wait {
    #[default]
    No,
    /// It does.
    Yes,
    /// It did: the client's task is to look at the message again.
    Over,
    /// The shared connection does not listen for it: its LISTEN is as without one. The client's
    /// task is to look at the message again.
    GivingUp,
    /// As that, and the client's task knows.
    GivenUp,
}

/// Whether the session's own server connection listens to its channels too, so that code and
/// queries about them find what PostgreSQL would show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Here {
    #[default]
    No,
    /// The LISTENs were sent, or the server has refused them.
    Perhaps,
    Yes,
}

/// The client has not read for so long that no more notifications are kept for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full;

/// There are more changes in a transaction than are followed: the server is to be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooManyChanges;

/// Whether the task of a client is to be run for a notification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Offered {
    /// It is the first that waits.
    First,
    /// Others wait already.
    Next,
    /// As that, and so many wait now that the client is behind.
    FellBehind,
    /// It is not for this client.
    NotHeard,
}

impl Channels {
    /// Whether there may be any.
    #[inline]
    pub(crate) const fn is_any(&self) -> bool {
        self.0.is_some()
    }

    /// Whether the shared connection listens to `name` for the session.
    pub(crate) fn carries(&self, name: &[u8]) -> bool {
        self.0.as_deref().is_some_and(|listening| listening.carried(name).is_some())
    }

    /// Those whose LISTEN has been committed, in the order of their first LISTEN.
    pub(crate) fn held(&self) -> &[Channel] {
        self.0.as_deref().map_or(&[], |listening| &listening.held)
    }

    /// Whether so many more would be above [`MOST_CHANNELS`].
    pub(crate) fn are_too_many(&self, more: usize) -> bool {
        self.0.as_deref().map_or(0, |listening| listening.counted.len()) + more > MOST_CHANNELS
    }

    /// The next message waits until the shared connection listens to these channels.
    pub(crate) fn begin_wait(&mut self, channels: &[Channel]) {
        let listening = self.0.get_or_insert_default();
        listening.count(channels);
        listening.wait = Wait::Yes;
    }

    /// The shared connection listens to these channels for the session's next message.
    pub(crate) fn grant(&mut self, channels: &[Channel]) {
        let listening = self.0.get_or_insert_default();
        listening.count(channels);
        listening.granted.extend_from_slice(channels);
        if listening.wait == Wait::Yes {
            listening.wait = Wait::Over;
        }
    }

    /// The shared connection will not listen for the next message.
    pub(crate) fn give_up(&mut self) {
        self.0.get_or_insert_default().wait = Wait::GivingUp;
    }

    /// Whether the next message waits for the shared connection.
    pub(crate) fn waits(&self) -> bool {
        self.0.as_deref().is_some_and(|listening| listening.wait == Wait::Yes)
    }

    /// Whether it was said that the shared connection will not listen for the next message.
    pub(crate) fn is_given_up(&self) -> bool {
        let wait = self.0.as_deref().map(|listening| listening.wait);
        matches!(wait, Some(Wait::GivingUp | Wait::GivenUp))
    }

    /// The next message is not sent: the session waits for nothing any more.
    pub(crate) fn end_wait(&mut self) {
        if let Some(listening) = self.0.as_deref_mut() {
            listening.wait = Wait::No;
            listening.granted.clear();
        }
    }

    /// Whether the next message need not wait any more, and its client's task does not know yet.
    #[inline]
    pub(crate) fn take_wait_over(&mut self) -> bool {
        let Some(listening) = self.0.as_deref_mut() else { return false };
        let (after, over) = match listening.wait {
            Wait::Over => (Wait::No, true),
            Wait::GivingUp => (Wait::GivenUp, true),
            wait => (wait, false),
        };
        listening.wait = after;
        over
    }

    /// The session's next message is sent.
    #[inline]
    pub(crate) fn note_sent(&mut self) {
        if let Some(listening) = self.0.as_deref_mut() {
            listening.note_sent();
        }
    }

    /// Whether the server connection that the session has listens to its channels.
    pub(crate) fn here(&self) -> Here {
        self.0.as_deref().map_or(Here::No, |listening| listening.here)
    }

    /// The server connection that the session has listens to its channels, or does not.
    pub(crate) fn set_here(&mut self, here: Here) {
        if let Some(listening) = self.0.as_deref_mut() {
            listening.here = here;
            if here == Here::No {
                listening.held_here.clear();
            }
        }
    }

    /// The server has confirmed a LISTEN; nothing for a channel that the shared connection does not
    /// carry.
    pub(crate) fn listen(&mut self, name: &[u8]) -> Result<(), TooManyChanges> {
        let Some(listening) = self.0.as_deref_mut() else { return Ok(()) };
        let Some(channel) = listening.carried(name).map(Rc::clone) else { return Ok(()) };
        listening.change(Change::Listen(channel))
    }

    /// The server has confirmed an UNLISTEN, of all channels for `None`.
    pub(crate) fn unlisten(&mut self, name: Option<&[u8]>) -> Result<(), TooManyChanges> {
        let Some(listening) = self.0.as_deref_mut() else { return Ok(()) };
        listening.change(name.map_or(Change::UnlistenAll, |name| Change::Unlisten(name.into())))
    }

    /// A savepoint of this name is made. Before the first change nothing is noted.
    pub(crate) fn savepoint(&mut self, name: &[u8]) -> Result<(), TooManyChanges> {
        let changed = self.0.as_deref_mut().filter(|listening| !listening.changes.is_empty());
        let Some(listening) = changed else { return Ok(()) };
        if listening.savepoints.len() == MOST_CHANGES {
            return Err(TooManyChanges);
        }
        listening.savepoints.push((name.into(), listening.changes.len()));
        Ok(())
    }

    /// The newest savepoint of this name is gone back to, and stays; an unknown one stands before
    /// the first change.
    pub(crate) fn rollback_to(&mut self, name: &[u8]) {
        let Some(listening) = self.0.as_deref_mut() else { return };
        let at = listening.savepoints.iter().rposition(|(known, _)| **known == *name);
        listening.changes.truncate(at.map_or(0, |at| listening.savepoints[at].1));
        listening.savepoints.truncate(at.map_or(0, |at| at + 1));
    }

    /// The newest savepoint of this name is released, with those behind it; an unknown one stands
    /// before the first change.
    pub(crate) fn release(&mut self, name: &[u8]) {
        let Some(listening) = self.0.as_deref_mut() else { return };
        let at = listening.savepoints.iter().rposition(|(known, _)| **known == *name);
        listening.savepoints.truncate(at.unwrap_or(0));
    }

    /// Whether the transaction that is under way has changed something.
    #[inline]
    pub(crate) fn changed_in_transaction(&self) -> bool {
        self.0.as_deref().is_some_and(|listening| !listening.changes.is_empty())
    }

    /// The transaction has committed.
    pub(crate) fn commit(&mut self) {
        let Some(listening) = self.0.as_deref_mut() else { return };
        listening.savepoints.clear();
        for change in std::mem::take(&mut listening.changes) {
            match change {
                Change::Listen(channel) => listening.hold(channel),
                Change::Unlisten(name) => listening.drop_held(|held| **held == *name),
                Change::UnlistenAll => listening.drop_held(|_| true),
            }
        }
    }

    /// The transaction was rolled back, or its server connection is gone.
    pub(crate) fn rollback(&mut self) {
        if let Some(listening) = self.0.as_deref_mut() {
            listening.savepoints.clear();
            listening.changes.clear();
        }
    }

    /// Takes in what the session's server connection listens to, in names of the database's
    /// encoding. That connection listens to what the client has begun to listen to there, and to
    /// all of [`Self::held`] if it was brought there ([`Here::Yes`]), unless code has ended some of
    /// it. Returns whether the shared connection carries all that was shown.
    pub(crate) fn shown(&mut self, names: &[Box<[u8]>]) -> bool {
        let Some(listening) = self.0.as_deref_mut() else { return names.is_empty() };
        let is_shown = |held: &Channel| names.iter().any(|name| **name == **held);
        let expected = match listening.here {
            Here::Yes => &listening.held,
            Here::No | Here::Perhaps => &listening.held_here,
        };
        let ended: Vec<Channel> =
            expected.iter().filter(|held| !is_shown(held)).map(Rc::clone).collect();
        listening.drop_held(|held| ended.contains(held));
        names.iter().all(|name| listening.held.iter().any(|held| **held == **name))
    }

    /// The session's transactions have ended, and nothing of its client's is on its way.
    pub(crate) fn on_transaction_end(&mut self) {
        if let Some(listening) = self.0.as_deref_mut() {
            listening.sent.clear();
            listening.drop_unheard();
        }
    }

    /// The session ends. Returns the channels for which the shared connection counts it.
    pub(crate) fn leave(&mut self) -> Vec<Channel> {
        self.0.take().map_or_else(Vec::new, |listening| listening.counted)
    }

    /// Takes the channels for which the shared connection need not count the session any more.
    pub(crate) fn take_released(&mut self) -> Vec<Channel> {
        let Some(listening) = self.0.as_deref_mut() else { return Vec::new() };
        if listening.wait == Wait::Yes {
            return Vec::new();
        }
        let counted = std::mem::take(&mut listening.counted);
        let (kept, released) = counted.into_iter().partition(|channel| listening.needs(channel));
        listening.counted = kept;
        if listening.is_idle() {
            self.0 = None;
        }
        released
    }

    /// A notification of `channel` has come over the shared connection, which is `message` as a
    /// whole.
    ///
    /// # Errors
    /// More waits for the client than is kept; everything is dropped.
    pub(crate) fn offer(&mut self, channel: &Channel, message: &Rc<[u8]>) -> Result<Offered, Full> {
        let Some(listening) = self.0.as_deref_mut() else { return Ok(Offered::NotHeard) };
        if !listening.hears(channel) && !listening.sent.contains(channel) {
            return Ok(Offered::NotHeard);
        }
        if listening.queued_bytes + message.len() > QUEUE_LIMIT {
            listening.queue.clear();
            listening.queued_bytes = 0;
            return Err(Full);
        }
        listening.queued_bytes += message.len();
        let falls_behind = listening.queued_bytes > BEHIND && listening.progress == Progress::Along;
        let offered = match listening.queue.is_empty() {
            true => Offered::First,
            false if falls_behind => Offered::FellBehind,
            false => Offered::Next,
        };
        if offered == Offered::FellBehind {
            listening.progress = Progress::Behind;
        }
        let (channel, message) = (Rc::clone(channel), Rc::clone(message));
        listening.queue.push_back(Notification { channel, message });
        Ok(offered)
    }

    /// How many bytes of notifications of a channel wait for the client.
    pub(crate) fn queued_bytes(&self, channel: &Channel) -> usize {
        let queue = self.0.as_deref().map(|listening| &listening.queue);
        let waiting = queue.into_iter().flatten().filter(|next| next.channel == *channel);
        waiting.map(|next| next.message.len()).sum()
    }

    /// Whether the shared connection waits for the client to take some.
    pub(crate) fn is_behind(&self) -> bool {
        self.0.as_deref().is_some_and(|listening| listening.progress == Progress::Behind)
    }

    /// The shared connection does not wait any more.
    pub(crate) fn leave_behind(&mut self) {
        if let Some(listening) = self.0.as_deref_mut() {
            listening.progress = Progress::LeftBehind;
        }
    }

    /// Whether notifications wait.
    #[inline]
    pub(crate) fn has_notifications(&self) -> bool {
        self.0.as_deref().is_some_and(|listening| !listening.queue.is_empty())
    }

    /// Takes notifications that wait, whole messages in their order: some 64 KiB at most. To be
    /// called between two transactions.
    pub(crate) fn take_notifications(&mut self) -> Option<Vec<u8>> {
        let listening = self.0.as_deref_mut()?;
        let mut bytes = Vec::new();
        while let Some(next) = listening.queue.front()
            && (bytes.is_empty() || bytes.len() + next.message.len() <= BYTES_AT_ONCE)
        {
            if listening.hears(&next.channel) {
                bytes.extend_from_slice(&next.message);
            }
            listening.queued_bytes -= next.message.len();
            listening.queue.pop_front();
        }
        listening.look_whether_caught_up();
        (!bytes.is_empty()).then_some(bytes)
    }
}

impl Listening {
    /// The channel of this name, if the shared connection listens to it.
    fn carried(&self, name: &[u8]) -> Option<&Channel> {
        let carried = self.held.iter().chain(&self.granted).chain(&self.sent);
        carried.into_iter().find(|channel| ***channel == *name)
    }

    /// Whether the client gets what is notified there.
    fn hears(&self, channel: &Channel) -> bool {
        // Mostly the name is the same one in memory.
        self.held.iter().any(|held| Rc::ptr_eq(held, channel) || held == channel)
    }

    /// A LISTEN was committed.
    fn hold(&mut self, channel: Channel) {
        if !self.held_here.contains(&channel) {
            self.held_here.push(Rc::clone(&channel));
        }
        if !self.hears(&channel) {
            self.held.push(channel);
        }
    }

    /// The client does not listen to these any more.
    fn drop_held(&mut self, is_ended: impl Fn(&Channel) -> bool) {
        self.held.retain(|held| !is_ended(held));
        self.held_here.retain(|held| !is_ended(held));
    }

    fn needs(&self, channel: &Channel) -> bool {
        self.hears(channel) || self.granted.contains(channel) || self.sent.contains(channel)
    }

    fn count(&mut self, channels: &[Channel]) {
        for channel in channels {
            if !self.counted.contains(channel) {
                self.counted.push(Rc::clone(channel));
            }
        }
    }

    fn note_sent(&mut self) {
        let granted = std::mem::take(&mut self.granted);
        self.sent.extend(granted);
        self.wait = Wait::No;
        // What has come before this message may be older than the end of the transaction.
        if !self.sent.is_empty() {
            self.drop_unheard();
        }
    }

    fn change(&mut self, change: Change) -> Result<(), TooManyChanges> {
        if self.changes.len() == MOST_CHANGES {
            return Err(TooManyChanges);
        }
        self.changes.push(change);
        Ok(())
    }

    /// Drops the notifications of channels whose LISTEN has not been committed.
    fn drop_unheard(&mut self) {
        let queue = std::mem::take(&mut self.queue);
        self.queue = queue.into_iter().filter(|next| self.hears(&next.channel)).collect();
        self.queued_bytes = self.queue.iter().map(|next| next.message.len()).sum();
        self.look_whether_caught_up();
    }

    fn look_whether_caught_up(&mut self) {
        if self.queued_bytes <= CAUGHT_UP {
            self.progress = Progress::Along;
        }
    }

    /// Whether nothing of it matters any more.
    fn is_idle(&self) -> bool {
        self.counted.is_empty()
            && self.changes.is_empty()
            && self.queue.is_empty()
            && self.wait == Wait::No
            && self.here == Here::No
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn channel(name: &str) -> Channel {
        name.as_bytes().into()
    }

    fn message(text: &str) -> Rc<[u8]> {
        text.as_bytes().into()
    }

    /// A session whose LISTEN of these channels has been sent.
    fn asked(names: &[&str]) -> Channels {
        let mut channels = Channels::default();
        channels.grant(&names.iter().map(|name| channel(name)).collect::<Vec<_>>());
        channels.note_sent();
        channels
    }

    fn held(channels: &Channels) -> Vec<String> {
        let text = |channel: &Channel| String::from_utf8_lossy(channel).into_owned();
        channels.held().iter().map(text).collect()
    }

    #[test]
    fn a_listen_counts_when_its_transaction_commits() {
        let mut channels = asked(&["a", "b"]);
        assert_eq!(channels.listen(b"a"), Ok(()));
        assert!(held(&channels).is_empty() && channels.changed_in_transaction());
        channels.commit();
        assert_eq!(held(&channels), ["a"]);
        assert_eq!(channels.listen(b"b"), Ok(()));
        assert_eq!(channels.unlisten(Some(b"a")), Ok(()));
        channels.rollback();
        assert_eq!(held(&channels), ["a"], "as before its transaction");
        channels.on_transaction_end();
        assert_eq!(channels.take_released(), [channel("b")]);
        assert_eq!(channels.unlisten(None), Ok(()));
        channels.commit();
        assert_eq!(channels.take_released(), [channel("a")]);
        assert!(channels.0.is_none(), "who listens to nothing takes no memory");
    }

    #[test]
    fn savepoints_bring_back_what_was_listened_to() {
        let mut channels = asked(&["a", "b", "c"]);
        assert_eq!(channels.savepoint(b"early"), Ok(()));
        assert_eq!(channels.listen(b"a"), Ok(()));
        assert_eq!(channels.savepoint(b"s"), Ok(()));
        assert_eq!(channels.listen(b"b"), Ok(()));
        assert_eq!(channels.savepoint(b"s"), Ok(()));
        assert_eq!(channels.unlisten(None), Ok(()));
        channels.rollback_to(b"s");
        channels.release(b"s");
        channels.rollback_to(b"s");
        assert_eq!(channels.listen(b"c"), Ok(()));
        channels.commit();
        assert_eq!(held(&channels), ["a", "c"]);
        assert_eq!(channels.unlisten(None), Ok(()));
        channels.rollback_to(b"early");
        channels.commit();
        assert_eq!(held(&channels), ["a", "c"]);
    }

    #[test]
    fn what_was_notified_before_the_commit_was_sent_is_not_heard() {
        let mut channels = asked(&["a"]);
        assert_eq!(channels.offer(&channel("a"), &message("before")), Ok(Offered::First));
        channels.note_sent();
        assert_eq!(channels.offer(&channel("a"), &message("1")), Ok(Offered::First));
        assert_eq!(channels.offer(&channel("a"), &message("2")), Ok(Offered::Next));
        assert_eq!(channels.offer(&channel("b"), &message("x")), Ok(Offered::NotHeard));
        assert_eq!([&"a", &"b"].map(|name| channels.queued_bytes(&channel(name))), [2, 0]);
        assert_eq!(channels.listen(b"a"), Ok(()));
        channels.commit();
        channels.on_transaction_end();
        assert_eq!(channels.take_notifications().as_deref(), Some(&b"12"[..]));
        assert!(!channels.has_notifications());
    }

    #[test]
    fn a_rolled_back_listen_hears_nothing() {
        let mut channels = asked(&["a"]);
        assert_eq!(channels.offer(&channel("a"), &message("1")), Ok(Offered::First));
        channels.rollback();
        channels.on_transaction_end();
        assert_eq!(channels.take_notifications(), None);
    }

    #[test]
    fn a_client_that_does_not_read_is_full_at_a_mebibyte() {
        let mut channels = asked(&["a"]);
        let long = message(&"x".repeat(QUEUE_LIMIT / 2));
        assert_eq!(channels.offer(&channel("a"), &long), Ok(Offered::First));
        assert_eq!(channels.offer(&channel("a"), &long), Ok(Offered::FellBehind));
        assert_eq!(channels.offer(&channel("a"), &long), Err(Full));
        assert!(!channels.has_notifications());
    }

    #[test]
    fn what_the_server_shows_ends_what_code_has_ended() {
        let mut channels = asked(&["a", "b"]);
        assert_eq!(channels.listen(b"a").and(channels.listen(b"b")), Ok(()));
        channels.commit();
        // Its server connection is another one from now on.
        channels.set_here(Here::No);
        let names = |names: &[&str]| names.iter().map(|name| name.as_bytes().into()).collect();
        let shown: Vec<Box<[u8]>> = names(&["b"]);
        assert!(channels.shown(&shown));
        assert_eq!(held(&channels), ["a", "b"], "it was not brought there");
        channels.set_here(Here::Yes);
        assert!(channels.shown(&shown));
        assert_eq!(held(&channels), ["b"]);
        let other: Vec<Box<[u8]>> = names(&["b", "c"]);
        assert!(!channels.shown(&other), "nobody else carries c");
    }

    #[test]
    fn what_the_server_shows_ends_what_was_listened_to_there() {
        let mut channels = asked(&["a", "b"]);
        assert_eq!(channels.listen(b"a"), Ok(()));
        channels.commit();
        channels.set_here(Here::No);
        assert_eq!(channels.listen(b"b"), Ok(()));
        channels.commit();
        assert_eq!(held(&channels), ["a", "b"]);
        assert!(channels.shown(&[]));
        assert_eq!(held(&channels), ["a"], "of which this server connection knows nothing");
    }

    #[test]
    fn the_shared_connection_waits_for_a_client_from_256_kib_to_64_kib() {
        let mut channels = asked(&["a"]);
        assert_eq!(channels.listen(b"a"), Ok(()));
        channels.commit();
        let message = message(&"x".repeat(8000));
        let fill = |channels: &mut Channels| loop {
            match channels.offer(&channel("a"), &message) {
                Ok(Offered::First | Offered::Next) => assert!(!channels.is_behind()),
                other => break other,
            }
        };
        assert_eq!(fill(&mut channels), Ok(Offered::FellBehind));
        assert!(channels.is_behind());
        let waiting = |channels: &Channels| channels.queued_bytes(&channel("a"));
        while channels.is_behind() {
            assert!(waiting(&channels) > CAUGHT_UP && channels.take_notifications().is_some());
        }
        assert!(channels.has_notifications());
        assert_eq!(fill(&mut channels), Ok(Offered::FellBehind), "it is told each time");
        channels.leave_behind();
        assert_eq!(fill(&mut channels), Err(Full), "it is not told of who was waited for in vain");
    }
}
