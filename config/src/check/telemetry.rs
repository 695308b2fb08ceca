//! Checks of telemetry.

use super::findings::Findings;
use crate::config::Config;

/// Notes an endpoint that is no URL, and a ratio of traces that go nowhere.
pub(super) fn check(config: &Config, found: &mut Findings<'_>) {
    let telemetry = &config.telemetry;
    match &telemetry.otlp_endpoint {
        Some(endpoint) => {
            let host = ["http://", "https://"].iter().find_map(|kind| endpoint.strip_prefix(kind));
            let is_plain = |host: &str| !host.is_empty() && !host.contains(['@', '?', '#', ' ']);
            if !host.is_some_and(is_plain) {
                // It is not shown: somebody may have put a password in it.
                let cause = "expected http:// or https:// and a host without a user, such as \
                             \"http://127.0.0.1:4318\"";
                found.add("telemetry.otlp_endpoint", None, cause);
            }
        }
        None if telemetry.trace_millionths > 0 => {
            let cause = "nothing would be sent: set otlp_endpoint beside it";
            found.add("telemetry.trace_ratio", None, cause);
        }
        None => {}
    }
}
