//! The password cache: passwords in clear text, stored so that pgimbal can start while their source
//! is unreachable. Off by default.

use std::collections::BTreeMap;

use pgimbal_config::Secret;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::time::SystemTime;
use zeroize::Zeroizing;

use super::record::Unreadable;
use super::secret_bytes::Time;

const VERSION: u32 = 1;

/// The contents of the password cache file (JSON): the last passwords of all roles in clear text.
/// [`Default`] has version 0, which [`Self::parse`] refuses: use [`Self::new`] to write one. The
/// file is `passwords.json` in `state_dir`, kept with `password_cache = true`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct PasswordCache {
    version: u32,
    /// The passwords of each role by the role's name, the newest last. pgimbal writes no empty
    /// list, but one may be read.
    pub roles: BTreeMap<String, Vec<CachedPassword>>,
}

/// One password of a role in the cache, with the date that its source gave it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CachedPassword {
    password: Plain,
    rotated_at: Option<Time>,
}

impl PasswordCache {
    /// Makes the cache of these roles, to be written; it has the present version of the format (1).
    #[must_use]
    pub const fn new(roles: BTreeMap<String, Vec<CachedPassword>>) -> Self {
        Self { version: VERSION, roles }
    }

    /// Reads the bytes of a cache file, at the start of pgimbal.
    ///
    /// # Errors
    /// [`Unreadable`] when the bytes are not JSON of this form or have another version; nothing of
    /// them is used.
    pub fn parse(bytes: &[u8]) -> Result<Self, Unreadable> {
        let cache: Self = serde_json::from_slice(bytes)?;
        if cache.version != VERSION {
            return Err(Unreadable::Version(cache.version));
        }
        Ok(cache)
    }

    /// The cache as JSON. The bytes contain passwords in clear text and are wiped when dropped.
    ///
    /// # Errors
    /// None in practice: every field has a form in JSON.
    pub fn to_bytes(&self) -> Result<Zeroizing<Vec<u8>>, Unreadable> {
        Ok(Zeroizing::new(serde_json::to_vec(self)?))
    }
}

impl CachedPassword {
    /// Makes an entry. `rotated_at` is the source's date of the password, `None` when it has none.
    #[must_use]
    pub fn new(password: Secret, rotated_at: Option<SystemTime>) -> Self {
        Self { password: Plain(password), rotated_at: rotated_at.map(Time::of) }
    }

    /// The password in clear text.
    #[must_use]
    pub const fn password(&self) -> &Secret {
        &self.password.0
    }

    /// The source's date of the password; `None` when the source had none.
    #[must_use]
    pub fn rotated_at(&self) -> Option<SystemTime> {
        self.rotated_at.map(Time::time)
    }
}

/// A secret that is serialised as plain text.
#[derive(Clone, Debug)]
struct Plain(Secret);

impl Serialize for Plain {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.expose())
    }
}

impl<'de> Deserialize<'de> for Plain {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self(Secret::new(text)))
    }
}
