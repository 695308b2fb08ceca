//! What a worker counts: plain integers, collected at scrape. Nothing here decides anything.

use std::collections::BTreeMap;
use std::time::Duration;

use pgimbal_wire::error::SqlState;

use super::histogram::Histogram;

/// Different SQLSTATEs that are counted apart in a pool; PostgreSQL has about 250, a nonsensical
/// server must not fill memory with invented ones.
const SQLSTATES_LIMIT: usize = 300;

/// The counters of one pool on one worker, from zero when the worker has made the pool. None ever
/// goes down. The driver adds those of all workers for the metrics and the console.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PoolStats {
    /// Transactions that have ended, committed or not, counted at the ReadyForQuery that says so. A
    /// statement outside a transaction block is one. The metric `pgimbal_transactions_total`.
    pub transactions: u64,
    /// The transactions among [`Self::transactions`] that ended on a server connection to a node
    /// for reading. The metric `pgimbal_reads_on_replicas_total`.
    pub replica_transactions: u64,
    /// Segments of clients that were sent to the primary or to a replica by what they do or by a
    /// comment, by the role of the node and the reason. The metric `pgimbal_routed_total`.
    pub routed: BTreeMap<(&'static str, &'static str), u64>,
    /// Query and Execute messages that clients sent (protocol chapter "Message Flow"). The metric
    /// `pgimbal_queries_total`.
    pub queries: u64,
    /// Bytes of clients' messages that were processed. The metric
    /// `pgimbal_client_received_bytes_total`.
    pub client_bytes_in: u64,
    /// Bytes to be written to clients. The metric `pgimbal_client_sent_bytes_total`.
    pub client_bytes_out: u64,
    /// Bytes of servers' messages that were processed. The metric
    /// `pgimbal_server_received_bytes_total`.
    pub server_bytes_in: u64,
    /// Bytes to be written to servers, the proxy's own queries included. The metric
    /// `pgimbal_server_sent_bytes_total`.
    pub server_bytes_out: u64,
    /// The time for which clients were linked to server connections, in nanoseconds, added up when
    /// each connection is given back. The metric `pgimbal_server_held_seconds_total`.
    pub held_nanos: u64,
    /// How long the transactions took that [`Self::transactions`] counts, from the first message
    /// that was sent to the server. The metric `pgimbal_transaction_seconds`.
    pub transaction_times: Histogram,
    /// How long the server took for each query, from its first message that was sent to it until
    /// its ReadyForQuery. A query is a simple query, or the extended-protocol messages up to a
    /// Sync; those of the proxy's own are not counted. The metric `pgimbal_query_seconds`.
    pub query_times: Histogram,
    /// How long clients waited from asking for a server connection until they were given one: zero
    /// for those that found one idle. A wait that ends with an error is not counted. The metric
    /// `pgimbal_wait_seconds`.
    pub waits: Histogram,
    /// How long the logins took that [`Self::client_logins`] counts, from the startup packet to
    /// ReadyForQuery. The metric `pgimbal_login_seconds`.
    pub login_times: Histogram,
    /// Logins of clients that have succeeded: they were told ReadyForQuery. The metric
    /// `pgimbal_client_sessions_total`.
    pub client_logins: u64,
    /// Server connections that were opened and logged in. The metric `pgimbal_server_logins_total`.
    pub server_logins: u64,
    /// Attempts to open a server connection that have failed, or have led to another node of a
    /// cluster than they should. The metric `pgimbal_server_login_failures_total`.
    pub server_login_failures: u64,
    /// Server connections that the proxy has begun to close or whose server has ended them, for any
    /// reason. The metric `pgimbal_server_closes_total`.
    pub server_closes: u64,
    /// Parses after which the client was given a prepared statement that other clients share, in
    /// place of its own, once the server had described its own. The metric
    /// `pgimbal_parses_shared_total`.
    pub parses_shared: u64,
    /// Parses that the proxy has sent by itself, because a client used a prepared statement that
    /// its server connection did not have. The metric `pgimbal_reprepares_total`.
    pub reprepares: u64,
    /// Cancel requests that were sent to servers because a client asked, or after `query_timeout`;
    /// those for what a vanished client runs are not counted. The metric `pgimbal_cancels_total`.
    pub cancels: u64,
    /// Questions about session state that the proxy put to servers, by what they were about
    /// (`locks`, `session` and so on). The metric `pgimbal_questions_total`.
    pub questions: BTreeMap<&'static str, u64>,
    /// Questions about session state that got an error, or no answer within 1 s. The metric
    /// `pgimbal_questions_failed_total`.
    pub questions_failed: u64,
    /// Resets of server connections on which a session may have left state, before another session
    /// was served or after the client had gone; those by the configured `reset_query` are not
    /// counted. The metric `pgimbal_resets_total`.
    pub resets: u64,
    /// Describes that the proxy has sent for a statement that it had prepared again, to see whether
    /// its parameters and columns still are what the client was told. The metric
    /// `pgimbal_shape_checks_total`.
    pub shape_checks: u64,
    /// Answers to questions that would pin a session although `max_pinned` sessions of the pool are
    /// pinned: it keeps its server connection all the same. The metric
    /// `pgimbal_pins_by_question_total`.
    pub pins_by_question: u64,
    /// Notifications (NOTIFY) that came over a connection which clients share to listen, counted
    /// once for each client that listens to the channel. The metric `pgimbal_notifications_total`.
    pub notifications: u64,
    /// Error responses from servers and from the proxy, by SQLSTATE. At most 300 different ones are
    /// counted; further ones are left out. The metric `pgimbal_errors_total`.
    pub errors: BTreeMap<SqlState, u64>,
}

