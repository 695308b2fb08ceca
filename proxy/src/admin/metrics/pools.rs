//! Metrics of pools.

use metrics::Label;
use pgimbal_pooler::pool::stats::PoolSnapshot;

use super::sample::{Counters, Gauges, label};

/// Limit of pools with labels of their own. With the wildcard database and trusted users clients
/// choose the names; a page of 1,000 pools has some 10 MB.
const POOLS_LIMIT: usize = 1_000;

/// Database and user of the pools beyond [`POOLS_LIMIT`], taken together.
const OTHERS: &str = "(others)";

/// The first 1,000 pools by transactions, the most first, and last one named `(others)` with the
/// sums of the rest, so that a crowd of names used once does not push out a pool that works. Up to
/// 1,000 pools are returned as they are, without `(others)`.
pub(super) fn bounded(mut pools: Vec<PoolSnapshot>) -> Vec<PoolSnapshot> {
    if pools.len() <= POOLS_LIMIT {
        return pools;
    }
    pools.sort_by_key(|pool| std::cmp::Reverse(pool.stats.transactions));
    let mut others = PoolSnapshot {
        database: OTHERS.to_owned(),
        user: OTHERS.to_owned(),
        ..PoolSnapshot::default()
    };
    pools.split_off(POOLS_LIMIT).iter().for_each(|pool| others.add(pool));
    // A client may call itself so; one page has each series once.
    for pool in pools.extract_if(.., |pool| pool.database == OTHERS && pool.user == OTHERS) {
        others.add(&pool);
    }
    pools.push(others);
    pools
}

/// Records the samples of all pools; `counted` are these pools and the retired ones.
pub(super) fn record(pools: &[PoolSnapshot], counted: &[PoolSnapshot]) {
    gauges(pools);
    pinned(pools);
    pinned_longest(pools);
    counters(counted);
    routed(counted);
    questions(counted);
    errors(counted);
}

/// The labels `database` and `user` of a pool.
pub(super) fn pool_labels(pool: &PoolSnapshot) -> Vec<Label> {
    vec![label("database", &pool.database), label("user", &pool.user)]
}

type Gauge = (&'static str, &'static str, fn(&PoolSnapshot) -> f64);

const GAUGES: &[Gauge] = &[
    ("pgimbal_clients_active", "Clients linked to a server connection.", |p| {
        p.clients_active.into()
    }),
    ("pgimbal_clients_waiting", "Clients that wait for a server connection.", |p| {
        p.clients_waiting.into()
    }),
    (
        "pgimbal_clients_awaiting_place",
        "Those of them that wait for a place among the pinned: max_pinned is reached.",
        |p| p.clients_awaiting_place.into(),
    ),
    ("pgimbal_clients_idle", "Clients that need no server connection.", |p| p.clients_idle.into()),
    ("pgimbal_servers_active", "Server connections linked to a client.", |p| {
        p.servers_active.into()
    }),
    ("pgimbal_servers_idle", "Idle server connections.", |p| p.servers_idle.into()),
    ("pgimbal_servers_dialing", "Server connections being opened.", |p| p.servers_dialing.into()),
    (
        "pgimbal_servers_leaving",
        "Server connections that close, or wait for the end of a cancel request.",
        |p| p.servers_leaving.into(),
    ),
    (
        "pgimbal_servers_listening",
        "Server connections over which a worker listens for all clients of the pool.",
        |p| p.servers_listening.into(),
    ),
    ("pgimbal_listen_channels", "Channels that they listen to, over all workers.", |p| {
        p.listen_channels.into()
    }),
    ("pgimbal_longest_wait_seconds", "How long the longest waiter has waited.", |p| {
        p.longest_wait.as_secs_f64()
    }),
];

fn gauges(pools: &[PoolSnapshot]) {
    for (name, help, value) in GAUGES {
        let family = Gauges::described(name, help);
        for pool in pools {
            family.sample(pool_labels(pool), value(pool));
        }
    }
}

fn pinned(pools: &[PoolSnapshot]) {
    let family = Gauges::described(
        "pgimbal_clients_pinned",
        "Clients that keep their server connection, by the reason.",
    );
    for pool in pools {
        for (reason, count) in &pool.pinned {
            let mut labels = pool_labels(pool);
            labels.push(Label::from_static_parts("reason", reason));
            family.sample(labels, *count);
        }
    }
}

fn pinned_longest(pools: &[PoolSnapshot]) {
    let family = Gauges::described(
        "pgimbal_pinned_longest_seconds",
        "How long the longest pinned client has been pinned, by the reason.",
    );
    for pool in pools {
        for (reason, longest) in &pool.pinned_longest {
            let mut labels = pool_labels(pool);
            labels.push(Label::from_static_parts("reason", reason));
            family.sample(labels, longest.as_secs_f64());
        }
    }
}

