//! The passwords themselves, kept for a start without their source. Off unless somebody wants it.

use std::collections::BTreeMap;

use pgimbal_config::Secret;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::time::SystemTime;
use zeroize::Zeroizing;

use super::record::{Time, Unreadable};

const VERSION: u32 = 1;

/// The last passwords of all roles.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct PasswordCache {
    version: u32,
    /// Each role's, the newest last.
    pub roles: BTreeMap<String, Vec<CachedPassword>>,
}

/// One password.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CachedPassword {
    password: Plain,
    rotated_at: Option<Time>,
}

impl PasswordCache {
    /// The cache of these roles.
    #[must_use]
    pub const fn new(roles: BTreeMap<String, Vec<CachedPassword>>) -> Self {
        Self { version: VERSION, roles }
    }

    /// Reads a cache.
    ///
    /// # Errors
    /// [`Unreadable`] for anything else.
    pub fn parse(bytes: &[u8]) -> Result<Self, Unreadable> {
        let cache: Self = serde_json::from_slice(bytes)?;
        if cache.version != VERSION {
            return Err(Unreadable::Version(cache.version));
        }
        Ok(cache)
    }

    /// The cache as bytes, which are to be kept from everybody.
    ///
    /// # Errors
    /// None that occurs: every part of it has a form in JSON.
    pub fn to_bytes(&self) -> Result<Zeroizing<Vec<u8>>, Unreadable> {
        Ok(Zeroizing::new(serde_json::to_vec(self)?))
    }
}

impl CachedPassword {
    /// A password and when it was made.
    #[must_use]
    pub fn new(password: Secret, rotated_at: Option<SystemTime>) -> Self {
        Self { password: Plain(password), rotated_at: rotated_at.map(Time::of) }
    }

    /// The password.
    #[must_use]
    pub const fn password(&self) -> &Secret {
        &self.password.0
    }

    /// When it was made.
    #[must_use]
    pub fn rotated_at(&self) -> Option<SystemTime> {
        self.rotated_at.map(Time::time)
    }
}

/// A secret that is written as it is.
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
