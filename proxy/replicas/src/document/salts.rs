//! The key from which users' salts are made.

use pgimbal_auth::rotation::SecretBytes;
use serde::{Deserialize, Serialize};

/// The key from which users' salts are made, 32 bytes; masked in `Debug` and wiped when dropped.
/// With it a guesser knows the salt of a name without asking pgimbal, and whether a name exists.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SaltsKey(SecretBytes<[u8; 32]>);

impl SaltsKey {
    /// A key of 32 random bytes.
    #[must_use]
    pub fn new(random: [u8; 32]) -> Self {
        Self(random.into())
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}
