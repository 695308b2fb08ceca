//! Families of the exporter: each is described where its samples are made.

use metrics::{Label, counter, describe_counter, describe_gauge, gauge};

/// A family of counters.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counters(&'static str);

impl Counters {
    /// The family `name`, which ends in `_total`.
    pub(super) fn described(name: &'static str, help: &'static str) -> Self {
        describe_counter!(name, help);
        Self(name)
    }

    /// One sample, as the worker counted it.
    pub(super) fn sample(self, labels: Vec<Label>, value: u64) {
        counter!(self.0, labels).absolute(value);
    }
}

/// A family of gauges.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gauges(&'static str);

impl Gauges {
    /// The family `name`.
    pub(super) fn described(name: &'static str, help: &'static str) -> Self {
        describe_gauge!(name, help);
        Self(name)
    }

    /// One sample.
    pub(super) fn sample(self, labels: Vec<Label>, value: impl Into<f64>) {
        gauge!(self.0, labels).set(value.into());
    }
}

/// A label whose value is text of a client's. The exporter takes a backslash before a quote for an
/// escape that was made before; doubled backslashes reach the page as they should.
pub(super) fn label(name: &'static str, value: &str) -> Label {
    Label::new(name, value.replace('\\', r"\\"))
}
