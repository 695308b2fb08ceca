//! What is traced, on its way from workers and tasks to the one that sends it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::SystemTime;

use pgimbal_pooler::sample::Sample;
use tokio::sync::mpsc;

/// Something that becomes a span. It has names of databases and users, and nothing that a client
/// has sent or a server has answered.
#[derive(Debug)]
pub enum Event {
    /// A transaction or login that a worker has chosen.
    Sampled {
        /// The database's name, as clients say it.
        database: Box<str>,
        /// The user's name, as clients say it.
        user: Box<str>,
        /// The times.
        sample: Sample,
    },
    /// A user's password has rotated: pgimbal has learned the new one.
    Rotated {
        /// The user's name.
        user: Arc<str>,
        /// When it was learned.
        at: SystemTime,
    },
}

/// The way to the task that sends traces. The default leads nowhere: nothing is to be traced.
/// Clones are cheap and lead to the same task.
#[derive(Clone, Debug, Default)]
pub struct Traces(Option<Way>);

#[derive(Clone, Debug)]
struct Way {
    millionths: u32,
    events: mpsc::Sender<Event>,
    /// Events that found the queue full.
    dropped: Arc<AtomicU64>,
}

impl Traces {
    /// Makes a way with room for `limit` events; also its end. This part of transactions and
    /// logins is traced, in millionths.
    #[must_use]
    pub fn new(millionths: u32, limit: usize) -> (Self, mpsc::Receiver<Event>) {
        let (events, received) = mpsc::channel(limit);
        (Self(Some(Way { millionths, events, dropped: Arc::default() })), received)
    }

    /// The part of transactions and logins that is to be traced, in millionths; 0 where nothing is.
    #[must_use]
    pub fn millionths(&self) -> u32 {
        self.0.as_ref().map_or(0, |way| way.millionths)
    }

    /// Sends an event, unless there is no room: it is counted then and left out. It never waits.
    pub fn send(&self, event: Event) {
        if let Some(way) = &self.0
            && way.events.try_send(event).is_err()
        {
            way.dropped.fetch_add(1, Relaxed);
        }
    }

    /// The number of events that were left out since the start.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.0.as_ref().map_or(0, |way| way.dropped.load(Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_finds_no_room_is_counted_and_left_out() {
        let (traces, mut events) = Traces::new(10, 1);
        for user in ["a", "b", "c"] {
            traces.send(Event::Rotated { user: user.into(), at: SystemTime::now() });
        }
        assert_eq!((traces.millionths(), traces.dropped()), (10, 2));
        let event = events.try_recv();
        assert!(matches!(event, Ok(Event::Rotated { user, .. }) if &*user == "a"));
        assert!(events.try_recv().is_err());
        Traces::default().send(Event::Rotated { user: "a".into(), at: SystemTime::now() });
        assert_eq!((Traces::default().millionths(), Traces::default().dropped()), (0, 0));
    }
}
