//! Clients of several replicas that must see no error and no long pause.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use pgimbal_tests::server::Server;
use pgimbal_tests::until::{SOON, eventually};
use pgimbal_tests::{Deployment, Login, WireClient};

/// How many queries a client runs before it logs in anew.
const QUERIES_OF_A_LOGIN: u64 = 150;

/// Clients that run queries without a pause, a thread each.
pub(super) struct Load {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

/// What a client does again and again.
#[derive(Clone)]
pub(super) struct Work {
    /// The login, which every client proves again now and then.
    pub(super) login: Login,
    /// A query with one row.
    pub(super) sql: &'static str,
    /// The pause between two queries.
    pub(super) pause: Duration,
}

/// What the clients have seen.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Queries that were answered.
    pub(super) done: u64,
    /// Errors, each with the replica.
    pub(super) errors: Vec<String>,
    /// The longest times from a query to its answer, the longest first. A login is not counted: most
    /// of it is this process's own work.
    pub(super) longest: Vec<Duration>,
    /// The longest time of a client that works without pgimbal: what the machine takes.
    pub(super) longest_without: Duration,
}

struct Shared {
    stop: AtomicBool,
    /// By replica: how many of its clients work.
    active: Vec<AtomicUsize>,
    /// By client: the answers that it has got.
    done: Vec<AtomicU64>,
    seen: Mutex<Seen>,
}

impl Load {
    /// Starts `clients` clients of each replica, and one of `server` itself for comparison.
    pub(super) fn start(
        deployment: &Deployment,
        server: &Server,
        clients: usize,
        work: &Work,
    ) -> Self {
        let load = Self::idle(deployment, server, clients, work);
        load.shift(&vec![clients; deployment.replicas.len()]);
        load
    }

    /// The same, and none of them works yet.
    pub(super) fn idle(
        deployment: &Deployment,
        server: &Server,
        clients: usize,
        work: &Work,
    ) -> Self {
        let replicas = deployment.replicas.len();
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            active: (0..replicas).map(|_| AtomicUsize::new(0)).collect(),
            done: (0..replicas * clients).map(|_| AtomicU64::new(0)).collect(),
            seen: Mutex::default(),
        });
        let (compared, sql, mut direct) = (Arc::clone(&shared), work.sql, server.superuser());
        let mut threads = vec![thread::spawn(move || compared.run_without(&mut direct, sql))];
        for (replica, proxy) in deployment.replicas.iter().enumerate() {
            for number in 0..clients {
                let (shared, work, port) = (Arc::clone(&shared), work.clone(), proxy.port);
                let client = Client { replica, number, index: replica * clients + number, port };
                threads.push(thread::spawn(move || shared.run(&client, &work)));
            }
        }
        Self { shared, threads }
    }

    /// Lets only so many clients of each replica work from now on.
    pub(super) fn shift(&self, active: &[usize]) {
        for (now, wanted) in self.shared.active.iter().zip(active) {
            now.store(*wanted, Ordering::Relaxed);
        }
    }

    /// Waits until every client that works has got another answer, and returns how long that took.
    pub(super) fn wait_until_each_is_served(&self) -> Duration {
        let clients = self.shared.done.len() / self.shared.active.len();
        let now = |index: usize| self.shared.done[index].load(Ordering::Relaxed);
        let working: Vec<(usize, u64)> = (0..self.shared.done.len())
            .filter(|index| {
                index % clients < self.shared.active[index / clients].load(Ordering::Relaxed)
            })
            .map(|index| (index, now(index)))
            .collect();
        eventually("every client is served", SOON * 4, || {
            working.iter().all(|(index, before)| now(*index) > *before)
        })
    }

    /// The errors so far.
    pub(super) fn errors(&self) -> Vec<String> {
        self.shared.seen().errors.clone()
    }

    /// Ends the clients, and returns what they have seen.
    pub(super) fn stop(self) -> Seen {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().expect("a client");
        }
        let mut seen = std::mem::take(&mut *self.shared.seen());
        seen.longest.sort_unstable_by(|a, b| b.cmp(a));
        seen
    }
}

impl Seen {
    /// Asserts that nobody saw an error, and nobody waited longer than `limit` and what the machine
    /// takes for a few queries.
    #[track_caller]
    pub(super) fn nothing_but_answers(&self, limit: Duration) {
        assert!(self.errors.is_empty(), "{} errors: {:?}", self.errors.len(), self.errors);
        assert!(self.done > 0, "nobody was served");
        let longest = self.longest.first().copied().unwrap_or_default();
        eprintln!(
            "{} answers, the longest after {longest:?}; without pgimbal after {:?}",
            self.done, self.longest_without
        );
        let limit = limit + 4 * self.longest_without;
        assert!(longest <= limit, "somebody waited {longest:?}: {:?}", self.longest);
    }
}

struct Client {
    replica: usize,
    number: usize,
    index: usize,
    port: u16,
}

impl Shared {
    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, client: &Client, work: &Work) {
        let mut connection = None;
        while !self.stop.load(Ordering::Relaxed) {
            if client.number >= self.active[client.replica].load(Ordering::Relaxed) {
                thread::sleep(Duration::from_millis(10));
                continue;
            }
            let done = self.done[client.index].load(Ordering::Relaxed);
            match step(&mut connection, client.port, work, done) {
                Ok(took) => self.answered(client.index, took),
                Err(error) => {
                    connection = None;
                    self.seen().errors.push(format!("r{}: {error}", client.replica + 1));
                    thread::sleep(Duration::from_millis(100));
                }
            }
            thread::sleep(work.pause);
        }
    }

    /// Runs the queries on the server itself.
    fn run_without(&self, direct: &mut WireClient, sql: &str) {
        while !self.stop.load(Ordering::Relaxed) {
            let start = Instant::now();
            // The test may have ended the server.
            if direct.try_query(sql).is_err() {
                return;
            }
            let mut seen = self.seen();
            seen.longest_without = seen.longest_without.max(start.elapsed());
            drop(seen);
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn answered(&self, index: usize, took: Duration) {
        self.done[index].fetch_add(1, Ordering::Relaxed);
        let mut seen = self.seen();
        seen.done += 1;
        if seen.longest.len() < 20 || seen.longest.iter().any(|known| *known < took) {
            seen.longest.push(took);
            seen.longest.sort_unstable_by(|a, b| b.cmp(a));
            seen.longest.truncate(20);
        }
    }
}

/// Runs one query, after a login where one is due, and returns how long the query took.
fn step(
    connection: &mut Option<WireClient>,
    port: u16,
    work: &Work,
    done: u64,
) -> Result<Duration, String> {
    if done % QUERIES_OF_A_LOGIN == QUERIES_OF_A_LOGIN - 1 {
        *connection = None;
    }
    let client = match connection {
        Some(client) => client,
        None => {
            let mut client = WireClient::try_tcp(port).map_err(|error| error.to_string())?;
            client.log_in(&work.login).map_err(|told| format!("login: {told:?}"))?;
            connection.insert(client)
        }
    };
    let start = Instant::now();
    let reply = client.try_query(work.sql).map_err(|error| error.to_string())?;
    match reply.errors().first() {
        Some(error) => Err(format!("{error:?}")),
        None => Ok(start.elapsed()),
    }
}
