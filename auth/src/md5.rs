//! PostgreSQL's MD5 authentication ("Password Authentication" in its documentation;
//! AuthenticationMD5Password).

use md5::{Digest, Md5};
use subtle::ConstantTimeEq;
use zeroize::Zeroize;

/// The MD5 hash of a password and a user name, as `pg_authid.rolpassword` stores it: 32 lower-case
/// hexadecimal digits, without the prefix `md5`. It is a secret: whoever has it can log in with
/// MD5. It is wiped when dropped, and `Debug` masks it.
#[derive(Clone)]
pub struct Md5Hash([u8; 32]);

impl Md5Hash {
    /// Hashes a password as PostgreSQL does: the MD5 of the password followed by the user name. The
    /// user name is the salt, so a renamed role needs a new hash. An empty password is hashed as
    /// any other.
    #[must_use]
    pub fn of(password: &[u8], user: &[u8]) -> Self {
        Self(hex_digest(password, user))
    }

    /// Reads `md5` and 32 hexadecimal digits; `None` for any other text. The prefix must be in
    /// lower case; digits in upper case are accepted and made lower case.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digits: [u8; 32] = text.strip_prefix("md5")?.as_bytes().try_into().ok()?;
        digits
            .iter()
            .all(u8::is_ascii_hexdigit)
            .then(|| Self(digits.map(|digit| digit.to_ascii_lowercase())))
    }

    /// The answer to a challenge with `salt`: `md5` and 32 hexadecimal digits. It is the content of
    /// the PasswordMessage, without the NUL that ends it: MD5 of the hash's 32 digits followed by
    /// the salt.
    #[must_use]
    pub fn answer(&self, salt: [u8; 4]) -> [u8; 35] {
        let mut answer = *b"md500000000000000000000000000000000";
        answer[3..].copy_from_slice(&hex_digest(&self.0, &salt));
        answer
    }

    /// Whether `answer` is the right answer to an AuthenticationMD5Password with `salt`: `md5` and
    /// 32 lower-case hexadecimal digits, as [`Self::answer`] gives, without the NUL that ends it in
    /// the PasswordMessage. False for any other text or length; compares in constant time.
    #[must_use]
    pub fn accepts(&self, answer: &[u8], salt: [u8; 4]) -> bool {
        self.answer(salt).ct_eq(answer).into()
    }

    /// Whether `password`, sent in clear text by `user`, has this hash; compares in constant time.
    /// Costs one MD5 digest.
    #[must_use]
    pub fn accepts_password(&self, password: &[u8], user: &[u8]) -> bool {
        self.0.ct_eq(&hex_digest(password, user)).into()
    }
}

impl Drop for Md5Hash {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl std::fmt::Debug for Md5Hash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Md5Hash(***)")
    }
}

fn hex_digest(first: &[u8], second: &[u8]) -> [u8; 32] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digest = Md5::new().chain_update(first).chain_update(second).finalize();
    let mut hex = [0; 32];
    for (pair, byte) in hex.chunks_exact_mut(2).zip(digest) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
    hex
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The value of `SELECT 'md5' || md5('secretann')`.
    const STORED: &str = "md5ab5de13e8ed4b0ac5ba0b5a2b0d8ddd7";

    #[test]
    fn a_password_and_its_stored_hash_give_the_same_answer() {
        let hash = Md5Hash::of(b"secret", b"ann");
        let stored = format!("md5{}", std::str::from_utf8(&hash.0).unwrap());
        let parsed = Md5Hash::parse(&stored).unwrap();
        assert_eq!(parsed.answer(*b"salt"), hash.answer(*b"salt"));
        assert!(hash.accepts(&parsed.answer(*b"salt"), *b"salt"));
        assert!(!hash.accepts(&parsed.answer(*b"sal2"), *b"salt"));
        assert!(!hash.accepts(b"", *b"salt"));
        assert!(hash.accepts_password(b"secret", b"ann") && !hash.accepts_password(b"x", b"ann"));
    }

    #[test]
    fn only_md5_and_32_digits_are_a_hash() {
        assert!(Md5Hash::parse(STORED).is_some());
        assert!(Md5Hash::parse(&STORED.to_uppercase().replace("MD5", "md5")).is_some());
        for text in ["", "md5", "md5zz", &STORED[..34], &format!("{STORED}0")] {
            assert!(Md5Hash::parse(text).is_none(), "{text}");
        }
    }
}
