//! What a check has found.

use crate::error::ConfigError;
use crate::read::Origins;

/// The contradictions found so far.
pub(super) struct Findings<'a> {
    origins: &'a Origins,
    errors: Vec<ConfigError>,
}

impl<'a> Findings<'a> {
    /// None yet. `origins` says where each key was set, which errors name.
    pub(super) const fn new(origins: &'a Origins) -> Self {
        Self { origins, errors: Vec::new() }
    }

    /// All of them, in the order in which they were found.
    pub(super) fn into_errors(self) -> Vec<ConfigError> {
        self.errors
    }

    /// Whether a source has set `key`.
    pub(super) fn is_set(&self, key: &str) -> bool {
        self.origins.is_set(key)
    }

    /// Notes that `key` cannot be as it is, once.
    pub(super) fn add(&mut self, key: &str, value: Option<String>, cause: impl Into<String>) {
        // A key that nothing set is at fault because of its table.
        let place = key.rsplit_once('.').map_or(key, |(table, _)| table);
        let place = if self.origins.is_set(key) { key } else { place };
        let error = ConfigError {
            origin: self.origins.of(place).to_owned(),
            key: key.to_owned(),
            value,
            cause: cause.into(),
        };
        if !self.errors.contains(&error) {
            self.errors.push(error);
        }
    }
}
