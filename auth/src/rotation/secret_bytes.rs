//! Secret bytes and times as they stand in JSON documents.

use std::fmt;
use std::ops::Deref;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::{Zeroize, Zeroizing};

/// Secret bytes that are written in Base64, masked in `Debug`, and wiped when dropped. The order is
/// that of the bytes; it is for merges that take the least or greatest, not for checks of logins.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SecretBytes<T: Zeroize>(T);

impl<T: Zeroize> Drop for SecretBytes<T> {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl<T: Zeroize> From<T> for SecretBytes<T> {
    fn from(bytes: T) -> Self {
        Self(bytes)
    }
}

impl<T: Zeroize> Deref for SecretBytes<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: Zeroize> fmt::Debug for SecretBytes<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl<T: Zeroize + AsRef<[u8]>> Serialize for SecretBytes<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&Zeroizing::new(BASE64.encode(&self.0)))
    }
}

impl<'de, T: Zeroize + TryFrom<Vec<u8>>> Deserialize<'de> for SecretBytes<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Zeroizing::new(String::deserialize(deserializer)?);
        let bytes = BASE64.decode(&*text).map_err(|_| D::Error::custom("not base64"))?;
        T::try_from(bytes).map(Self).map_err(|_| D::Error::custom("of the wrong length"))
    }
}

/// A time as nanoseconds since 1970-01-01 UTC: exact, so that a time read back equals the one
/// written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Time(u64);

impl Time {
    /// Converts a time; one before 1970 becomes 0, one too late for 64 bits the latest.
    pub(super) fn of(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
    }

    /// Whole seconds since 1970.
    pub(super) const fn seconds(self) -> u64 {
        self.0 / 1_000_000_000
    }

    /// Converts back to a time of the wall clock.
    pub(super) fn time(self) -> SystemTime {
        UNIX_EPOCH + Duration::from_nanos(self.0)
    }
}
