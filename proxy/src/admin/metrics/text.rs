//! Families that the exporter cannot take, written as text beside its own.
//!
//! Workers count times in buckets already, and the exporter only takes single observations; its
//! counters are integers, and seconds are not.

use std::fmt::Write;

use crate::credentials::FetchCounts;
use pgimbal_pooler::pool::histogram::Histogram;
use pgimbal_pooler::pool::stats::{PoolSnapshot, PoolStats};

/// Nanoseconds in a second.
pub(super) const NANOS: f64 = 1e9;

/// The counter of the time for which clients held server connections: name and meaning.
pub(super) const HELD: (&str, &str) =
    ("pgimbal_server_held_seconds_total", "Time that clients held server connections.");

/// The summary of the time that fetches of passwords took: name and meaning.
pub(super) const FETCHES: (&str, &str) =
    ("pgimbal_credential_fetch_seconds", "Time that questions to sources of passwords took.");

type Times = (&'static str, &'static str, fn(&PoolStats) -> &Histogram);

/// The histograms of pools: name, meaning, and what they are of.
pub(super) const TIMES: &[Times] = &[
    (
        "pgimbal_transaction_seconds",
        "Time of transactions, from the first message that is sent to the server.",
        |stats| &stats.transaction_times,
    ),
    (
        "pgimbal_query_seconds",
        "Time that servers took for a simple query, or for what a Sync ends.",
        |stats| &stats.query_times,
    ),
    (
        "pgimbal_wait_seconds",
        "Time that clients waited for a server connection, 0 if they got one at once.",
        |stats| &stats.waits,
    ),
    (
        "pgimbal_login_seconds",
        "Time of clients' logins, from the startup packet to ReadyForQuery.",
        |stats| &stats.login_times,
    ),
];

/// Appends the histograms of pools.
pub(super) fn times(page: &mut String, pools: &[PoolSnapshot]) {
    if pools.is_empty() {
        return;
    }
    for (name, help, times) in TIMES {
        head(page, name, "histogram", help);
        for pool in pools {
            histogram(page, name, &labels(pool), times(&pool.stats));
        }
        page.push('\n');
    }
}

fn histogram(page: &mut String, name: &str, labels: &str, times: &Histogram) {
    for (bound, count) in times.cumulated() {
        let bound = bound.as_secs_f64();
        line(page, format_args!("{name}_bucket{{{labels},le=\"{bound}\"}} {count}"));
    }
    let count = times.count();
    line(page, format_args!("{name}_bucket{{{labels},le=\"+Inf\"}} {count}"));
    let sum = times.sum_nanos() as f64 / NANOS;
    line(page, format_args!("{name}_sum{{{labels}}} {sum}"));
    line(page, format_args!("{name}_count{{{labels}}} {count}"));
}

/// Appends the counter of the time for which clients held server connections.
pub(super) fn held(page: &mut String, pools: &[PoolSnapshot]) {
    if pools.is_empty() {
        return;
    }
    let (name, help) = HELD;
    head(page, name, "counter", help);
    for pool in pools {
        let seconds = pool.stats.held_nanos as f64 / NANOS;
        line(page, format_args!("{name}{{{}}} {seconds}", labels(pool)));
    }
    page.push('\n');
}

/// Appends the summary of the time that fetches from sources of passwords took.
pub(super) fn fetches(page: &mut String, fetches: &FetchCounts) {
    if fetches.count == 0 {
        return;
    }
    let (name, help) = FETCHES;
    head(page, name, "summary", help);
    line(page, format_args!("{name}_sum {}", fetches.time.as_secs_f64()));
    line(page, format_args!("{name}_count {}", fetches.count));
    page.push('\n');
}

fn head(page: &mut String, name: &str, kind: &str, help: &str) {
    line(page, format_args!("# HELP {name} {help}"));
    line(page, format_args!("# TYPE {name} {kind}"));
}

fn line(page: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a String does not fail.
    let _ = page.write_fmt(text);
    page.push('\n');
}

fn labels(pool: &PoolSnapshot) -> String {
    format!("database=\"{}\",user=\"{}\"", escaped(&pool.database), escaped(&pool.user))
}

/// A label's value as the format wants it: backslash, quote and line feed escaped.
fn escaped(value: &str) -> String {
    value.replace('\\', r"\\").replace('"', r#"\""#).replace('\n', r"\n")
}
