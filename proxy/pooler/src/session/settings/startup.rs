//! The settings in a startup packet, made comparable with what the pool's servers start with.

use pgimbal_wire::error::SqlState;

use super::neutral::is_never_replayed;
use super::table::Setting;

/// Why a client's startup packet is refused without asking a server. The error's text is the
/// message for the client, and [`StartupError::code`] its SQLSTATE.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StartupError {
    /// The named parameter (`in_hot_standby` or `is_superuser`) is set by the server only.
    #[error("parameter \"{}\" cannot be changed", .0.escape_ascii())]
    Fixed(Vec<u8>),
}

impl StartupError {
    /// The SQLSTATE for the client: 55P02 for a fixed parameter.
    #[must_use]
    pub const fn code(&self) -> SqlState {
        match self {
            Self::Fixed(_) => SqlState::CANT_CHANGE_RUNTIME_PARAM,
        }
    }
}

/// The settings that a startup packet asks for, without those that equal `defaults`, which the
/// pool's servers reported. `parameters` are in order of precedence: those parsed from `options`
/// first, then those of the packet; of several with one name the last counts. `user`, `database`,
/// `options`, `replication`, protocol options (`_pq_.…`) and settings that are never replayed are
/// passed over.
///
/// # Errors
/// [`StartupError::Fixed`] for a name that every PostgreSQL server refuses (`in_hot_standby`,
/// `is_superuser`). Whether a server accepts the other settings is found out when they are tried.
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
        if matches!(&*setting.name, b"in_hot_standby" | b"is_superuser") {
            return Err(StartupError::Fixed(setting.name.to_vec()));
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
