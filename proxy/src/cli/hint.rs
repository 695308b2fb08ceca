//! Flags whose words are offered in help and completions, and judged by the configuration.

use std::ffi::OsStr;
use std::marker::PhantomData;

use clap::builder::{PossibleValue, StringValueParser, TypedValueParser};
use clap::{Arg, Command, Error};
use pgimbal_config::{AuthType, PoolMode};

/// A word of a closed set, as text: a wrong one is not clap's to refuse.
#[derive(Clone, Debug, Default)]
pub(super) struct Hint<T>(PhantomData<T>);

/// The words that a flag knows.
pub(super) trait Words: Clone + Send + Sync + 'static {
    const ALL: &'static [&'static str];
}

impl Words for PoolMode {
    const ALL: &'static [&'static str] =
        &[Self::Transaction.as_str(), Self::Session.as_str(), Self::Statement.as_str()];
}

impl Words for AuthType {
    const ALL: &'static [&'static str] = &[
        Self::ScramSha256.as_str(),
        Self::Md5.as_str(),
        Self::Password.as_str(),
        Self::Trust.as_str(),
    ];
}

impl<T: Words> TypedValueParser for Hint<T> {
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
        Some(Box::new(T::ALL.iter().map(PossibleValue::new)))
    }
}
