//! Families that the exporter cannot take, written as text beside its own.
//!
//! Workers count waits in buckets already, and the exporter only takes single observations; its
//! counters are integers, and seconds are not.

use std::fmt::Write;

use crate::credentials::FetchCounts;
use pgimbal_pooler::pool::stats::{PoolSnapshot, WAIT_BUCKETS_MICROS};

const NANOS: f64 = 1e9;

/// Appends the histogram of waits for a server connection.
pub(super) fn waits(page: &mut String, pools: &[PoolSnapshot]) {
    const NAME: &str = "pgimbal_wait_seconds";
    if pools.is_empty() {
        return;
    }
    head(page, NAME, "histogram", "Waits for a server connection by clients that found none idle.");
    for pool in pools {
        let labels = labels(pool);
        let mut below = 0;
        for (bound, count) in WAIT_BUCKETS_MICROS.iter().zip(&pool.stats.waits.buckets) {
            below += count;
            let bound = *bound as f64 / 1e6;
            line(page, format_args!("{NAME}_bucket{{{labels},le=\"{bound}\"}} {below}"));
        }
        let count = pool.stats.waits.count();
        line(page, format_args!("{NAME}_bucket{{{labels},le=\"+Inf\"}} {count}"));
        let sum = pool.stats.waits.sum_nanos as f64 / NANOS;
        line(page, format_args!("{NAME}_sum{{{labels}}} {sum}"));
        line(page, format_args!("{NAME}_count{{{labels}}} {count}"));
    }
    page.push('\n');
}

/// Appends the counter of the time for which clients held server connections.
pub(super) fn held(page: &mut String, pools: &[PoolSnapshot]) {
    const NAME: &str = "pgimbal_server_held_seconds_total";
    if pools.is_empty() {
        return;
    }
    head(page, NAME, "counter", "Time that clients held server connections.");
    for pool in pools {
        let seconds = pool.stats.held_nanos as f64 / NANOS;
        line(page, format_args!("{NAME}{{{}}} {seconds}", labels(pool)));
    }
    page.push('\n');
}

/// Appends the summary of the time that fetches from sources of passwords took.
pub(super) fn fetches(page: &mut String, fetches: &FetchCounts) {
    const NAME: &str = "pgimbal_credential_fetch_seconds";
    if fetches.count == 0 {
        return;
    }
    head(page, NAME, "summary", "Time that questions to sources of passwords took.");
    line(page, format_args!("{NAME}_sum {}", fetches.time.as_secs_f64()));
    line(page, format_args!("{NAME}_count {}", fetches.count));
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
