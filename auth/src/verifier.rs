//! SCRAM verifiers, by which passwords are checked, and the salts with which they are made.
//!
//! A verifier costs a key derivation of milliseconds, so it is made once, when the configuration is
//! read.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, KeyInit, Mac};
use pgimbal_config::Secret;
use sha2::{Digest, Sha256};
use std::borrow::Cow;
use subtle::ConstantTimeEq;
use thiserror::Error;
use zeroize::{Zeroize, Zeroizing};

/// PBKDF2 iterations of new verifiers: PostgreSQL's default of `scram_iterations`.
pub const DEFAULT_ITERATIONS: u32 = 4096;

/// Limit of the PBKDF2 iterations of a verifier or a server's challenge: 250 times PostgreSQL's
/// default, which takes about a second. A server that asks for more is refused.
pub const MAX_ITERATIONS: u32 = 1_000_000;

const PREFIX: &str = "SCRAM-SHA-256$";

/// A SHA-256 key or signature, 32 bytes.
pub type Key = [u8; 32];

/// A SCRAM-SHA-256 verifier: the salt, iterations, StoredKey and ServerKey that a server keeps of a
/// password (RFC 5802). The keys are wiped when it is dropped, and `Debug` masks them.
#[derive(Clone, PartialEq, Eq)]
pub struct ScramVerifier {
    /// Number of PBKDF2 iterations, 1 to [`MAX_ITERATIONS`].
    pub iterations: u32,
    /// The salt, never empty; it is shown to everybody who asks to log in.
    pub salt: Box<[u8]>,
    stored_key: Key,
    server_key: Key,
}

/// A salt and a number of iterations. SCRAM shows them before it sees a proof, so that all
/// passwords of a user must share them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SaltParameters {
    /// The salt in raw bytes; 16 of them when [`SaltKey`] made it.
    pub salt: Box<[u8]>,
    /// Number of PBKDF2 iterations, 1 to [`MAX_ITERATIONS`].
    pub iterations: u32,
}

impl SaltParameters {
    /// Whether `verifier` has this salt and this number of iterations.
    #[must_use]
    pub fn fits(&self, verifier: &ScramVerifier) -> bool {
        verifier.iterations == self.iterations && verifier.salt == self.salt
    }
}

/// A text that is not a SCRAM-SHA-256 verifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("not of the form SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey")]
pub struct MalformedVerifier;

impl ScramVerifier {
    /// Derives the verifier of a password with `iterations` PBKDF2 iterations; 4096 of them take a
    /// few milliseconds. `password` is normalised by SASLprep (RFC 4013), or used as it is when
    /// that refuses it. `salt` is raw bytes. `iterations` is not checked: keep it within 1 to
    /// [`MAX_ITERATIONS`].
    #[must_use]
    pub fn of_password(password: &[u8], salt: &[u8], iterations: u32) -> Self {
        let keys = PasswordKeys::derive(password, salt, iterations);
        let stored_key = Sha256::digest(*keys.client_key).into();
        Self { iterations, salt: salt.into(), stored_key, server_key: *keys.server_key }
    }

    /// A verifier that no password fits, with this salt and number of iterations. It is shown to
    /// clients of an account, and stands in for a user without a password.
    #[must_use]
    pub fn unmatchable(salt_parameters: &SaltParameters) -> Self {
        // A key whose digest is all zeros is not to be found.
        let SaltParameters { salt, iterations } = salt_parameters.clone();
        Self { iterations, salt, stored_key: [0; 32], server_key: [0; 32] }
    }

    /// Makes a verifier of keys that were stored apart from its salt, for example in the history
    /// file.
    #[must_use]
    pub fn of_keys(salt_parameters: &SaltParameters, stored_key: Key, server_key: Key) -> Self {
        let SaltParameters { salt, iterations } = salt_parameters.clone();
        Self { iterations, salt, stored_key, server_key }
    }

    /// StoredKey and ServerKey. They are secrets: whoever has them can guess passwords and
    /// impersonate the server.
    #[must_use]
    pub const fn keys(&self) -> (&Key, &Key) {
        (&self.stored_key, &self.server_key)
    }

    /// The salt and the number of iterations.
    #[must_use]
    pub fn salt_parameters(&self) -> SaltParameters {
        SaltParameters { salt: self.salt.clone(), iterations: self.iterations }
    }

    /// Whether `other` has the same salt and number of iterations.
    #[must_use]
    pub fn has_same_salt(&self, other: &Self) -> bool {
        self.iterations == other.iterations && self.salt == other.salt
    }

    /// Whether `other`, which must have the same salt and iterations, is a verifier of the same
    /// password; compares in constant time. Only StoredKey is compared; with another salt the
    /// result says nothing.
    #[must_use]
    pub fn has_keys_of(&self, other: &Self) -> bool {
        self.stored_key.ct_eq(&other.stored_key).into()
    }

