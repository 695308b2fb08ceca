//! Metrics of the store of the durable facts.

use super::sample::{Counters, Gauges};
use crate::facts::FactsStatus;

/// Records the samples of the store.
pub(super) fn record(facts: &FactsStatus) {
    let up = "1 while the store of the replicas' facts can be read and written.";
    Gauges::described("pgimbal_store_up", up).sample(vec![], u8::from(facts.away.is_none()));
    let away = "Time since the store was last well, 0 while it is.";
    Gauges::described("pgimbal_store_away_seconds", away)
        .sample(vec![], facts.away.unwrap_or_default().as_secs_f64());
    let size = "Size of the document in the store, deflated.";
    #[allow(clippy::cast_precision_loss, reason = "a size of at most some MB")]
    Gauges::described("pgimbal_store_document_bytes", size).sample(vec![], facts.size as f64);
    let results = Counters::described("pgimbal_store_writes_total", "Writes of the document.");
    results.sample(vec![], facts.writes);
    let conflicts = "Writes that met another replica's, and were made anew.";
    Counters::described("pgimbal_store_conflicts_total", conflicts).sample(vec![], facts.conflicts);
    let failures = "Attempts to read or write the store that have failed.";
    Counters::described("pgimbal_store_failures_total", failures).sample(vec![], facts.failures);
}
