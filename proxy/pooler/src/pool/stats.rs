//! What a worker counts: plain integers, collected at scrape. Nothing here decides anything.

use std::collections::BTreeMap;
use std::time::Duration;

use pgimbal_wire::error::SqlState;

/// Upper bounds of the wait histogram's buckets, in microseconds; the last bucket has none.
pub const WAIT_BUCKETS_MICROS: [u64; 14] = [
    50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 500_000, 1_000_000,
    10_000_000,
];

/// Different SQLSTATEs that are counted apart in a pool; PostgreSQL has about 250, a nonsensical
/// server must not fill memory with invented ones.
const SQLSTATES_LIMIT: usize = 300;

/// A histogram of waits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WaitHistogram {
    /// Waits in each bucket of [`WAIT_BUCKETS_MICROS`], not cumulated; the last is the overflow.
    pub buckets: [u64; WAIT_BUCKETS_MICROS.len() + 1],
    /// All waits together, in nanoseconds.
    pub sum_nanos: u64,
}

impl WaitHistogram {
    /// Counts one wait.
    pub fn record(&mut self, wait: Duration) {
        let micros = wait.as_micros() as u64;
        let bucket = WAIT_BUCKETS_MICROS.partition_point(|&bound| bound < micros);
        self.buckets[bucket] += 1;
        self.sum_nanos += wait.as_nanos() as u64;
    }

    /// Waits counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// Adds another worker's.
    pub fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.buckets.iter_mut().zip(other.buckets) {
            *mine += theirs;
        }
        self.sum_nanos += other.sum_nanos;
    }
}

/// Counters of one pool on one worker.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PoolStats {
    /// Transactions ended (a statement outside a transaction block is one).
    pub transactions: u64,
    /// Those of them that ended on a replica.
    pub replica_transactions: u64,
    /// Simple queries and Executes.
    pub queries: u64,
    /// Bytes read from clients.
    pub client_bytes_in: u64,
    /// Bytes written to clients.
    pub client_bytes_out: u64,
    /// Bytes read from servers.
    pub server_bytes_in: u64,
    /// Bytes written to servers.
    pub server_bytes_out: u64,
    /// Time that clients held server connections, in nanoseconds.
    pub held_nanos: u64,
    /// Waits for a server connection; those that found one idle are not counted.
    pub waits: WaitHistogram,
    /// Logins of clients that succeeded.
    pub client_logins: u64,
    /// Server connections opened.
    pub server_logins: u64,
    /// Attempts to open a server connection that failed.
    pub server_login_failures: u64,
    /// Server connections closed, for any reason.
    pub server_closes: u64,
    /// Parses after which the client was given a statement that others share.
    pub parses_shared: u64,
    /// Parses that the proxy repeated for a statement that a server did not have.
    pub reprepares: u64,
    /// Cancel requests sent to servers.
    pub cancels: u64,
    /// Questions put to servers, by what they were about.
    pub questions: BTreeMap<&'static str, u64>,
    /// Questions that got no answer.
    pub questions_failed: u64,
    /// Server connections that were reset before they served another session.
    pub resets: u64,
    /// Statements described again because a server lacked them.
    pub shape_checks: u64,
    /// Pins found by a question beyond `max_pinned`.
    pub pins_by_question: u64,
    /// Error responses from servers and from the proxy, by SQLSTATE.
    pub errors: BTreeMap<SqlState, u64>,
}

impl PoolStats {
    /// Whether a server has taken a login of the pool, or run a transaction for it.
    pub(crate) const fn has_served(&self) -> bool {
        self.server_logins > 0 || self.transactions > 0
    }

    /// Counts an error.
    pub fn error(&mut self, code: SqlState) {
        if let Some(n) = self.errors.get_mut(&code) {
            *n += 1;
        } else if self.errors.len() < SQLSTATES_LIMIT {
            self.errors.insert(code, 1);
        }
    }

    /// Adds another worker's counters.
    pub fn add(&mut self, other: &Self) {
        self.transactions += other.transactions;
        self.replica_transactions += other.replica_transactions;
        self.queries += other.queries;
        self.client_bytes_in += other.client_bytes_in;
        self.client_bytes_out += other.client_bytes_out;
        self.server_bytes_in += other.server_bytes_in;
        self.server_bytes_out += other.server_bytes_out;
        self.held_nanos += other.held_nanos;
        self.waits.add(&other.waits);
        self.client_logins += other.client_logins;
        self.server_logins += other.server_logins;
        self.server_login_failures += other.server_login_failures;
        self.server_closes += other.server_closes;
        self.parses_shared += other.parses_shared;
        self.reprepares += other.reprepares;
        self.cancels += other.cancels;
        for (kind, n) in &other.questions {
            *self.questions.entry(kind).or_default() += n;
        }
        self.questions_failed += other.questions_failed;
        self.resets += other.resets;
        self.shape_checks += other.shape_checks;
        self.pins_by_question += other.pins_by_question;
        for (code, n) in &other.errors {
            *self.errors.entry(*code).or_default() += n;
        }
    }
}

