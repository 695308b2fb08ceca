//! Telemetry: metrics and traces that are sent to an OpenTelemetry collector (OTLP over HTTP).
//!
//! The work is done in `otlp`, which is built with the feature of that name. Without it there is
//! only the refusal of the option that would need it.

mod error;
#[cfg(feature = "otlp")]
mod otlp;
mod traces;

use pgimbal_config::Config;

use crate::admin::collect::Collector;

pub use error::TelemetryError;
pub use traces::{Event, Traces};

/// What sends metrics and traces; nothing where `otlp_endpoint` is not set.
#[derive(Debug, Default)]
pub struct Telemetry {
    #[cfg(feature = "otlp")]
    sender: Option<otlp::Sender>,
}

impl Telemetry {
    /// Prepares to send as `config` says, and returns what gathers traces meanwhile. Nothing is
    /// sent before [`Self::begin`].
    ///
    /// # Errors
    /// [`TelemetryError`] when it cannot be done.
    pub fn new(config: &Config) -> Result<(Self, Traces), TelemetryError> {
        let Some(endpoint) = &config.telemetry.otlp_endpoint else {
            return Ok((Self::default(), Traces::default()));
        };
        #[cfg(feature = "otlp")]
        {
            let (sender, traces) = otlp::Sender::new(endpoint, &config.telemetry)?;
            Ok((Self { sender: Some(sender) }, traces))
        }
        #[cfg(not(feature = "otlp"))]
        {
            let _ = endpoint;
            Err(TelemetryError::NotBuilt)
        }
    }

    /// Begins to send what `collector` gathers, every `otlp_interval`, in a task of its own.
    #[cfg_attr(not(feature = "otlp"), allow(unused_variables, reason = "nothing is sent"))]
    pub fn begin(&mut self, collector: &Collector) {
        #[cfg(feature = "otlp")]
        if let Some(sender) = &mut self.sender {
            sender.begin(collector.clone());
        }
    }

    /// Sends what there is for the last time, for at most 2 s.
    #[cfg_attr(not(feature = "otlp"), allow(clippy::unused_async, reason = "nothing is sent"))]
    pub async fn finish(self) {
        #[cfg(feature = "otlp")]
        if let Some(sender) = self.sender {
            sender.finish().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_needs_the_feature_and_the_refusal_says_so() {
        let mut config = Config::default();
        assert!(Telemetry::new(&config).is_ok_and(|(_, traces)| traces.millionths() == 0));
        config.telemetry.otlp_endpoint = Some("http://127.0.0.1:4318".to_owned());
        config.telemetry.trace_millionths = 7;
        match Telemetry::new(&config) {
            Ok((_, traces)) => assert!(cfg!(feature = "otlp") && traces.millionths() == 7),
            Err(refused) => {
                let text = refused.to_string();
                assert!(!cfg!(feature = "otlp") && text.contains("--features otlp"), "{text}");
            }
        }
    }
}
