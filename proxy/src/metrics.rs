//! The page for Prometheus.

use crate::collect::Snapshot;

/// The snapshot in Prometheus' text format, version 0.0.4.
#[must_use]
pub fn render(snapshot: &Snapshot) -> String {
    let _ = snapshot;
    String::new()
}
