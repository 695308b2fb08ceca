//! Flags whose words are offered in help and completions, and checked by the configuration.

use std::ffi::OsStr;

use clap::builder::{PossibleValue, StringValueParser, TypedValueParser};
use clap::{Arg, Command, Error};

/// One of these words, as text: a wrong one is not clap's to refuse.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hint(pub(super) &'static [&'static str]);

impl TypedValueParser for Hint {
    type Value = String;

    fn parse_ref(
        &self,
        command: &Command,
        arg: Option<&Arg>,
        value: &OsStr,
    ) -> Result<String, Error> {
        StringValueParser::new().parse_ref(command, arg, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new(self.0.iter().map(PossibleValue::new)))
    }
}
