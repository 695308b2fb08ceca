//! Metric families of the exporter, each described where its samples are recorded.

use metrics::{Label, counter, describe_counter, describe_gauge, gauge};

/// A family of counters.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counters(&'static str);

impl Counters {
    /// Describes the family `name`, which ends in `_total`.
    pub(super) fn described(name: &'static str, help: &'static str) -> Self {
        describe_counter!(name, help);
        Self(name)
    }

    /// Sets one sample to the value that a worker has counted.
    pub(super) fn sample(self, labels: Vec<Label>, value: u64) {
        counter!(self.0, labels).absolute(value);
    }
}

/// A family of gauges.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gauges(&'static str);

impl Gauges {
    /// Describes the family `name`.
    pub(super) fn described(name: &'static str, help: &'static str) -> Self {
        describe_gauge!(name, help);
        Self(name)
    }

    /// Sets one sample.
    pub(super) fn sample(self, labels: Vec<Label>, value: impl Into<f64>) {
        gauge!(self.0, labels).set(value.into());
    }
}

/// A label whose value is text of a client. Backslashes are doubled, because the exporter takes one
/// before a quote for an escape.
pub(super) fn label(name: &'static str, value: &str) -> Label {
    Label::new(name, value.replace('\\', r"\\"))
}
