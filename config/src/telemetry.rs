//! Options of telemetry: where metrics and traces are sent over OTLP.

use std::time::Duration;

use crate::reader::{Maybe, NonEmpty, Share, Span};
use crate::table::settings;

settings! {
    /// The options of telemetry, `[telemetry]`. The checks refuse an endpoint that is no URL, and
    /// `trace_ratio` without an endpoint.
    pub struct TelemetryConfig {
        /// The collector that metrics and traces are sent to, over HTTP as protobuf:
        /// `/v1/metrics` and `/v1/traces` of this URL. It needs a pgimbal that was built with the
        /// feature `otlp`. When it is not set, nothing is sent.
        "otlp_endpoint" otlp_endpoint: Option<String> as Maybe<NonEmpty> = "", restart,
            try "http://127.0.0.1:4318";
        /// How often metrics are sent, and traces at the latest; as often as Prometheus asks.
        "otlp_interval" otlp_interval: Duration as Span = "15s", restart, try "5s";
        /// The part of transactions and logins that is traced, from 0 to 1: with 0.01 each worker
        /// sends one of a hundred. None, because each costs the collector some hundred bytes.
        /// Failovers and rotations are traced always. In millionths.
        "trace_ratio" trace_millionths: u32 as Share = "0", restart, try "0.25";
    }
}
