//! Readers: how the value of one option is checked, whether it comes from a file, where it may be
//! a number or a list, or from the environment or a flag, where it is text.

use std::fmt::Display;
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use figment::value::Value;

use crate::secret::Secret;
use crate::suggest;
use crate::units;

/// Turns a value into a field; the error is the cause in words and never holds the value.
pub(crate) trait Reader {
    type Out;
    /// The name of the value's type in the reference.
    const KIND: &'static str;
    /// Whether an error must hide the value.
    const SECRET: bool = false;

    fn read(value: &Value) -> Result<Self::Out, String>;

    /// The value when nothing sets the option and its table gives no default; `None` when there
    /// must be a value.
    fn unset() -> Option<Self::Out> {
        None
    }
}

/// The value of a table's default.
///
/// # Panics
/// When the table is wrong; every table's defaults are built in the tests.
pub(crate) fn default<R: Reader>(text: &str) -> R::Out {
    let value = match text {
        "" => R::unset().ok_or_else(|| "is never unset".to_owned()),
        _ => R::read(&Value::from(text)),
    };
    value.unwrap_or_else(|error| panic!("the default {text:?} of an option: {error}"))
}

/// Text with something in it.
pub(crate) struct NonEmpty;

impl Reader for NonEmpty {
    type Out = String;
    const KIND: &'static str = "text";

    fn read(value: &Value) -> Result<String, String> {
        match text(value)?.trim() {
            "" => Err("must not be empty".to_owned()),
            _ => text(value).map(str::to_owned),
        }
    }
}

/// What tracing calls a filter, without its spans and fields: levels, and targets with levels. A
/// bare word that is no level is refused: tracing takes it for a target, and `inf` is silence.
pub(crate) struct LogFilter;

impl Reader for LogFilter {
    type Out = String;
    const KIND: &'static str = "level or filter";

    fn read(value: &Value) -> Result<String, String> {
        const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
        let is_target = |c: char| c.is_ascii_alphanumeric() || "_-:.".contains(c);
        let filter = text(value)?;
        for part in filter.split(',') {
            let (target, level) = match part.split_once('=') {
                Some((target, level)) => (Some(target.trim()), level.trim()),
                None => (None, part.trim()),
            };
            if target.is_some_and(|target| target.is_empty() || !target.chars().all(is_target)) {
                return Err("expected target=level, such as \"pgimbal=debug\"".to_owned());
            }
            if !LEVELS.contains(&level) {
                let hint = suggest::did_you_mean(suggest::nearest(level, LEVELS.into_iter()));
                return Err(format!("expected off, error, warn, info, debug or trace{hint}"));
            }
        }
        Ok(filter.to_owned())
    }
}

/// A list of names: a list of texts, or one text with commas.
pub(crate) struct Names;

impl Reader for Names {
    type Out = Vec<String>;
    const KIND: &'static str = "list of names";

    fn read(value: &Value) -> Result<Vec<String>, String> {
        list(value)
    }

    fn unset() -> Option<Vec<String>> {
        Some(Vec::new())
    }
}

/// A list of functions' names, without their schemas.
pub(crate) struct Functions;

impl Reader for Functions {
    type Out = Vec<String>;
    const KIND: &'static str = "list of functions";

    fn read(value: &Value) -> Result<Vec<String>, String> {
        let names = list(value)?;
        match names.iter().find(|name| name.contains(['.', '(', '"']) || name.is_empty()) {
            Some(name) => Err(format!(
                "{name:?} is no name of a function alone: without its schema, arguments and quotes"
            )),
            None => Ok(names),
        }
    }

    fn unset() -> Option<Vec<String>> {
        Some(Vec::new())
    }
}

/// Text that is never shown.
pub(crate) struct Hidden;

impl Reader for Hidden {
    type Out = Secret;
    const KIND: &'static str = "secret text";
    const SECRET: bool = true;

    fn read(value: &Value) -> Result<Secret, String> {
        text(value).map(Secret::from)
    }
}

/// The path of a file or directory.
pub(crate) struct Path;

impl Reader for Path {
    type Out = PathBuf;
    const KIND: &'static str = "path";

    fn read(value: &Value) -> Result<PathBuf, String> {
        match text(value)? {
            "" => Err("expected a path, found an empty text".to_owned()),
            path => Ok(PathBuf::from(path)),
        }
    }
}