type Counter = (&'static str, &'static str, fn(&PoolSnapshot) -> u64);

const COUNTERS: &[Counter] = &[
    (
        "pgimbal_transactions_total",
        "Transactions ended; a statement outside a transaction block is one.",
        |p| p.stats.transactions,
    ),
    ("pgimbal_reads_on_replicas_total", "Transactions that ended on a replica.", |p| {
        p.stats.replica_transactions
    }),
    ("pgimbal_queries_total", "Simple queries and Executes.", |p| p.stats.queries),
    ("pgimbal_client_received_bytes_total", "Bytes read from clients.", |p| {
        p.stats.client_bytes_in
    }),
    ("pgimbal_client_sent_bytes_total", "Bytes written to clients.", |p| p.stats.client_bytes_out),
    ("pgimbal_server_received_bytes_total", "Bytes read from servers.", |p| {
        p.stats.server_bytes_in
    }),
    ("pgimbal_server_sent_bytes_total", "Bytes written to servers.", |p| p.stats.server_bytes_out),
    ("pgimbal_client_sessions_total", "Sessions of clients begun.", |p| p.stats.client_logins),
    ("pgimbal_server_logins_total", "Server connections opened.", |p| p.stats.server_logins),
    (
        "pgimbal_server_login_failures_total",
        "Attempts to open a server connection that failed.",
        |p| p.stats.server_login_failures,
    ),
    ("pgimbal_server_closes_total", "Server connections closed.", |p| p.stats.server_closes),
    (
        "pgimbal_parses_shared_total",
        "Parses after which the client was given a statement that others share.",
        |p| p.stats.parses_shared,
    ),
    (
        "pgimbal_reprepares_total",
        "Parses repeated for a statement that a server did not have.",
        |p| p.stats.reprepares,
    ),
    (
        "pgimbal_parses_put_in_total",
        "The old name of pgimbal_reprepares_total, for this version.",
        |p| p.stats.reprepares,
    ),
    ("pgimbal_cancels_total", "Cancel requests sent to servers.", |p| p.stats.cancels),
    (
        "pgimbal_questions_failed_total",
        "Questions about its session that a server did not answer.",
        |p| p.stats.questions_failed,
    ),
    (
        "pgimbal_resets_total",
        "Server connections that were reset before they served another session.",
        |p| p.stats.resets,
    ),
    (
        "pgimbal_shape_checks_total",
        "Statements described again because a server lacked them.",
        |p| p.stats.shape_checks,
    ),
    (
        "pgimbal_pins_by_question_total",
        "Pins beyond max_pinned, for state that only a question has shown.",
        |p| p.stats.pins_by_question,
    ),
    (
        "pgimbal_notifications_total",
        "Notifications for clients that share a connection to listen, once for each client.",
        |p| p.stats.notifications,
    ),
];

fn counters(pools: &[PoolSnapshot]) {
    for (name, help, value) in COUNTERS {
        let family = Counters::described(name, help);
        for pool in pools {
            family.sample(pool_labels(pool), value(pool));
        }
    }
}

fn routed(pools: &[PoolSnapshot]) {
    let family = Counters::described(
        "pgimbal_routed_total",
        "Statements that were sent to the primary or to a replica by what they do, by the reason.",
    );
    for pool in pools {
        for ((role, reason), count) in &pool.stats.routed {
            let mut labels = pool_labels(pool);
            labels.push(Label::from_static_parts("role", role));
            labels.push(Label::from_static_parts("reason", reason));
            family.sample(labels, *count);
        }
    }
}

fn questions(pools: &[PoolSnapshot]) {
    let family = Counters::described(
        "pgimbal_questions_total",
        "Questions put to servers about what stands in their sessions, by the kind.",
    );
    for pool in pools {
        for (kind, count) in &pool.stats.questions {
            let mut labels = pool_labels(pool);
            labels.push(Label::from_static_parts("kind", kind));
            family.sample(labels, *count);
        }
    }
}

fn errors(pools: &[PoolSnapshot]) {
    let family = Counters::described(
        "pgimbal_errors_total",
        "Errors sent to clients, from servers and from pgimbal, by SQLSTATE.",
    );
    for pool in pools {
        for (code, count) in &pool.stats.errors {
            let mut labels = pool_labels(pool);
            labels.push(label("sqlstate", code.as_str()));
            family.sample(labels, *count);
        }
    }
}
