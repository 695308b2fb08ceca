//! Follows files with inotify, on one thread for all of them, and looks now and then in case that
//! inotify missed something, as it does on network file systems.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, INotifyWatcher, RecursiveMode, Watcher as _};
use tokio::sync::watch;

use super::watch_paths::{Fingerprint, directories};

/// Files are replaced in several steps: this long nothing must happen before they are read.
const SETTLED: Duration = Duration::from_millis(20);
/// Something that never settles is read all the same.
const LONGEST_UNSETTLED: Duration = Duration::from_millis(300);
/// An order more than this waits, an event more says nothing new.
const MAX_ORDERS: usize = 64;
/// Until the directories to watch stay the same while they are being watched.
const ATTEMPTS: usize = 3;

/// The handle of the thread that follows all files.
#[derive(Debug)]
pub(crate) struct Watcher {
    orders: SyncSender<Order>,
}

enum Order {
    Follow(Spot),
    Look,
    Stop,
}

/// A path that is followed while somebody listens.
struct Spot {
    path: PathBuf,
    ticks: watch::Sender<u64>,
    seen: Fingerprint,
}

impl Watcher {
    /// Starts the thread; `poll` is how often it looks without having been told.
    pub(crate) fn new(poll: Duration) -> Self {
        let (orders, received) = sync_channel(MAX_ORDERS);
        let events = orders.clone();
        let spawned = thread::Builder::new()
            .name("files".to_owned())
            .spawn(move || Follower::new(events).run(&received, poll));
        if let Err(error) = spawned {
            tracing::warn!(%error, "no thread to follow password files with");
        }
        Self { orders }
    }

    /// Ticks when what `path` leads to has changed, until the receiver is dropped.
    pub(crate) fn follow(&self, path: PathBuf) -> watch::Receiver<u64> {
        let (ticks, changes) = watch::channel(0);
        let seen = Fingerprint::of(&path);
        let _ = self.orders.send(Order::Follow(Spot { path, ticks, seen }));
        changes
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let _ = self.orders.send(Order::Stop);
    }
}

struct Follower {
    spots: Vec<Spot>,
    watched: BTreeSet<PathBuf>,
    refused: BTreeSet<PathBuf>,
    inotify: Option<INotifyWatcher>,
}

impl Follower {
    fn new(events: SyncSender<Order>) -> Self {
        let handler = move |event: notify::Result<Event>| {
            if event.is_ok_and(|event| !is_reading(event.kind)) {
                let _ = events.try_send(Order::Look);
            }
        };
        let inotify = INotifyWatcher::new(handler, notify::Config::default())
            .map_err(|error| tracing::warn!(%error, "password files are looked at now and then"))
            .ok();
        Self { spots: Vec::new(), watched: BTreeSet::new(), refused: BTreeSet::new(), inotify }
    }

    fn run(mut self, orders: &Receiver<Order>, poll: Duration) {
        loop {
            let mut order = orders.recv_timeout(poll);
            let begun = Instant::now();
            // Takes all that comes in one go.
            loop {
                match order {
                    Ok(Order::Follow(spot)) => self.spots.push(spot),
                    Ok(Order::Look) => {}
                    Ok(Order::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                    Err(RecvTimeoutError::Timeout) => break,
                }
                if begun.elapsed() > LONGEST_UNSETTLED {
                    break;
                }
                order = orders.recv_timeout(SETTLED);
            }
            self.look();
        }
    }

    fn look(&mut self) {
        self.spots.retain(|spot| !spot.ticks.is_closed());
        for _ in 0..ATTEMPTS {
            if !self.watch() {
                break;
            }
        }
        for spot in &mut self.spots {
            let now = Fingerprint::of(&spot.path);
            if spot.seen != now {
                spot.seen = now;
                spot.ticks.send_modify(|ticks| *ticks += 1);
            }
        }
    }

    /// Watches the directories that matter now; says whether they were others than before.
    fn watch(&mut self) -> bool {
        let Some(inotify) = &mut self.inotify else { return false };
        let wanted: BTreeSet<_> =
            self.spots.iter().flat_map(|spot| directories(&spot.path)).collect();
        for gone in self.watched.difference(&wanted) {
            let _ = inotify.unwatch(gone);
        }
        for directory in &wanted {
            // Even if it is watched: it may be another one under the same name.
            let outcome = inotify.watch(directory, RecursiveMode::NonRecursive);
            match outcome {
                Ok(()) => drop(self.refused.remove(directory)),
                Err(error) if self.refused.insert(directory.clone()) => tracing::warn!(
                    directory = %directory.display(), %error,
                    "a directory with passwords cannot be watched and is looked at now and then"
                ),
                Err(_) => {}
            }
        }
        let changed = wanted != self.watched;
        self.watched = wanted;
        changed
    }
}

/// Whether the event comes from somebody reading, as we do ourselves.
const fn is_reading(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => false,
        EventKind::Access(_) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests;