/// The permission bits of a file. Only text is taken: a number in TOML is decimal, and 700 is not
/// 0700.
pub(crate) struct FileMode;

impl Reader for FileMode {
    type Out = u32;
    const KIND: &'static str = "octal text";

    fn read(value: &Value) -> Result<u32, String> {
        value
            .as_str()
            .and_then(|text| u32::from_str_radix(text, 8).ok())
            .filter(|mode| *mode <= 0o777)
            .ok_or_else(|| "expected an octal file mode as text, such as \"0700\"".to_owned())
    }
}

/// An IP address and a port.
pub(crate) struct Address;

impl Reader for Address {
    type Out = SocketAddr;
    const KIND: &'static str = "address:port";

    fn read(value: &Value) -> Result<SocketAddr, String> {
        address(text(value)?)
    }
}

/// Any number of addresses; none is allowed, for a pooler that only has a Unix socket.
pub(crate) struct Addresses;

impl Reader for Addresses {
    type Out = Vec<SocketAddr>;
    const KIND: &'static str = "list of address:port";

    fn read(value: &Value) -> Result<Vec<SocketAddr>, String> {
        list(value)?.iter().map(|item| address(item)).collect()
    }
}

/// A list of addresses that is empty by default.
pub(crate) struct NoAddresses;

impl Reader for NoAddresses {
    type Out = Vec<SocketAddr>;
    const KIND: &'static str = Addresses::KIND;

    fn read(value: &Value) -> Result<Vec<SocketAddr>, String> {
        Addresses::read(value)
    }

    fn unset() -> Option<Vec<SocketAddr>> {
        Some(Vec::new())
    }
}

/// Readers of whole numbers within limits: name, type, the name of the value's type, limits.
macro_rules! whole_numbers {
    ($($(#[$doc:meta])* $name:ident: $out:ty = $kind:literal, $least:expr, $most:expr;)*) => {$(
        $(#[$doc])*
        pub(crate) struct $name;

        impl Reader for $name {
            type Out = $out;
            const KIND: &'static str = $kind;

            fn read(value: &Value) -> Result<$out, String> {
                number(value, $least, $most)
            }
        }
    )*};
}

whole_numbers! {
    /// A whole number, zero included.
    Count: u32 = "number", 0, u32::MAX;
    /// A whole number of at least 1.
    Positive: u32 = "number, at least 1", 1, u32::MAX;
    /// A number of replicas of pgimbal: nobody runs more, and each has a slot of its own.
    Replicas: u32 = "number, 1 to 64", 1, 64;
    /// A TCP port.
    Port: u16 = "port", 1, u16::MAX;
    /// A number of threads; 0 means one for each core and is resolved when everything is read. A
    /// worker's number has seven bits of the process id in a cancel key.
    Threads: usize = "number", 0, 126;
}

/// A part of a whole, from 0 to 1, in millionths.
pub(crate) struct Share;

impl Reader for Share {
    type Out = u32;
    const KIND: &'static str = "number, 0 to 1";

    fn read(value: &Value) -> Result<u32, String> {
        let share = match value.as_str() {
            Some(text) => text.trim().parse::<f64>().ok(),
            // TOML has 0 and 1 as whole numbers.
            None => value.to_f64().or_else(|| value.to_i128().map(|whole| whole as f64)),
        };
        share
            .filter(|share| (0.0..=1.0).contains(share))
            .map(|share| (share * 1e6).round() as u32)
            .ok_or_else(|| "expected a number from 0 to 1, such as 0.01".to_owned())
    }
}

/// A length of time, which may be zero.
pub(crate) struct SpanOrNone;

impl Reader for SpanOrNone {
    type Out = Duration;
    const KIND: &'static str = "duration";

    fn read(value: &Value) -> Result<Duration, String> {
        match value.as_str().map(units::duration) {
            Some(Ok(Duration::ZERO)) => Ok(Duration::ZERO),
            _ => Span::read(value),
        }
    }
}

/// A length of time that is not zero.
pub(crate) struct Span;

impl Reader for Span {
    type Out = Duration;
    const KIND: &'static str = "duration";

    fn read(value: &Value) -> Result<Duration, String> {
        match value.as_str().map(units::duration) {
            Some(Ok(Duration::ZERO)) => Err("must be more than zero".to_owned()),
            Some(read) => read,
            None => units::duration(""),
        }
    }
}

/// A number of bytes.
pub(crate) struct Size;

impl Reader for Size {
    type Out = usize;
    const KIND: &'static str = "size";

    fn read(value: &Value) -> Result<usize, String> {
        units::size(value.as_str().unwrap_or_default())
    }
}

/// `true` or `false`.
pub(crate) struct Flag;

impl Reader for Flag {
    type Out = bool;
    const KIND: &'static str = "true or false";

    fn read(value: &Value) -> Result<bool, String> {
        match (value.to_bool(), value.as_str()) {
            (Some(flag), _) => Ok(flag),
            (None, Some("true")) => Ok(true),
            (None, Some("false")) => Ok(false),
            _ => Err("expected true or false".to_owned()),
        }
    }
}

/// A closed set of words.
pub(crate) trait Words: Sized + Copy + 'static {
    /// The words, joined for the reference: `a, b or c`.
    const KIND: &'static str;
    /// Each word with its meaning.
    const WORDS: &'static [(&'static str, Self)];
}

