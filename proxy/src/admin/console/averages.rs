//! Averages of the counters over the last whole minute, for SHOW STATS; PgBouncer's `stats_period`.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use pgimbal_pooler::pool::stats::PoolStats;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::admin::collect::{Collector, Detail, Snapshot};

/// Length of a period: PgBouncer's default of `stats_period`.
const PERIOD: Duration = Duration::from_secs(60);

/// The rates of each database over the last whole period.
#[derive(Debug, Default)]
pub(super) struct Averages(Mutex<HashMap<String, Rates>>);

/// Averages per second of a database's counters over a period.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Rates {
    pub(super) transactions: u64,
    pub(super) queries: u64,
    pub(super) received: u64,
    pub(super) sent: u64,
    pub(super) wait_micros: u64,
    pub(super) held_micros: u64,
}

impl Averages {
    /// Takes the counters at the end of each minute and makes the rates from the difference to
    /// those before; never returns.
    pub(super) async fn keep(&self, collector: &Collector) {
        let mut ends = interval(PERIOD);
        ends.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut before: Option<(Instant, HashMap<String, PoolStats>)> = None;
        loop {
            ends.tick().await;
            let counters = by_database(&collector.snapshot(Detail::Totals).await);
            let now = Instant::now();
            if let Some((then, before)) = &before {
                let seconds = now.duration_since(*then).as_secs_f64();
                let rates = rates(before, &counters, seconds);
                *self.0.lock().unwrap_or_else(PoisonError::into_inner) = rates;
            }
            before = Some((now, counters));
        }
    }

    /// The rates of `database` over the last whole minute; all zero until one has passed, and for
    /// an unknown database.
    pub(super) fn of(&self, database: &str) -> Rates {
        let rates = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        rates.get(database).copied().unwrap_or_default()
    }
}

/// The counters of each database, its pools taken together.
pub(super) fn by_database(snapshot: &Snapshot) -> HashMap<String, PoolStats> {
    let mut sums: HashMap<String, PoolStats> = HashMap::new();
    let pools = snapshot.workers.iter().flat_map(|worker| &worker.pools);
    let pools = pools.map(|pool| (&pool.database, &pool.stats));
    let retired = snapshot.workers.iter().flat_map(|worker| &worker.retired);
    for (database, stats) in pools.chain(retired.map(|(database, stats)| (database, stats))) {
        if let Some(sum) = sums.get_mut(database) {
            sum.add(stats);
        } else {
            sums.insert(database.clone(), stats.clone());
        }
    }
    sums
}

fn rates(
    before: &HashMap<String, PoolStats>,
    after: &HashMap<String, PoolStats>,
    seconds: f64,
) -> HashMap<String, Rates> {
    let nothing = PoolStats::default();
    let rate = |then: u64, now: u64| (now.saturating_sub(then) as f64 / seconds).round() as u64;
    let of = |(name, now): (&String, &PoolStats)| {
        let then = before.get(name).unwrap_or(&nothing);
        let rates = Rates {
            transactions: rate(then.transactions, now.transactions),
            queries: rate(then.queries, now.queries),
            received: rate(then.client_bytes_in, now.client_bytes_in),
            sent: rate(then.client_bytes_out, now.client_bytes_out),
            wait_micros: rate(then.waits.sum_nanos() / 1_000, now.waits.sum_nanos() / 1_000),
            held_micros: rate(then.held_nanos / 1_000, now.held_nanos / 1_000),
        };
        (name.clone(), rates)
    };
    after.iter().map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counters(transactions: u64, wait: Duration) -> HashMap<String, PoolStats> {
        let mut stats = PoolStats { transactions, ..PoolStats::default() };
        stats.waits.record(wait);
        HashMap::from([("d".to_owned(), stats)])
    }

    #[test]
    fn a_rate_is_the_difference_by_the_time() {
        let before = counters(100, Duration::ZERO);
        let after = counters(400, Duration::from_millis(60));
        let rates = rates(&before, &after, 60.0)["d"];
        assert_eq!((rates.transactions, rates.wait_micros), (5, 1_000));
    }

    #[test]
    fn a_pool_that_went_away_and_came_back_counts_from_zero_and_never_below() {
        let before = counters(100, Duration::ZERO);
        assert_eq!(rates(&before, &counters(60, Duration::ZERO), 60.0)["d"].transactions, 0);
        let new = rates(&HashMap::new(), &counters(60, Duration::ZERO), 60.0);
        assert_eq!(new["d"].transactions, 1);
    }
}
