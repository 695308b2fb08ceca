//! The answers of Vault's HTTP API. Every field is optional, and no error repeats the answer's
//! text.

use std::fmt;
use std::time::{Duration, SystemTime};

use pgimbal_config::Secret;
use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use zeroize::Zeroizing;

use crate::{SourceError, SourcePassword};

/// An HTTP answer of Vault, with its status, body and `Retry-After`.
pub(super) struct Reply {
    /// The HTTP status.
    pub(super) status: u16,
    /// The body of the answer, which may hold a secret; it is wiped when dropped.
    pub(super) body: Zeroizing<Vec<u8>>,
    /// The time of the header `Retry-After`; `None` when there is none in seconds.
    pub(super) retry_after: Option<Duration>,
}

/// The JSON object that holds Vault's answers.
#[derive(Deserialize)]
#[serde(bound = "T: DeserializeOwned", default)]
pub(super) struct Envelope<T> {
    /// The field `data`, for all calls but logins.
    pub(super) data: Option<T>,
    /// The field `auth`, for logins and renewals.
    pub(super) auth: Option<AuthData>,
}

impl<T> Default for Envelope<T> {
    fn default() -> Self {
        Self { data: None, auth: None }
    }
}

/// The field `auth` of a login or a renewal.
#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct AuthData {
    /// The token (`client_token`); absent when the answer has none.
    pub(super) client_token: Field,
    /// The token's time to live in seconds; 0 for one that never expires.
    pub(super) lease_duration: Field,
    /// Whether the token can be renewed.
    pub(super) renewable: Field,
}

/// The credentials of a static role (`static-creds`).
#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct RoleData {
    username: Field,
    password: Field,
    ttl: Field,
    rotation_period: Field,
    last_vault_rotation: Field,
    last_openbao_rotation: Field,
}

/// The properties of a token (`lookup-self`).
#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct TokenData {
    /// The token's time to live in seconds; 0 for one that never expires.
    pub(super) ttl: Field,
    /// Whether the token can be renewed.
    pub(super) renewable: Field,
}

/// The answer of `sys/health`, which comes without an envelope.
#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct HealthData {
    /// Vault's version as text.
    pub(super) version: Field,
    /// Vault's clock in seconds since 1970.
    pub(super) server_time_utc: Field,
}

/// A secret of the KV engine, version 2, or what was written of it.
#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct KvData {
    /// The secret's fields; absent where the newest version is deleted or destroyed.
    pub(super) data: Option<KvFields>,
    /// What Vault says of the version that was read.
    pub(super) metadata: KvMetadata,
    /// The new version, in the answer of a write.
    pub(super) version: Field,
}

/// The fields of a secret in which pgimbal keeps a document.
#[derive(Default)]
pub(super) struct KvFields {
    /// The document as base64.
    pub(super) document: Field,
    /// Whether there are other fields; their values are not kept.
    pub(super) has_others: bool,
}

/// The field `metadata` of a secret.
#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct KvMetadata {
    /// The number of the newest version.
    pub(super) version: Field,
}

/// What a token may do (`sys/capabilities-self`).
#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct Capabilities {
    /// The names of the capabilities at the one path that was asked for.
    pub(super) capabilities: Vec<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Errors {
    errors: Vec<String>,
}

/// A JSON value of any type.
#[derive(Default)]
pub(super) enum Field {
    #[default]
    Absent,
    Text(Secret),
    Number(f64),
    Flag(bool),
    Other,
}

impl Field {
    /// The text of the value; `None` for an empty text and for every other type.
    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) if !text.expose().is_empty() => Some(text.expose()),
            _ => None,
        }
    }

    /// The value as a time in seconds: a number, or a text that is one. Negative numbers count as
    /// 0; `None` for any other value.
    pub(super) fn seconds(&self) -> Option<Duration> {
        let seconds = match self {
            Self::Number(seconds) => *seconds,
            Self::Text(text) => text.expose().parse().ok()?,
            _ => return None,
        };
        Duration::try_from_secs_f64(seconds.max(0.0)).ok()
    }

    /// The value as a whole number; `None` for any other value.
    pub(super) fn count(&self) -> Option<u64> {
        match self {
            // 2^53: above it a number of JSON is no longer exact.
            Self::Number(number) if (0.0..9e15).contains(number) && number.fract() == 0.0 => {
                Some(*number as u64)
            }
            _ => None,
        }
    }

    /// The value as a flag; `None` for every other type.
    pub(super) const fn flag(&self) -> Option<bool> {
        match self {
            Self::Flag(flag) => Some(*flag),
            _ => None,
        }
    }

    /// A time as RFC 3339 has it; a time before 1970 stands for "never".
    fn time(&self) -> Option<SystemTime> {
        let time = OffsetDateTime::parse(self.text()?, &Rfc3339).ok()?;
        (time.unix_timestamp() > 0).then(|| time.into())
    }
}