    /// Reads a verifier in the form of `pg_authid.rolpassword`:
    /// `SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey`, with the last three in Base64.
    ///
    /// # Errors
    /// [`MalformedVerifier`] for any other text, an empty salt, and iterations outside of 1 to
    /// [`MAX_ITERATIONS`].
    pub fn parse(text: &str) -> Result<Self, MalformedVerifier> {
        let parts = text.strip_prefix(PREFIX).and_then(|rest| {
            let (head, keys) = rest.split_once('$')?;
            let (iterations, salt) = head.split_once(':')?;
            let (stored, server) = keys.split_once(':')?;
            Some(Self {
                iterations: iterations.parse().ok().filter(|n| (1..=MAX_ITERATIONS).contains(n))?,
                salt: BASE64.decode(salt).ok().filter(|salt| !salt.is_empty())?.into(),
                stored_key: BASE64.decode(stored).ok()?.try_into().ok()?,
                server_key: BASE64.decode(server).ok()?.try_into().ok()?,
            })
        });
        parts.ok_or(MalformedVerifier)
    }

    /// The verifier in the form of `pg_authid.rolpassword`. It is a secret: whoever has it can
    /// guess passwords.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        let [salt, stored, server] =
            [&*self.salt, &self.stored_key, &self.server_key].map(|part| BASE64.encode(part));
        Zeroizing::new(format!("{PREFIX}{}:{salt}${stored}:{server}", self.iterations))
    }

    /// Whether `password` has this verifier. It costs as much as [`Self::of_password`]. It blocks
    /// for milliseconds with 4096 iterations. The comparison takes constant time; an empty password
    /// is checked as any other.
    #[must_use]
    pub fn accepts_password(&self, password: &[u8]) -> bool {
        let other = Self::of_password(password, &self.salt, self.iterations);
        self.stored_key.ct_eq(&other.stored_key).into()
    }

    /// Checks a client's proof over `auth_message` (AuthMessage of RFC 5802). Returns
    /// ServerSignature, which proves the server to the client; `None` when the proof is wrong. Both
    /// cases take the same time.
    #[must_use]
    pub fn check_proof(&self, auth_message: &[u8], proof: &Key) -> Option<Key> {
        let signature = hmac(&self.stored_key, &[auth_message]);
        let client_key = Zeroizing::new(xor(proof, &signature));
        let matches: bool = Sha256::digest(*client_key).ct_eq(&self.stored_key).into();
        let answer = hmac(&self.server_key, &[auth_message]);
        matches.then_some(answer)
    }
}

impl Drop for ScramVerifier {
    fn drop(&mut self) {
        self.stored_key.zeroize();
        self.server_key.zeroize();
    }
}

impl std::fmt::Debug for ScramVerifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ScramVerifier(***)")
    }
}

/// ClientKey and ServerKey of RFC 5802.
pub(crate) struct PasswordKeys {
    /// ClientKey, which proves that the client knows the password.
    pub(crate) client_key: Zeroizing<Key>,
    /// ServerKey, with which the server signs.
    pub(crate) server_key: Zeroizing<Key>,
}

impl PasswordKeys {
    /// Derives both keys from a password with PBKDF2; takes milliseconds for 4096 iterations. The
    /// password is normalised by SASLprep first.
    pub(crate) fn derive(password: &[u8], salt: &[u8], iterations: u32) -> Self {
        let mut salted = Zeroizing::new([0; 32]);
        let password = Zeroizing::new(normalize(password).into_owned());
        pbkdf2::pbkdf2_hmac::<Sha256>(&password, salt, iterations, &mut *salted);
        Self {
            client_key: Zeroizing::new(hmac(&*salted, &[b"Client Key"])),
            server_key: Zeroizing::new(hmac(&*salted, &[b"Server Key"])),
        }
    }
}

/// The key from which the salts of users are made. It keeps a user's salt stable, and makes the
/// salt of a user who does not exist look like any other. It is wiped when dropped.
#[derive(Clone)]
pub struct SaltKey(Key);

impl SaltKey {
    /// Makes a key of 32 random bytes; used where no `deployment_key` is set. pgimbal keeps them in
    /// the file `salt-key` of `state_dir`; without that they last until it ends.
    #[must_use]
    pub const fn new(random: Key) -> Self {
        Self(random)
    }

    /// Derives the key from the option `deployment_key`, so that all proxies of a deployment make
    /// the same salts.
    #[must_use]
    pub fn of_deployment(key: &Secret) -> Self {
        Self(hmac(key.expose().as_bytes(), &[b"salts of a deployment"]))
    }