impl PoolStats {
    /// Whether a server has taken a login of the pool, or run a transaction for it.
    pub(crate) const fn has_served(&self) -> bool {
        self.server_logins > 0 || self.transactions > 0
    }

    /// Counts an error response by its SQLSTATE. A new one is left out once 300 are known, for a
    /// nonsensical server must not fill memory with invented ones.
    pub fn error(&mut self, code: SqlState) {
        if let Some(n) = self.errors.get_mut(&code) {
            *n += 1;
        } else if self.errors.len() < SQLSTATES_LIMIT {
            self.errors.insert(code, 1);
        }
    }

    /// Adds the counters of another worker's part of the pool, or of another pool. Kinds of
    /// questions and SQLSTATEs that only `other` has are taken over, without the limit of 300.
    pub fn add(&mut self, other: &Self) {
        self.transactions += other.transactions;
        self.replica_transactions += other.replica_transactions;
        for (role_and_reason, n) in &other.routed {
            *self.routed.entry(*role_and_reason).or_default() += n;
        }
        self.queries += other.queries;
        self.client_bytes_in += other.client_bytes_in;
        self.client_bytes_out += other.client_bytes_out;
        self.server_bytes_in += other.server_bytes_in;
        self.server_bytes_out += other.server_bytes_out;
        self.held_nanos += other.held_nanos;
        self.transaction_times.add(&other.transaction_times);
        self.query_times.add(&other.query_times);
        self.waits.add(&other.waits);
        self.login_times.add(&other.login_times);
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
        self.notifications += other.notifications;
        for (code, n) in &other.errors {
            *self.errors.entry(*code).or_default() += n;
        }
    }
}

