//! The errors of a configuration. All of them are reported at once, each with its origin, key,
//! value and cause.

use std::fmt;

/// Exit code of the process when its configuration cannot be used: `EX_CONFIG` of sysexits.h. Both
/// the server at its start and `pgimbal check` end with it; a refused reload ends nothing.
pub const EXIT_CONFIG: u8 = 78;

/// All errors of a configuration; never empty. `Display` prints one line for each, without a line
/// end after the last. At the start the process prints them and ends with [`EXIT_CONFIG`]; at a
/// reload the running configuration stays in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors {
    errors: Vec<ConfigError>,
}

/// An error of a configuration. `Display` prints `origin: key = value: cause`. A key that is empty
/// or the same as the origin is left out, and so is a value that is `None`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The file, environment variable or flag that set the option. Where nothing set it: the file
    /// that was read, or `no configuration file`; `until a restart` for what only the mixture of
    /// old and new options at a reload contradicts.
    pub origin: String,
    /// The option's key in the file's form, such as `databases.app.port`; empty when a whole source
    /// is at fault.
    pub key: String,
    /// The value as it was given; `None` for secrets and where no single value is at fault.
    pub value: Option<String>,
    /// Why the value cannot be used, and what to write instead.
    pub cause: String,
}

impl ConfigErrors {
    /// `None` when nothing is wrong.
    pub(crate) fn from_found(errors: Vec<ConfigError>) -> Option<Self> {
        (!errors.is_empty()).then_some(Self { errors })
    }

    /// Iterates over the errors in the order in which they were found: sources, then values, then
    /// contradictions between values. There is at least one.
    pub fn iter(&self) -> impl Iterator<Item = &ConfigError> {
        self.errors.iter()
    }
}

impl ConfigError {
    /// A fault of a whole source, not of one key.
    pub(crate) fn of_source(origin: impl Into<String>, cause: impl Into<String>) -> Self {
        Self { origin: origin.into(), key: String::new(), value: None, cause: cause.into() }
    }
}

impl From<ConfigError> for ConfigErrors {
    /// For an error that is found only when a value is used, after loading.
    fn from(error: ConfigError) -> Self {
        Self { errors: vec![error] }
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.errors.iter().enumerate() {
            let line_end = if index == 0 { "" } else { "\n" };
            write!(f, "{line_end}{error}")?;
        }
        Ok(())
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.origin)?;
        if !self.key.is_empty() && self.key != self.origin {
            write!(f, ": {}", self.key)?;
        }
        if let Some(value) = &self.value {
            write!(f, " = {value}")?;
        }
        write!(f, ": {}", self.cause)
    }
}

impl std::error::Error for ConfigErrors {}
impl std::error::Error for ConfigError {}