/// A pool as it stands, for metrics and the console.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PoolSnapshot {
    /// The database's name as clients say it.
    pub database: String,
    /// The user of the pool.
    pub user: String,
    /// `session`, `transaction` or `statement`.
    pub mode: &'static str,
    /// Clients linked to a server connection.
    pub clients_active: u32,
    /// Clients that wait for one.
    pub clients_waiting: u32,
    /// Clients that need none.
    pub clients_idle: u32,
    /// Server connections linked to a client.
    pub servers_active: u32,
    /// Idle server connections.
    pub servers_idle: u32,
    /// Server connections being opened.
    pub servers_dialing: u32,
    /// Server connections that wait for the end of a cancel request, or are closing.
    pub servers_leaving: u32,
    /// How long the longest waiter has waited.
    pub longest_wait: Duration,
    /// Pinned clients by reason.
    pub pinned: BTreeMap<&'static str, u32>,
    /// How long the longest of them has been pinned, by reason.
    pub pinned_longest: BTreeMap<&'static str, Duration>,
    /// Its counters.
    pub stats: PoolStats,
}

impl PoolSnapshot {
    /// Adds another worker's part of the same pool.
    pub fn add(&mut self, other: &Self) {
        self.clients_active += other.clients_active;
        self.clients_waiting += other.clients_waiting;
        self.clients_idle += other.clients_idle;
        self.servers_active += other.servers_active;
        self.servers_idle += other.servers_idle;
        self.servers_dialing += other.servers_dialing;
        self.servers_leaving += other.servers_leaving;
        self.longest_wait = self.longest_wait.max(other.longest_wait);
        for (reason, n) in &other.pinned {
            *self.pinned.entry(reason).or_default() += n;
        }
        for (reason, longest) in &other.pinned_longest {
            let mine = self.pinned_longest.entry(reason).or_default();
            *mine = (*mine).max(*longest);
        }
        self.stats.add(&other.stats);
    }
}

/// A client session as it stands, for `SHOW CLIENTS`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientSnapshot {
    /// Its worker.
    pub worker: u16,
    /// Its slot on the worker, for what the driver knows of it.
    pub slot: u32,
    /// Its number on the worker.
    pub serial: u32,
    /// The database's name as the client said it.
    pub database: String,
    /// Its user.
    pub user: String,
    /// `idle`, `waiting`, `active` or `pinned`.
    pub state: &'static str,
    /// Why it keeps its server connection.
    pub pinned: String,
    /// How long it has been pinned, zero if it is not.
    pub pinned_for: Duration,
    /// Its application_name, if it said one.
    pub application_name: String,
    /// Where it comes from.
    pub address: String,
    /// Process id of the server connection it is linked to, or 0.
    pub server_process_id: u32,
    /// How long it has been connected.
    pub connected: Duration,
    /// How long it has waited, if it waits.
    pub wait: Duration,
    /// Prepared statements that it knows.
    pub prepared_statements: usize,
    /// The generation of the password that it has shown, when that is one that rotates.
    pub generation: Option<u32>,
}

/// A server connection as it stands, for `SHOW SERVERS`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerSnapshot {
    /// Its worker.
    pub worker: u16,
    /// Its number on the worker.
    pub serial: u32,
    /// The pool's database.
    pub database: String,
    /// The pool's user.
    pub user: String,
    /// `dialing`, `idle`, `active`, `leaving`.
    pub state: &'static str,
    /// The server's process id.
    pub process_id: u32,
    /// Where it leads.
    pub address: String,
    /// How long it has been open.
    pub connected: Duration,
    /// Serial of the client that it serves, or 0.
    pub client: u32,
    /// Prepared statements on it.
    pub prepared_statements: usize,
    /// The generation of the password that it was opened with, when that is one that rotates.
    pub generation: Option<u32>,
}

/// Everything that one worker can tell.
#[derive(Clone, Debug, Default)]
pub struct WorkerSnapshot {
    /// Its pools.
    pub pools: Vec<PoolSnapshot>,
    /// What pools had counted that are gone, by the name of their database.
    pub retired: Vec<(String, PoolStats)>,
    /// Its clients; empty unless they were asked for.
    pub clients: Vec<ClientSnapshot>,
    /// Its server connections; empty unless they were asked for.
    pub servers: Vec<ServerSnapshot>,
    /// Clients' tasks that ended in a panic.
    pub panics: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_falls_into_the_bucket_whose_bound_it_does_not_pass() {
        let mut waits = WaitHistogram::default();
        waits.record(Duration::from_micros(50));
        waits.record(Duration::from_micros(51));
        waits.record(Duration::from_secs(11));
        assert_eq!((waits.buckets[0], waits.buckets[1]), (1, 1));
        assert_eq!(waits.buckets[WAIT_BUCKETS_MICROS.len()], 1);
        assert_eq!(waits.count(), 3);
    }

    #[test]
    fn questions_are_added_by_kind_and_of_pins_the_longest_stays() {
        let part = |kind, reason, seconds| {
            let mut part = PoolSnapshot::default();
            part.stats.questions.insert(kind, 2);
            part.stats.questions_failed = 1;
            part.stats.resets = 3;
            part.stats.shape_checks = 4;
            part.stats.pins_by_question = 5;
            part.pinned_longest.insert(reason, Duration::from_secs(seconds));
            part
        };
        let mut pool = part("locks", "listen", 7);
        pool.add(&part("locks", "listen", 9));
        pool.add(&part("session", "advisory_lock", 2));
        assert!(pool.stats.questions.into_iter().eq([("locks", 4), ("session", 2)]));
        assert_eq!((pool.stats.questions_failed, pool.stats.resets), (3, 9));
        assert_eq!((pool.stats.shape_checks, pool.stats.pins_by_question), (12, 15));
        let longest =
            pool.pinned_longest.into_iter().map(|(reason, time)| (reason, time.as_secs()));
        assert!(longest.eq([("advisory_lock", 2), ("listen", 9)]));
    }
}