/// A word of a closed set.
pub(crate) struct Choice<T>(PhantomData<T>);

impl<T: Words> Reader for Choice<T> {
    type Out = T;
    const KIND: &'static str = T::KIND;

    fn read(value: &Value) -> Result<T, String> {
        let word = value.as_str().unwrap_or_default();
        T::WORDS.iter().find(|(name, _)| *name == word).map(|(_, meaning)| *meaning).ok_or_else(
            || {
                let names = T::WORDS.iter().map(|(name, _)| *name);
                let hint = suggest::nearest(word, names);
                format!("expected {}{}", T::KIND, suggest::did_you_mean(hint))
            },
        )
    }
}

/// An option that need not be set.
pub(crate) struct Maybe<R>(PhantomData<R>);

impl<R: Reader> Reader for Maybe<R> {
    type Out = Option<R::Out>;
    const KIND: &'static str = R::KIND;
    const SECRET: bool = R::SECRET;

    fn read(value: &Value) -> Result<Self::Out, String> {
        R::read(value).map(Some)
    }

    fn unset() -> Option<Self::Out> {
        Some(None)
    }
}

/// An option that the word `off` unsets again.
pub(crate) struct OrOff<R>(PhantomData<R>);

impl<R: Reader> Reader for OrOff<R> {
    type Out = Option<R::Out>;
    const KIND: &'static str = R::KIND;

    fn read(value: &Value) -> Result<Self::Out, String> {
        match value.as_str() {
            Some("off") => Ok(None),
            _ => R::read(value).map(Some).map_err(|cause| format!("{cause}, or \"off\"")),
        }
    }
}

fn text(value: &Value) -> Result<&str, String> {
    value.as_str().ok_or_else(|| "expected text in quotes".to_owned())
}

fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        "expected an IP address and a port, such as \"127.0.0.1:6432\" or \"[::1]:6432\"".to_owned()
    })
}

/// The whole number of a value, within limits.
pub(crate) fn number<N>(value: &Value, least: N, most: N) -> Result<N, String>
where
    N: TryFrom<u64> + PartialOrd + Copy + Display,
{
    let read = match value.as_str() {
        Some(text) => text.parse().ok(),
        None => value.to_num().and_then(|n| u64::try_from(n.to_u128_lossy()?).ok()),
    };
    read.and_then(|n: u64| N::try_from(n).ok())
        .filter(|n| (least..=most).contains(n))
        .ok_or_else(|| format!("expected a whole number from {least} to {most}"))
}

/// A list of texts, or one text with commas between the items; an empty text is an empty list.
fn list(value: &Value) -> Result<Vec<String>, String> {
    let wrong = || "expected a list of texts, or one text with commas".to_owned();
    match (value.as_array(), value.as_str()) {
        (Some(items), _) => {
            items.iter().map(|item| item.as_str().map(str::to_owned).ok_or_else(wrong)).collect()
        }
        (None, Some(text)) => Ok(text
            .split(',')
            .map(str::trim)
            .filter(|item| !item.is_empty())
            .map(str::to_owned)
            .collect()),
        _ => Err(wrong()),
    }
}