/// One worker's part of a pool at one moment, for the metrics and SHOW POOLS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PoolSnapshot {
    /// The database's name, as clients say it in their startup packets.
    pub database: String,
    /// The user's name, as clients say it in their startup packets.
    pub user: String,
    /// The pool's mode (`pool_mode` in the configuration): `session`, `transaction` or `statement`.
    pub mode: &'static str,
    /// Clients that are linked to a server connection. The metric `pgimbal_clients_active`.
    pub clients_active: u32,
    /// Clients that wait for a server connection, or for a place among the pinned sessions. The
    /// metric `pgimbal_clients_waiting`.
    pub clients_waiting: u32,
    /// Of [`Self::clients_waiting`], those that wait for a place among the pinned sessions
    /// (`max_pinned`). The metric `pgimbal_clients_awaiting_place`.
    pub clients_awaiting_place: u32,
    /// Clients that neither have a server connection nor wait for one. The metric
    /// `pgimbal_clients_idle`.
    pub clients_idle: u32,
    /// Server connections that are linked to a client. The metric `pgimbal_servers_active`.
    pub servers_active: u32,
    /// Server connections that are idle: linked to no client, and ready to be handed out. The
    /// metric `pgimbal_servers_idle`.
    pub servers_idle: u32,
    /// Server connections that are being opened. The metric `pgimbal_servers_dialing`.
    pub servers_dialing: u32,
    /// Server connections that wait for the end of a cancel request, or are closing: they serve
    /// nobody. The metric `pgimbal_servers_leaving`.
    pub servers_leaving: u32,
    /// Server connections that listen for all clients of the pool on their worker: at most one for
    /// each worker. The metric `pgimbal_servers_listening`.
    pub servers_listening: u32,
    /// Channels that these listen to, added up over the workers. The metric
    /// `pgimbal_listen_channels`.
    pub listen_channels: u32,
    /// How long the client has waited so far that waits longest, for a server connection or for a
    /// place among the pinned sessions; zero if none waits. The metric
    /// `pgimbal_longest_wait_seconds`.
    pub longest_wait: Duration,
    /// The number of pinned clients by reason. A client with several reasons counts under each; a
    /// reason without clients is missing. The metric `pgimbal_clients_pinned`.
    pub pinned: BTreeMap<&'static str, u32>,
    /// How long the client has been pinned that is pinned longest, by reason; a reason without
    /// clients is missing. The metric `pgimbal_pinned_longest_seconds`.
    pub pinned_longest: BTreeMap<&'static str, Duration>,
    /// The pool's counters on this worker, or of all workers once [`Self::add`] was called for
    /// each.
    pub stats: PoolStats,
}

