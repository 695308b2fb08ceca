//! The settings in a startup packet, made comparable with what the pool's servers start with.

use super::neutral::is_never_replayed;
use super::{Setting, TooManySettings};

/// A startup parameter that is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StartupError {
    /// It cannot be the name of a setting, or of one that may be set. PostgreSQL's code for it is
    /// 42704, or 55P02.
    #[error("unrecognized configuration parameter \"{}\"", .0.escape_ascii())]
    Name(Vec<u8>),
    /// There are too many.
    #[error(transparent)]
    TooMany(#[from] TooManySettings),
}

/// The settings that `parameters` (in order of precedence: those parsed from `options` first, then
/// those of the packet) ask for and that differ from `defaults`, which the pool's servers reported.
/// `user`, `database`, `options`, `replication` and protocol options are passed over.
///
/// # Errors
/// A name that PostgreSQL would refuse whatever the server.
pub fn normalize_startup<'p>(
    parameters: impl IntoIterator<Item = (&'p [u8], &'p [u8])>,
    defaults: &[(&[u8], &[u8])],
) -> Result<Vec<Setting>, StartupError> {
    let mut settings: Vec<Setting> = Vec::new();
    for (name, value) in parameters {
        if matches!(name, b"user" | b"database" | b"options" | b"replication")
            || name.starts_with(b"_pq_.")
        {
            continue;
        }
        let setting = Setting::new(name, value);
        if !is_setting_name(name) || matches!(&*setting.name, b"in_hot_standby" | b"is_superuser") {
            return Err(StartupError::Name(name.to_vec()));
        }
        if is_never_replayed(&setting.name) {
            continue;
        }
        settings.retain(|other| other.name != setting.name);
        settings.push(setting);
    }
    settings.retain(|setting| {
        let default = defaults.iter().find(|(name, _)| name.eq_ignore_ascii_case(&setting.name));
        !default.is_some_and(|(_, default)| is_equal(&setting.name, &setting.value, default))
    });
    Ok(settings)
}

/// How a server that reported `default` will report `value`, as far as can be told without it: the
/// client is greeted with that.
pub fn reported_form(name: &[u8], value: &[u8], default: &[u8]) -> Vec<u8> {
    match name {
        b"datestyle" => full_datestyle(value, default).unwrap_or_else(|| value.to_vec()),
        b"client_encoding" => value.to_ascii_uppercase(),
        _ => value.to_vec(),
    }
}

/// A DateStyle with both parts, in PostgreSQL's spelling; `None` for a word that is not known.
fn full_datestyle(value: &[u8], default: &[u8]) -> Option<Vec<u8>> {
    let mut parts = default.split(|&b| b == b',').map(<[u8]>::trim_ascii);
    let (mut style, mut order) = (parts.next()?, parts.next()?);
    let mut order_given = false;
    for word in value.split(|&b| b == b',') {
        let word = word.trim_ascii().to_ascii_lowercase();
        let given: &[u8] = match &word[..] {
            b"ymd" => b"YMD",
            b"dmy" => b"DMY",
            b"mdy" | b"us" => b"MDY",
            word if word.starts_with(b"euro") => b"DMY",
            word if word.starts_with(b"noneuro") => b"MDY",
            _ => b"",
        };
        if !given.is_empty() {
            (order, order_given) = (given, true);
            continue;
        }
        style = match &word[..] {
            b"iso" => b"ISO",
            b"sql" => b"SQL",
            b"german" => b"German",
            word if word.starts_with(b"postgres") => b"Postgres",
            _ => return None,
        };
        if style == b"German" && !order_given {
            order = b"DMY";
        }
    }
    Some([style, b", ", order].concat())
}

/// Identifiers with dots between them, as `valid_custom_variable_name` wants.
fn is_setting_name(name: &[u8]) -> bool {
    name.split(|&b| b == b'.').all(|part| {
        let starts = |b: u8| b.is_ascii_alphabetic() || b == b'_' || b >= 0x80;
        let goes_on = |b: u8| starts(b) || b.is_ascii_digit() || b == b'$';
        matches!(part, [first, rest @ ..] if starts(*first) && rest.iter().all(|&b| goes_on(b)))
    })
}

/// Whether `value` surely leaves a server at `default`, which it reported.
fn is_equal(name: &[u8], value: &[u8], default: &[u8]) -> bool {
    match name {
        _ if value == default => true,
        b"client_encoding" => encoding(value) == encoding(default),
        b"datestyle" => is_equal_datestyle(value, default),
        b"timezone" | b"intervalstyle" => value.eq_ignore_ascii_case(default),
        b"standard_conforming_strings" | b"default_transaction_read_only" => {
            boolean(value).is_some() && boolean(value) == boolean(default)
        }
        _ => false,
    }
}

/// An encoding's name as PostgreSQL compares it: letters and digits only.
fn encoding(name: &[u8]) -> Vec<u8> {
    let mut clean = name.to_ascii_lowercase();
    clean.retain(u8::is_ascii_alphanumeric);
    if clean == b"unicode" { b"utf8".to_vec() } else { clean }
}

fn boolean(value: &[u8]) -> Option<bool> {
    match &value.to_ascii_lowercase()[..] {
        b"on" | b"true" | b"yes" | b"1" => Some(true),
        b"off" | b"false" | b"no" | b"0" => Some(false),
        _ => None,
    }
}

/// A DateStyle may name the style, the order or both; what it leaves out stays as it is. Only
/// German without an order changes the order too.
fn is_equal_datestyle(value: &[u8], default: &[u8]) -> bool {
    let words = |text: &[u8]| -> Vec<Vec<u8>> {
        let words = text.split(|&b| b == b',');
        words.map(|word| word.trim_ascii().to_ascii_lowercase()).collect()
    };
    let (asked, has) = (words(value), words(default));
    let alone_german = asked.len() == 1 && asked[0] == b"german";
    !alone_german && asked.len() <= 2 && asked.iter().all(|word| has.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datestyle_is_reported_whole() {
        let full = |value: &str| {
            String::from_utf8(reported_form(b"datestyle", value.as_bytes(), b"ISO, MDY")).unwrap()
        };
        assert_eq!(full("German"), "German, DMY");
        assert_eq!(full("german, ymd"), "German, YMD");
        assert_eq!(full("european"), "ISO, DMY");
        assert_eq!(full("sql"), "SQL, MDY");
        assert_eq!(full("nonsense"), "nonsense");
    }
}
