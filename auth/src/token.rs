//! Tokens of the page on the HTTP port: what is kept of one, and how it is compared.

use pgimbal_config::Secret;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// The SHA-256 hash of a token. Tokens are random, so that nobody finds one by its hash; hashes have
/// one length, so that comparing them tells nothing about a token's.
#[derive(Clone, Copy)]
pub struct TokenHash([u8; 32]);

impl TokenHash {
    /// The hash of a token that somebody has shown, of any length.
    #[must_use]
    pub fn of(token: &str) -> Self {
        Self(Sha256::digest(token.as_bytes()).into())
    }

    /// The hash of a configured token.
    #[must_use]
    pub fn of_secret(token: &Secret) -> Self {
        Self::of(token.expose())
    }

    /// Whether both are of the same token, in constant time.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl std::fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TokenHash")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_itself_and_nothing_is_shown_of_it() {
        let token = TokenHash::of_secret(&Secret::from("a token"));
        assert!(token.is(&TokenHash::of("a token")));
        assert!(!token.is(&TokenHash::of("a tokeN")) && !token.is(&TokenHash::of("")));
        assert_eq!(format!("{token:?}"), "TokenHash");
    }
}
