//! The watcher of password files: one thread with inotify for all of them, which also polls,
//! because inotify misses changes on network file systems.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, INotifyWatcher, RecursiveMode, Watcher as _};
use tokio::sync::watch;

use super::watch_paths::{Fingerprint, directories};
use super::writing::{QUIET, Writing};

/// Files are replaced in several steps: nothing must happen for this long before they are read.
const SETTLED: Duration = Duration::from_millis(20);
/// Longest wait for that; a file that never settles is read all the same.
const LONGEST_UNSETTLED: Duration = Duration::from_millis(300);
/// An order more than this waits, an event more says nothing new.
const MAX_ORDERS: usize = 64;
/// Until the directories to watch stay the same while they are being watched.
const ATTEMPTS: usize = 3;

/// The handle of the thread that follows all files.
#[derive(Debug)]
pub(crate) struct Watcher {
    orders: SyncSender<Order>,
    writing: Writing,
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
    /// What was there at the last look, where nobody tells of writers.
    glimpsed: Option<Fingerprint>,
}

impl Watcher {
    /// Starts the thread; `poll` is the interval at which it looks without an event of inotify.
    pub(crate) fn new(poll: Duration) -> Self {
        let (orders, received) = sync_channel(MAX_ORDERS);
        let (events, writing) = (orders.clone(), Writing::default());
        let told = writing.clone();
        let spawned = thread::Builder::new()
            .name("files".to_owned())
            .spawn(move || Follower::new(events, told).run(&received, poll));
        if let Err(error) = spawned {
            tracing::warn!(%error, "no thread to follow password files with");
        }
        Self { orders, writing }
    }

    /// The record of files that are being written.
    pub(super) fn writing(&self) -> Writing {
        self.writing.clone()
    }

    /// A counter that grows when what `path` leads to has changed. The path is followed until the
    /// receiver is dropped.
    pub(crate) fn follow(&self, path: PathBuf) -> watch::Receiver<u64> {
        let (ticks, changes) = watch::channel(0);
        let seen = Fingerprint::of(&path);
        let _ = self.orders.send(Order::Follow(Spot { path, ticks, seen, glimpsed: None }));
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
    writing: Writing,
    /// Something is yet to be looked at, whatever happens.
    deferred: bool,
}

impl Follower {
    fn new(events: SyncSender<Order>, writing: Writing) -> Self {
        let seen = writing.clone();
        let handler = move |event: notify::Result<Event>| {
            let Ok(event) = event else { return };
            seen.see(&event);
            if !is_reading(event.kind) {
                let _ = events.try_send(Order::Look);
            }
        };
        let inotify = INotifyWatcher::new(handler, notify::Config::default())
            .map_err(|error| tracing::warn!(%error, "password files are looked at now and then"))
            .ok();
        let (watched, refused) = Default::default();
        Self { spots: Vec::new(), watched, refused, inotify, writing, deferred: false }
    }

    fn run(mut self, orders: &Receiver<Order>, poll: Duration) {
        loop {
            let pause = if self.deferred { poll.min(QUIET) } else { poll };
            let mut order = orders.recv_timeout(pause);
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
        self.deferred = false;
        for spot in &mut self.spots {
            let now = Fingerprint::of(&spot.path);
            if spot.seen == now {
                spot.glimpsed = None;
                continue;
            }
            let is_told =
                self.inotify.is_some() && directories(&spot.path).is_disjoint(&self.refused);
            // Where nobody tells of its writer, it must have been quiet since the last look.
            let is_whole = match is_told {
                true => !self.writing.covers(&spot.path),
                false => spot.glimpsed.as_ref() == Some(&now),
            };
            if is_whole {
                (spot.seen, spot.glimpsed) = (now, None);
                spot.ticks.send_modify(|ticks| *ticks += 1);
            } else {
                spot.glimpsed = Some(now);
                self.deferred = true;
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
