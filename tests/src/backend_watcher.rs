//! Counts a server's backends all the time, over a connection of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::server::Server;

/// The pause between two counts.
const PAUSE: Duration = Duration::from_millis(10);

/// A thread that counts the client backends of everybody but superusers every 10 ms. Dropping it
/// without [`BackendWatcher::stop`] leaves its findings unread.
pub struct BackendWatcher {
    stop: Arc<AtomicBool>,
    now: Arc<AtomicUsize>,
    thread: Option<JoinHandle<Watched>>,
}

/// What a [`BackendWatcher`] has seen.
#[derive(Debug, Default)]
pub struct Watched {
    /// The most backends at one moment.
    pub most: usize,
    /// Number of counts.
    pub counts: usize,
    /// The longest time between two counts.
    pub longest_gap: Duration,
    /// The backends of the moment with the most, if they were more than the limit: a line each.
    pub above: Vec<String>,
}

impl BackendWatcher {
    /// Starts to count on `server`, and lists the backends when they are more than `limit`.
    ///
    /// # Panics
    /// When the server refuses the login.
    #[must_use]
    pub fn start(server: &Server, limit: usize) -> Self {
        let (stop, now) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let mut superuser = server.superuser();
        let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&now));
        let thread = thread::spawn(move || {
            let mut watched = Watched::default();
            let mut last = Instant::now();
            while !stopped.load(Ordering::Relaxed) {
                // Each is a moment of its own: the view is a snapshot for a transaction.
                let rows = superuser.ok(BACKENDS).texts();
                watched.counts += 1;
                watched.longest_gap = watched.longest_gap.max(last.elapsed());
                last = Instant::now();
                counted.store(rows.len(), Ordering::Relaxed);
                if rows.len() > watched.most && rows.len() > limit {
                    watched.above = rows.iter().map(|row| row.join(" | ")).collect();
                }
                watched.most = watched.most.max(rows.len());
                thread::sleep(PAUSE);
            }
            watched
        });
        Self { stop, now, thread: Some(thread) }
    }

    /// The backends of the newest count.
    #[must_use]
    pub fn now(&self) -> usize {
        self.now.load(Ordering::Relaxed)
    }

    /// Ends the thread and returns what it has seen.
    ///
    /// # Panics
    /// When the server has ended meanwhile.
    #[must_use]
    pub fn stop(mut self) -> Watched {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("a running thread");
        thread.join().expect("a server that answers")
    }
}

impl Drop for BackendWatcher {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

const BACKENDS: &str = "\
select pid, usename, application_name, client_port, state, backend_start, left(query, 60) \
from pg_stat_activity where backend_type = 'client backend' and usename <> 'postgres'";
