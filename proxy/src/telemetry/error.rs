//! Why telemetry cannot be sent.

use thiserror::Error;

/// The reason for which telemetry cannot be sent as it is configured.
#[derive(Debug, Error)]
pub enum TelemetryError {
    /// The program was built without the feature.
    #[error(
        "otlp_endpoint: this pgimbal was built without the feature \"otlp\"; build it with \
         `cargo build --release -p pgimbal --features otlp`, or leave the option out and scrape \
         /metrics"
    )]
    NotBuilt,
    /// The endpoint is no URL, or TLS towards it cannot be set up.
    #[error("otlp_endpoint: {0}")]
    Endpoint(String),
}