    /// The salt of `user`: 16 bytes, PostgreSQL's `SCRAM_DEFAULT_SALT_LEN`. It is a part of an HMAC
    /// of the name, so it never changes with the same key, whether the user exists or not.
    #[must_use]
    pub fn salt(&self, user: &[u8]) -> [u8; 16] {
        let digest = hmac(&self.0, &[b"salt\0", user]);
        *digest.first_chunk().unwrap_or(&[0; 16])
    }

    /// A verifier with `user`'s salt that no password fits, for a user who does not exist. It has
    /// [`DEFAULT_ITERATIONS`]. It is shown in SCRAM, so that a client cannot tell that the user
    /// does not exist.
    #[must_use]
    pub fn mock_verifier(&self, user: &[u8]) -> ScramVerifier {
        ScramVerifier {
            iterations: DEFAULT_ITERATIONS,
            salt: self.salt(user).into(),
            stored_key: hmac(&self.0, &[b"stored\0", user]),
            server_key: hmac(&self.0, &[b"server\0", user]),
        }
    }
}

impl Drop for SaltKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl std::fmt::Debug for SaltKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SaltKey(***)")
    }
}

/// SASLprep (RFC 4013); like PostgreSQL and libpq, a password that is not UTF-8 or that SASLprep
/// refuses is used as it is.
pub(crate) fn normalize(password: &[u8]) -> Cow<'_, [u8]> {
    let prepared = std::str::from_utf8(password)
        .ok()
        .and_then(|text| stringprep::saslprep(text).ok().filter(|prepared| !prepared.is_empty()));
    match prepared {
        Some(Cow::Owned(prepared)) => Cow::Owned(prepared.into_bytes()),
        Some(Cow::Borrowed(_)) | None => Cow::Borrowed(password),
    }
}

/// HMAC-SHA-256 over the concatenation of `parts`.
pub(crate) fn hmac(key: &[u8], parts: &[&[u8]]) -> Key {
    #[allow(clippy::expect_used, reason = "HMAC takes keys of any length")]
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}

/// The exclusive or of two keys, byte by byte (ClientProof of RFC 5802).
pub(crate) fn xor(left: &Key, right: &Key) -> Key {
    let mut out = *left;
    out.iter_mut().zip(right).for_each(|(l, r)| *l ^= r);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verifier_survives_its_text_form() {
        let made = ScramVerifier::of_password(b"pencil", b"salt", 4096);
        let text = made.to_text();
        assert!(text.starts_with("SCRAM-SHA-256$4096:c2FsdA==$"));
        assert!(ScramVerifier::parse(&text).unwrap() == made);
        assert!(made.accepts_password(b"pencil") && !made.accepts_password(b"Pencil"));
        assert_eq!(format!("{made:?}"), "ScramVerifier(***)");
    }

    #[test]
    fn a_verifier_made_by_postgresql() {
        // CREATE ROLE x PASSWORD 'foobar', PostgreSQL's own documentation of the format.
        let text = "SCRAM-SHA-256$4096:H45+UIZiJUcEXrB9SHlv5Q==$I0mc87UotsrnezRKv9Ijqn/\
                    zjWMGPVdy1zHPARAGfVs=:nSjwT9LGDmAsMo+GqmCRgmzLcXc6PFU+0u6Bg6Q4vuo=";
        assert!(ScramVerifier::parse(text).is_ok());
    }

    #[test]
    fn texts_that_are_no_verifier() {
        let good = ScramVerifier::of_password(b"x", b"salt", 1).to_text().to_string();
        let wrong = ["", "SCRAM-SHA-256$", "SCRAM-SHA-256$1:c2FsdA==$YQ==:YQ==", &good[1..]];
        for text in wrong.into_iter().map(str::to_owned).chain([
            good.replace("$1:", "$0:"),
            good.replace("$1:", "$9999999999:"),
            good.replace("c2FsdA==", ""),
            good.replace("c2FsdA==", "!"),
        ]) {
            assert_eq!(ScramVerifier::parse(&text).err(), Some(MalformedVerifier), "{text}");
        }
    }

    #[test]
    fn passwords_are_prepared_like_postgresql_does() {
        assert_eq!(&*normalize("I\u{ad}X".as_bytes()), b"IX");
        assert_eq!(&*normalize("\u{2168}".as_bytes()), b"IX");
        assert_eq!(&*normalize(b"\xff"), b"\xff");
        assert_eq!(&*normalize(b"\x07"), b"\x07");
        assert_eq!(&*normalize("\u{ad}".as_bytes()), "\u{ad}".as_bytes());
    }

    #[test]
    fn salts_are_stable_and_differ_between_users() {
        let key = SaltKey::new([7; 32]);
        assert_eq!(key.salt(b"ann"), key.salt(b"ann"));
        assert_ne!(key.salt(b"ann"), key.salt(b"bob"));
        assert_eq!(*key.mock_verifier(b"ann").salt, key.salt(b"ann"));
    }
}
