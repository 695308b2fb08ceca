//! What the page's graphs show: figures of the last 15 minutes, kept by the process so that a page
//! that was just opened has them.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pgimbal_pooler::pool::stats::PoolStats;
use serde_json::{Value, json};
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::admin::collect::{Collector, Detail, Snapshot};

/// Time between two points.
const STEP: Duration = Duration::from_secs(5);
/// Number of points of a series: 15 minutes.
const POINTS: usize = 180;
/// Limit of databases with a series of their own. A point is 13 numbers of 4 bytes and a series
/// 9,360 bytes, so that all 33 of them are at most 310 kB.
const DATABASES: usize = 32;
/// Longest name of a database with a series of its own; PostgreSQL's names have 63 bytes.
const LONGEST_NAME: usize = 255;

/// The names of a point's values. Rates are per second, waits and lag in seconds. The lag is the
/// greatest of all replicas of all clusters, whatever database the series is of.
const VALUES: [&str; 13] = [
    "transactions",
    "queries",
    "received",
    "sent",
    "errors",
    "mean_wait",
    "longest_wait",
    "clients_active",
    "clients_waiting",
    "clients_idle",
    "servers_active",
    "servers_idle",
    "lag",
];

type Point = [f32; VALUES.len()];

/// The figures of the last 15 minutes, of all databases together and of 32 databases at most.
#[derive(Debug, Default)]
pub(super) struct History(Mutex<Series>);

#[derive(Debug, Default)]
struct Series {
    /// Number of the next point, counted from 0.
    next: u64,
    /// Milliseconds since 1970 of each point; the last is that of the point before `next`.
    times: VecDeque<u64>,
    /// Of all databases.
    total: VecDeque<Point>,
    databases: HashMap<String, Database>,
}

#[derive(Debug, Default)]
struct Database {
    points: VecDeque<Point>,
    /// Number of the last point at which the database had a pool.
    last_seen: u64,
}

/// The counters of a database, and its figures of the moment.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    transactions: u64,
    queries: u64,
    received: u64,
    sent: u64,
    errors: u64,
    waits: u64,
    wait_nanos: u64,
    /// Whether there is a pool of it. The counters of pools that have ended are kept for good.
    has_pool: bool,
    /// The values from `longest_wait` on.
    now: [f32; 6],
}

impl History {
    /// Takes a point every 5 s; runs until the future is dropped.
    pub(super) async fn keep(&self, collector: &Collector) {
        let mut ticks = interval(STEP);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut before: Option<(Instant, HashMap<String, Counts>)> = None;
        loop {
            ticks.tick().await;
            let snapshot = collector.snapshot(Detail::Totals).await;
            let (counts, lag) = (counts(&snapshot), greatest_lag(&snapshot));
            let now = Instant::now();
            let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            if let Some((then, before)) = &before {
                let seconds = now.duration_since(*then).as_secs_f64();
                let time = since_1970.as_millis() as u64;
                self.series().take(time, lag, before, &counts, seconds);
            }
            before = Some((now, counts));
        }
    }

    /// The points from number `since` on of one database, or of all together for `None`, as JSON:
    /// `next` is the `since` of the next question, `points` have their time in milliseconds since
    /// 1970 before the `values`, and `databases` have a series of their own.
    pub(super) fn json(&self, database: Option<&str>, since: u64) -> Value {
        let series = self.series();
        let none = VecDeque::new();
        let points = match database {
            None => &series.total,
            Some(name) => series.databases.get(name).map_or(&none, |database| &database.points),
        };
        // Both end with the point before `next`.
        let times = series.times.iter().rev();
        let wanted = usize::try_from(series.next.saturating_sub(since)).unwrap_or(POINTS);
        let newest = points.iter().rev().zip(times).take(wanted);
        let mut points: Vec<Value> = newest
            .map(|(values, time)| {
                let values = values.iter().map(|value| Value::from(*value));
                std::iter::once(Value::from(*time)).chain(values).collect()
            })
            .collect();
        points.reverse();
        let mut databases: Vec<&String> = series.databases.keys().collect();
        databases.sort();
        let seconds = STEP.as_secs();
        json!({
            "next": series.next, "step": seconds, "kept": POINTS, "values": VALUES,
            "points": points, "databases": databases,
        })
    }

