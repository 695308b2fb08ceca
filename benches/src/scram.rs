//! SCRAM-SHA-256 for a client that logs in thousands of times a second.
//!
//! Key stretching is done once per salt and kept, so that a login loop measures the server and not
//! 4,096 hash iterations of its own. `postgres-protocol`, which the tests log in with, cannot.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ring::{digest, hmac, pbkdf2};
use std::num::NonZeroU32;
use std::sync::Mutex;

/// A password, with the key that was stretched (PBKDF2) for the last salt.
#[derive(Default)]
pub struct Secret {
    password: String,
    stretched: Mutex<Option<Stretched>>,
}

/// A stretched key and what it was made from.
struct Stretched {
    salt: Vec<u8>,
    iterations: u32,
    key: [u8; 32],
}

impl Secret {
    /// Makes a secret for which no key was stretched yet.
    #[must_use]
    pub fn new(password: &str) -> Self {
        Self { password: password.to_owned(), stretched: Mutex::new(None) }
    }

    /// The client-final-message of RFC 5802 for a server-first-message; `nonce` must be that of
    /// [`client_first`]. `None` when the server's message cannot be parsed. A new salt costs one
    /// key derivation.
    #[must_use]
    pub fn client_final(&self, nonce: &str, server_first: &str) -> Option<String> {
        let mut parts = server_first.split(',');
        let combined =
            parts.next()?.strip_prefix("r=").filter(|combined| combined.starts_with(nonce))?;
        let salt = BASE64_STANDARD.decode(parts.next()?.strip_prefix("s=")?).ok()?;
        let iterations = parts.next()?.strip_prefix("i=")?.parse().ok()?;
        let salted = self.salted(&salt, iterations)?;
        let without_proof = format!("c=biws,r={combined}");
        let message = format!("n=,r={nonce},{server_first},{without_proof}");
        let client_key = sign(&salted, b"Client Key");
        let stored = digest::digest(&digest::SHA256, client_key.as_ref());
        let signature = sign(stored.as_ref(), message.as_bytes());
        let proof: Vec<u8> =
            client_key.as_ref().iter().zip(signature.as_ref()).map(|(a, b)| a ^ b).collect();
        Some(format!("{without_proof},p={}", BASE64_STANDARD.encode(proof)))
    }

    fn salted(&self, salt: &[u8], iterations: u32) -> Option<[u8; 32]> {
        let mut known = self.stretched.lock().ok()?;
        if let Some(old) =
            known.as_ref().filter(|old| old.salt == salt && old.iterations == iterations)
        {
            return Some(old.key);
        }
        let key = stretch(&self.password, salt, NonZeroU32::new(iterations)?);
        *known = Some(Stretched { salt: salt.to_vec(), iterations, key });
        Some(key)
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// The client-first-message of RFC 5802 with `nonce`, without user name and channel binding.
#[must_use]
pub fn client_first(nonce: &str) -> String {
    format!("n,,n=,r={nonce}")
}

fn stretch(password: &str, salt: &[u8], iterations: NonZeroU32) -> [u8; 32] {
    let mut key = [0; 32];
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, salt, password.as_bytes(), &mut key);
    key
}

fn sign(key: &[u8], data: &[u8]) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_rfc_7677_holds() {
        let secret = Secret::new("pencil");
        let first = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
        let last = secret.client_final("rOprNGfwEbeRWgbNEkqO", first);
        // RFC 7677 names the user in the message, PostgreSQL's clients leave it empty, so only
        // the parts before the proof are the same.
        let expected = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=";
        assert!(last.is_some_and(|text| text.starts_with(expected)));
        assert_eq!(secret.client_final("another nonce", first), None);
    }
}
