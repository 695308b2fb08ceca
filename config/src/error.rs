//! What is wrong with a configuration: all of it at once, each with where, which key, what value,
//! and why.

use std::fmt;

/// The exit code for a configuration that cannot be used: EX_CONFIG of sysexits.h.
pub const EXIT_CONFIG: u8 = 78;

/// Everything that is wrong with a configuration; never empty. `Display` gives a line for each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors {
    errors: Vec<ConfigError>,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The file, the environment variable or the flag that it comes from.
    pub origin: String,
    /// The key in the file's form, `databases.app.port`; empty when the source itself is the
    /// matter.
    pub key: String,
    /// The value as it was given; `None` for secrets and where no single value is at fault.
    pub value: Option<String>,
    /// Why it cannot be, and what would be right.
    pub cause: String,
}

impl ConfigErrors {
    /// `None` when nothing is wrong.
    pub(crate) fn from_found(errors: Vec<ConfigError>) -> Option<Self> {
        (!errors.is_empty()).then_some(Self { errors })
    }

    /// What is wrong, in the order it was found.
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
    /// For a fault that is found later, by whoever uses the value.
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