    fn series(&self) -> MutexGuard<'_, Series> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Series {
    /// Adds a point at `time` with the greatest `lag`, `seconds` after the one before.
    fn take(
        &mut self,
        time: u64,
        lag: f32,
        before: &HashMap<String, Counts>,
        now: &HashMap<String, Counts>,
        seconds: f64,
    ) {
        let nothing = Counts::default();
        let mut total = [Counts::default(); 2];
        for (name, now) in now {
            let before = before.get(name).unwrap_or(&nothing);
            total[0].add(before);
            total[1].add(now);
            let known = self.databases.len();
            let number = self.next;
            let entry = match self.databases.get_mut(name) {
                Some(database) => Some(database),
                None if now.has_pool && known < DATABASES && name.len() <= LONGEST_NAME => {
                    Some(self.databases.entry(name.clone()).or_default())
                }
                None => None,
            };
            if let Some(database) = entry {
                if now.has_pool {
                    database.last_seen = number;
                }
                push(&mut database.points, point(before, now, seconds, lag));
            }
        }
        let number = self.next;
        for (_, database) in self.databases.iter_mut().filter(|(name, _)| !now.contains_key(*name))
        {
            push(&mut database.points, point(&nothing, &nothing, seconds, lag));
        }
        self.databases.retain(|_, database| number - database.last_seen < POINTS as u64);
        push(&mut self.total, point(&total[0], &total[1], seconds, lag));
        push(&mut self.times, time);
        self.next += 1;
    }
}

fn push<T>(ring: &mut VecDeque<T>, value: T) {
    if ring.len() >= POINTS {
        ring.pop_front();
    }
    ring.push_back(value);
}

fn point(before: &Counts, now: &Counts, seconds: f64, lag: f32) -> Point {
    // A pool that went away and came back counts from zero.
    let grown = |then: u64, now: u64| now.saturating_sub(then) as f64;
    let rate = |then, now| (grown(then, now) / seconds) as f32;
    let waits = grown(before.waits, now.waits);
    let mean = grown(before.wait_nanos, now.wait_nanos) / 1e9 / waits.max(1.0);
    let [longest, active, waiting, idle, servers_active, servers_idle] = now.now;
    [
        rate(before.transactions, now.transactions),
        rate(before.queries, now.queries),
        rate(before.received, now.received),
        rate(before.sent, now.sent),
        rate(before.errors, now.errors),
        mean as f32,
        longest,
        active,
        waiting,
        idle,
        servers_active,
        servers_idle,
        lag,
    ]
}

impl Counts {
    fn add(&mut self, other: &Self) {
        self.transactions += other.transactions;
        self.queries += other.queries;
        self.received += other.received;
        self.sent += other.sent;
        self.errors += other.errors;
        self.waits += other.waits;
        self.wait_nanos += other.wait_nanos;
        self.has_pool |= other.has_pool;
        let longest = self.now[0].max(other.now[0]);
        for (mine, theirs) in self.now.iter_mut().zip(other.now) {
            *mine += theirs;
        }
        self.now[0] = longest;
    }

    fn of(stats: &PoolStats) -> Self {
        Self {
            transactions: stats.transactions,
            queries: stats.queries,
            received: stats.client_bytes_in,
            sent: stats.client_bytes_out,
            errors: stats.errors.values().sum(),
            waits: stats.waits.count(),
            wait_nanos: stats.waits.sum_nanos(),
            has_pool: false,
            now: [0.0; 6],
        }
    }
}