impl<'de> Deserialize<'de> for Field {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyField)
    }
}

struct AnyField;

impl<'de> Visitor<'de> for AnyField {
    type Value = Field;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_str<E>(self, text: &str) -> Result<Field, E> {
        Ok(Field::Text(Secret::from(text)))
    }

    fn visit_string<E>(self, text: String) -> Result<Field, E> {
        Ok(Field::Text(Secret::new(text)))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Field, E> {
        Ok(Field::Number(number as f64))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Field, E> {
        Ok(Field::Number(number as f64))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Field, E> {
        Ok(Field::Number(number))
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Field, E> {
        Ok(Field::Flag(flag))
    }

    fn visit_unit<E>(self) -> Result<Field, E> {
        Ok(Field::Absent)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Field, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Field::Other)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Field, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Field::Other)
    }
}

impl<'de> Deserialize<'de> for KvFields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(AnyFields)
    }
}

struct AnyFields;

impl<'de> Visitor<'de> for AnyFields {
    type Value = KvFields;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the fields of a secret")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<KvFields, A::Error> {
        let mut fields = KvFields::default();
        while let Some(name) = map.next_key::<String>()? {
            if name == "document" {
                fields.document = map.next_value()?;
            } else {
                map.next_value::<IgnoredAny>()?;
                fields.has_others = true;
            }
        }
        Ok(fields)
    }
}

impl Reply {
    /// The answer within its envelope.
    pub(super) fn envelope<T: DeserializeOwned>(
        &self,
        location: &str,
    ) -> Result<Envelope<T>, SourceError> {
        self.json(location)
    }

    /// The answer as it is.
    pub(super) fn json<T: DeserializeOwned>(&self, location: &str) -> Result<T, SourceError> {
        serde_json::from_slice(&self.body).map_err(|error| {
            // The error's own text may quote the answer.
            let html = self.body.trim_ascii_start().starts_with(b"<");
            let cause = match error.classify() {
                serde_json::error::Category::Data => "a field has another type than Vault's",
                _ if html => "it is a web page; does the address name Vault itself?",
                _ if self.body.is_empty() => "it is empty",
                _ => "it is not JSON",
            };
            malformed(location, cause)
        })
    }

    /// The first entry of `errors`, shortened to one line, unless it repeats one of `secrets`.
    pub(super) fn complaint(&self, secrets: &[&Secret]) -> Box<str> {
        /// Vault's own texts fit; a page of a proxy in between need not.
        const LONGEST: usize = 200;
        let errors: Errors = serde_json::from_slice(&self.body).unwrap_or_default();
        let Some(text) = errors.errors.iter().find(|text| !text.trim().is_empty()) else {
            return "no reason is given".into();
        };
        let repeats =
            |secret: &&Secret| !secret.expose().is_empty() && text.contains(secret.expose());
        if secrets.iter().any(repeats) {
            return "the reason repeats a secret and is left out".into();
        }
        let words: Vec<&str> = text.split_whitespace().filter(|word| *word != "*").collect();
        let line = words.join(" ").replace(char::is_control, "");
        line.chars().take(LONGEST).collect::<String>().into()
    }
}

impl RoleData {
    /// The role's password and what is known of its rotation.
    pub(super) fn into_answer(self, location: &str) -> Result<SourcePassword, SourceError> {
        let password = match self.password {
            Field::Text(password) => password,
            Field::Absent => return Err(malformed(location, "the field password is missing")),
            _ => return Err(malformed(location, "the field password is not a text")),
        };
        let mut answer = SourcePassword::new(location, password)?;
        answer.username = self.username.text().map(Box::from);
        answer.ttl = self.ttl.seconds();
        answer.rotation_period = self.rotation_period.seconds().filter(|period| !period.is_zero());
        answer.rotated_at =
            self.last_vault_rotation.time().or_else(|| self.last_openbao_rotation.time());
        Ok(answer)
    }
}

/// An answer that cannot be used.
pub(super) fn malformed(location: &str, cause: &str) -> SourceError {
    SourceError::Malformed { location: location.into(), cause: cause.into() }
}

#[cfg(test)]
mod tests;
