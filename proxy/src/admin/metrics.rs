//! The metrics page for Prometheus, rendered from one snapshot.
//!
//! This module owns the names and labels of all metric families; they are stable. A series exists
//! as long as its pool. Nothing is registered globally, and nothing is kept from one page to the
//! next.

mod budget;
mod clusters;
mod credentials;
mod facts;
#[cfg(feature = "otlp")]
mod otlp;
mod peers;
mod pools;
mod process;
mod resources;
mod sample;
mod text;

use metrics::Recorder;
use metrics_exporter_prometheus::PrometheusBuilder;
use pgimbal_pooler::pool::stats::PoolSnapshot;

use crate::admin::collect::Snapshot;

#[cfg(feature = "otlp")]
pub(crate) use otlp::families;

/// Content type of the page: Prometheus' text format, version 0.0.4.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Renders the snapshot in Prometheus' text format, for `/metrics`. The 1,000 pools with the most
/// transactions have series of their own; the others are added up under the database and user
/// `(others)`.
#[must_use]
pub fn render(snapshot: &Snapshot) -> String {
    // A recorder for one page: the gauges of a pool leave with the pool, and two pages made at once
    // do not mix.
    let recorder = PrometheusBuilder::new().build_recorder();
    let counted = record(snapshot, &recorder);
    let mut page = recorder.handle().render();
    text::times(&mut page, &counted);
    text::held(&mut page, &counted);
    text::fetches(&mut page, &snapshot.credentials.fetches);
    page
}

/// Records all families but those of `text`, for which it returns the pools, the retired ones
/// included.
fn record(snapshot: &Snapshot, recorder: &dyn Recorder) -> Vec<PoolSnapshot> {
    let pools = pools::bounded(snapshot.pools());
    let counted = [&pools[..], &snapshot.retired()].concat();
    metrics::with_local_recorder(recorder, || {
        process::record(snapshot);
        pools::record(&pools, &counted);
        budget::record(&snapshot.budgets);
        clusters::record(&snapshot.clusters);
        credentials::record(&snapshot.credentials);
        peers::record(&snapshot.peers);
        facts::record(&snapshot.facts);
    });
    counted
}

#[cfg(test)]
mod tests;