/// The greatest lag of a replica that serves, in seconds.
fn greatest_lag(snapshot: &Snapshot) -> f32 {
    let nodes = snapshot.clusters.iter().flat_map(|cluster| &cluster.nodes);
    let lags = nodes.filter_map(|node| node.detail.lag);
    lags.max().unwrap_or_default().as_secs_f32()
}

fn counts(snapshot: &Snapshot) -> HashMap<String, Counts> {
    let mut all: HashMap<String, Counts> = HashMap::new();
    for worker in &snapshot.workers {
        for (database, stats) in &worker.retired {
            all.entry(database.clone()).or_default().add(&Counts::of(stats));
        }
        for pool in &worker.pools {
            let now = [
                pool.longest_wait.as_secs_f32(),
                pool.clients_active as f32,
                pool.clients_waiting as f32,
                pool.clients_idle as f32,
                pool.servers_active as f32,
                pool.servers_idle as f32,
            ];
            let counts = Counts { has_pool: true, now, ..Counts::of(&pool.stats) };
            all.entry(pool.database.clone()).or_default().add(&counts);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(name: &str, transactions: u64) -> HashMap<String, Counts> {
        let now = [0.5, 1.0, 2.0, 3.0, 4.0, 5.0];
        let (waits, wait_nanos, has_pool) = (2, 4_000_000_000, true);
        let counts = Counts { transactions, waits, wait_nanos, has_pool, now, ..Counts::default() };
        HashMap::from([(name.to_owned(), counts)])
    }

    fn values(json: &Value) -> Vec<Vec<f64>> {
        let rows = json["points"].as_array().unwrap().iter();
        rows.map(|row| row.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect())
            .collect()
    }

    #[test]
    fn points_are_rates_with_the_figures_of_the_moment() {
        let history = History::default();
        history.series().take(7, 0.25, &HashMap::new(), &one("shop", 50), 5.0);
        for database in [None, Some("shop")] {
            let points = values(&history.json(database, 0));
            let rest = [10.0, 0.0, 0.0, 0.0, 0.0, 2.0, 0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 0.25];
            assert_eq!(points, [[&[7.0][..], &rest].concat()], "{database:?}");
        }
        assert!(values(&history.json(Some("other"), 0)).is_empty());
        history.series().take(8, 0.25, &one("shop", 50), &one("shop", 20), 5.0);
        let next = history.json(None, 1);
        assert_eq!(values(&next)[0][..2], [8.0, 0.0], "no rate below zero");
        assert_eq!((&next["next"], values(&next).len()), (&2.into(), 1));
    }

    #[test]
    fn no_more_is_kept_than_said_and_a_database_that_is_gone_is_forgotten() {
        let history = History::default();
        for number in 0..40 {
            let mut names = one("stays", number);
            names.extend(one(&format!("d{number}"), 1));
            names.extend(one(&"x".repeat(300), 1));
            history.series().take(number, 0.0, &HashMap::new(), &names, 5.0);
        }
        assert_eq!(history.series().databases.len(), DATABASES);
        for number in 0..200 {
            history.series().take(number, 0.0, &HashMap::new(), &one("stays", number), 5.0);
        }
        let json = history.json(Some("stays"), 0);
        assert_eq!(json["databases"], json!(["stays"]));
        assert_eq!(values(&json).len(), POINTS);
        assert_eq!(values(&json).last().unwrap()[0], 199.0);
        assert_eq!(history.series().times.len(), POINTS);
        let mut retired = one("stays", 200);
        for counts in retired.values_mut() {
            counts.has_pool = false;
        }
        for number in 0..200 {
            let kept = history.series().databases.len();
            assert_eq!(kept, usize::from(number < POINTS), "a database without a pool, {number}");
            history.series().take(0, 0.0, &retired, &retired, 5.0);
        }
        assert!(std::mem::size_of::<Point>() * POINTS * (DATABASES + 1) < 310_000);
    }
}
