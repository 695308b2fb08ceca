//! SHOW POOLS, SHOW LATENCIES, SHOW QUESTIONS and SHOW STATS.

use pgimbal_pooler::pool::histogram::Histogram;
use pgimbal_pooler::pool::stats::{PoolSnapshot, PoolStats};

use super::answer::{Cell, Column, Row, int, text};
use super::averages::{Averages, by_database};
use crate::admin::collect::Snapshot;

/// PgBouncer's columns that have a meaning here, then our own. As there, `cl_active` counts idle
/// clients too, and `maxwait_us` is the rest of `maxwait` below a second.
pub(super) const POOLS: &[Column] = &[
    text("database"),
    text("user"),
    int("cl_active"),
    int("cl_waiting"),
    int("sv_active"),
    int("sv_idle"),
    int("sv_login"),
    int("maxwait"),
    int("maxwait_us"),
    text("pool_mode"),
    int("cl_linked"),
    int("cl_idle"),
    int("cl_pinned"),
    int("sv_leaving"),
];

/// Columns of our own. Times are in microseconds, since the pool was made.
pub(super) const LATENCIES: &[Column] = &[
    text("database"),
    text("user"),
    text("what"),
    int("count"),
    int("avg"),
    int("p50"),
    int("p95"),
    int("p99"),
];

/// Columns of our own.
pub(super) const QUESTIONS: &[Column] =
    &[text("database"), text("user"), text("kind"), int("asked")];

/// PgBouncer's columns that have a meaning here, then our own. Times are in microseconds, averages
/// by the second, over the last whole minute.
pub(super) const STATS: &[Column] = &[
    text("database"),
    int("total_xact_count"),
    int("total_query_count"),
    int("total_received"),
    int("total_sent"),
    int("total_wait_time"),
    int("avg_xact_count"),
    int("avg_query_count"),
    int("avg_recv"),
    int("avg_sent"),
    int("avg_wait_time"),
    int("total_held_time"),
    int("avg_held_time"),
    int("total_errors"),
    int("total_parses_shared"),
    int("total_reprepares"),
    int("total_cancels"),
    int("total_client_logins"),
    int("total_server_logins"),
    int("total_server_login_failures"),
    int("total_questions"),
    int("total_questions_failed"),
    int("total_resets"),
    int("total_shape_checks"),
    int("total_pins_by_question"),
    // The old name of total_reprepares, for this version.
    int("total_parses_put_in"),
    int("total_replica_xact_count"),
];

/// PgBouncer's columns that have a meaning here. Times are in microseconds.
pub(super) const TOTALS: &[Column] = &[
    text("database"),
    int("xact_count"),
    int("query_count"),
    int("bytes_received"),
    int("bytes_sent"),
    int("wait_time"),
];

/// The rows of SHOW POOLS, one for each pool, sorted by database and user.
pub(super) fn pools(snapshot: &Snapshot) -> Vec<Row> {
    let row = |pool: PoolSnapshot| -> Row {
        let pinned: u32 = pool.pinned.values().sum();
        vec![
            pool.database.into(),
            pool.user.into(),
            (pool.clients_active + pool.clients_idle).into(),
            pool.clients_waiting.into(),
            pool.servers_active.into(),
            pool.servers_idle.into(),
            pool.servers_dialing.into(),
            pool.longest_wait.as_secs().into(),
            pool.longest_wait.subsec_micros().into(),
            pool.mode.into(),
            pool.clients_active.into(),
            pool.clients_idle.into(),
            pinned.into(),
            pool.servers_leaving.into(),
        ]
    };
    snapshot.pools().into_iter().map(row).collect()
}

/// The rows of SHOW LATENCIES: four for each pool, sorted by database and user. What has not
/// happened yet has no times.
pub(super) fn latencies(snapshot: &Snapshot) -> Vec<Row> {
    let mut rows = Vec::new();
    for pool in snapshot.pools() {
        let stats = &pool.stats;
        for (what, times) in [
            ("transaction", &stats.transaction_times),
            ("query", &stats.query_times),
            ("wait", &stats.waits),
            ("login", &stats.login_times),
        ] {
            rows.push(latency(&pool, what, times));
        }
    }
    rows
}

fn latency(pool: &PoolSnapshot, what: &str, times: &Histogram) -> Row {
    let count = times.count();
    let average = times.sum_nanos().checked_div(count).map(|nanos| nanos / 1_000);
    let cell = |micros: Option<u64>| micros.map_or(Cell::Null, Cell::from);
    let percentile = |share| cell(times.quantile(share).map(|time| time.as_micros() as u64));
    vec![
        pool.database.as_str().into(),
        pool.user.as_str().into(),
        what.into(),
        count.into(),
        cell(average),
        percentile(0.5),
        percentile(0.95),
        percentile(0.99),
    ]
}

/// The rows of SHOW QUESTIONS: each kind that a pool's servers were asked about.
pub(super) fn questions(snapshot: &Snapshot) -> Vec<Row> {
    let mut rows = Vec::new();
    for pool in snapshot.pools() {
        let (database, user) = (pool.database.as_str(), pool.user.as_str());
        for (kind, asked) in pool.stats.questions {
            rows.push(vec![database.into(), user.into(), kind.into(), asked.into()]);
        }
    }
    rows
}

/// The rows of SHOW STATS.
pub(super) fn stats(snapshot: &Snapshot, averages: &Averages) -> Vec<Row> {
    each_database(snapshot, |database, total| {
        let average = averages.of(database);
        [
            total.transactions,
            total.queries,
            total.client_bytes_in,
            total.client_bytes_out,
            total.waits.sum_nanos() / 1_000,
            average.transactions,
            average.queries,
            average.received,
            average.sent,
            average.wait_micros,
            total.held_nanos / 1_000,
            average.held_micros,
            total.errors.values().sum(),
            total.parses_shared,
            total.reprepares,
            total.cancels,
            total.client_logins,
            total.server_logins,
            total.server_login_failures,
            total.questions.values().sum(),
            total.questions_failed,
            total.resets,
            total.shape_checks,
            total.pins_by_question,
            total.reprepares,
            total.replica_transactions,
        ]
    })
}

/// The rows of SHOW STATS_TOTALS.
pub(super) fn totals(snapshot: &Snapshot) -> Vec<Row> {
    each_database(snapshot, |_, total| {
        [
            total.transactions,
            total.queries,
            total.client_bytes_in,
            total.client_bytes_out,
            total.waits.sum_nanos() / 1_000,
        ]
    })
}

/// A row for each database: its name and what `numbers` makes of its counters.
fn each_database<const N: usize>(
    snapshot: &Snapshot,
    numbers: impl Fn(&str, &PoolStats) -> [u64; N],
) -> Vec<Row> {
    let mut databases: Vec<_> = by_database(snapshot).into_iter().collect();
    databases.sort_by(|(one, _), (other, _)| one.cmp(other));
    let row = |(database, total): (String, PoolStats)| -> Row {
        let numbers = numbers(&database, &total).map(Cell::from);
        std::iter::once(database.into()).chain(numbers).collect()
    };
    databases.into_iter().map(row).collect()
}