impl PoolSnapshot {
    /// Adds another worker's part of the same pool, or another pool for a common sum: counts are
    /// summed, of times the longer one stays. Reasons that only `other` has are taken over; the
    /// names and the mode stay.
    pub fn add(&mut self, other: &Self) {
        self.clients_active += other.clients_active;
        self.clients_waiting += other.clients_waiting;
        self.clients_awaiting_place += other.clients_awaiting_place;
        self.clients_idle += other.clients_idle;
        self.servers_active += other.servers_active;
        self.servers_idle += other.servers_idle;
        self.servers_dialing += other.servers_dialing;
        self.servers_leaving += other.servers_leaving;
        self.servers_listening += other.servers_listening;
        self.listen_channels += other.listen_channels;
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

/// A client session at one moment, for SHOW CLIENTS: one row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientSnapshot {
    /// The number of the session's worker, from 0.
    pub worker: u16,
    /// The session's slot on the worker, by which the driver finds the address and the rest of what
    /// it knows.
    pub slot: u32,
    /// The session's serial number on the worker, from 1: with the worker's number it names the
    /// client.
    pub serial: u32,
    /// The database's name, as the client said it in its startup packet.
    pub database: String,
    /// The user's name, as the client said it in its startup packet.
    pub user: String,
    /// `idle`, `waiting`, `active` (linked to a server connection) or `pinned` (linked, and beyond
    /// its transaction).
    pub state: &'static str,
    /// The reasons for which the session keeps its server connection beyond a transaction,
    /// separated by commas and spaces; empty if there is none.
    pub pinned: String,
    /// How long the session has been pinned; zero if it is not.
    pub pinned_for: Duration,
    /// The client's `application_name`, in UTF-8 as far as its bytes are; empty if it said none.
    pub application_name: String,
    /// The client's address, which the driver fills in; empty before.
    pub address: String,
    /// The process id, from BackendKeyData, of the server connection that the session is linked to;
    /// 0 if it is linked to none.
    pub server_process_id: u32,
    /// How long ago the client has logged in.
    pub connected: Duration,
    /// How long the session has waited for a server connection, or for a place among the pinned
    /// ones; zero if it does not wait.
    pub wait: Duration,
    /// The number of named prepared statements that the session has, by Parse; 0 if none.
    pub prepared_statements: usize,
    /// The generation of the rotating password that the client has logged in with, which the driver
    /// fills in. `None` for another password.
    pub generation: Option<u32>,
    /// Where the session's statements go: `primary`, `replica` or `auto`; `primary` where there are
    /// no replicas.
    pub route: &'static str,
    /// The name of the cluster's node whose server connection the session is linked to; empty if it
    /// is linked to none, and outside of a cluster.
    pub node: String,
}

/// A server connection at one moment, for SHOW SERVERS: one row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerSnapshot {
    /// The number of the connection's worker, from 0.
    pub worker: u16,
    /// The connection's serial number on the worker, from 1: with the worker's number it names the
    /// connection.
    pub serial: u32,
    /// The database of the connection's pool, as clients say it.
    pub database: String,
    /// The user of the connection's pool, as clients say it.
    pub user: String,
    /// `dialing`, `idle`, `active` (linked to a client), `listening` (for all clients of its pool)
    /// or `leaving` (closing, or waiting for the end of a cancel request).
    pub state: &'static str,
    /// The process id of the server process, from BackendKeyData; as `pg_stat_activity` shows it.
    pub process_id: u32,
    /// The address of the server, which the driver fills in; empty before.
    pub address: String,
    /// How long ago the attempt to open the connection began, on whichever worker.
    pub connected: Duration,
    /// The serial number of the session that is linked to the connection; 0 if none is.
    pub client: u32,
    /// The number of prepared statements that the proxy knows to be on the connection; 0 if none.
    pub prepared_statements: usize,
    /// The generation of the rotating password that the connection was opened with, which the
    /// driver fills in. `None` for another password.
    pub generation: Option<u32>,
}

/// A channel that clients of one worker listen to over a connection that they share, for SHOW
/// LISTENERS: one row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerSnapshot {
    /// The number of the worker, from 0.
    pub worker: u16,
    /// The database of the clients' pool, as they say it.
    pub database: String,
    /// The user of the clients' pool, as they say it.
    pub user: String,
    /// The name of the channel; what is no UTF-8 in it is replaced.
    pub channel: String,
    /// How many clients listen to it, or wait until the connection does.
    pub clients: usize,
    /// `listening`, or `waiting` while the connection does not listen to it yet.
    pub state: &'static str,
    /// How many notifications of it have come since somebody listens to it.
    pub notifications: u64,
    /// How many bytes of its notifications wait for clients, each counted for each client.
    pub queued_bytes: usize,
    /// The process id of the connection's server process; 0 while there is none.
    pub process_id: u32,
}

/// The state and counters of one worker, as it answers the console and the metrics.
#[derive(Clone, Debug, Default)]
pub struct WorkerSnapshot {
    /// The worker's parts of pools, without those that were retired.
    pub pools: Vec<PoolSnapshot>,
    /// The counters of pools that were retired, summed by the name of their database, so that the
    /// totals of a database do not go down; `(others)` stands for the databases beyond 1000.
    pub retired: Vec<(String, PoolStats)>,
    /// The worker's client sessions; empty unless they were asked for.
    pub clients: Vec<ClientSnapshot>,
    /// The worker's server connections; empty unless they were asked for.
    pub servers: Vec<ServerSnapshot>,
    /// The channels that the worker's clients listen to; empty unless they were asked for.
    pub listeners: Vec<ListenerSnapshot>,
    /// How many tasks of clients on this worker have ended in a panic since the start. The metric
    /// `pgimbal_panics_total`.
    pub panics: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

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
