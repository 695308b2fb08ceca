//! The key with which a client may cancel its query.

pub mod request;

/// The length, in bytes, of the cancel secret for clients of protocol 3.2. It is the length that
/// PostgreSQL uses; the protocol allows up to 256 bytes.
pub const LONG_SECRET: usize = 32;

/// The cancel key of a session: the process id and secret that its client was given in
/// BackendKeyData, and shows in a CancelRequest. Both are random: 32 bits of a secret, which is all
/// that protocol 3.0 has room for, can be guessed by who knows the process id.
#[derive(Clone, Copy)]
pub struct CancelKey {
    /// The process id that the client is told: random, from 1 to 2^31 - 1, and of no process. The
    /// sessions of one worker have different ones.
    pub process_id: u32,
    secret: [u8; LONG_SECRET],
    length: u8,
}

impl CancelKey {
    /// Makes a key for a client of a protocol before 3.2, with the first 4 bytes of `secret`; the
    /// others are never used. Both arguments are random. The top bit of `process_id` is cleared,
    /// and 0 becomes 1. The driver makes the key when the client has logged in.
    #[must_use]
    pub const fn short(process_id: u32, secret: [u8; LONG_SECRET]) -> Self {
        Self { process_id: like_postgresqls(process_id), secret, length: 4 }
    }

    /// Makes a key for a client of protocol 3.2 or later, with all 32 bytes of `secret`. Both
    /// arguments are random. The top bit of `process_id` is cleared, and 0 becomes 1. The driver
    /// makes the key when the client has logged in.
    #[must_use]
    pub const fn long(process_id: u32, secret: [u8; LONG_SECRET]) -> Self {
        let length = LONG_SECRET as u8;
        Self { process_id: like_postgresqls(process_id), secret, length }
    }

    /// Returns the secret as it is sent in BackendKeyData: 4 bytes for protocol 3.0, 32 bytes for
    /// 3.2.
    #[must_use]
    pub fn secret(&self) -> &[u8] {
        &self.secret[..usize::from(self.length)]
    }

    /// Whether `secret`, from a CancelRequest, is this key's. A secret of another length never is;
    /// two of one length are compared in constant time.
    #[must_use]
    pub fn matches(&self, secret: &[u8]) -> bool {
        let mine = self.secret();
        mine.len() == secret.len()
            && mine.iter().zip(secret).fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
    }
}

/// Makes a process id positive as a signed number of 32 bits, as programs expect it; 0 becomes 1.
const fn like_postgresqls(process_id: u32) -> u32 {
    match process_id & i32::MAX as u32 {
        0 => 1,
        positive => positive,
    }
}

impl std::fmt::Debug for CancelKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CancelKey({}, ***)", self.process_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_id_is_positive_and_otherwise_what_chance_has_made_it() {
        let id = |random| CancelKey::short(random, [5; LONG_SECRET]).process_id;
        assert_eq!(
            [0, 7, 0x7fff_ffff, u32::MAX, 1 << 31].map(id),
            [1, 7, 0x7fff_ffff, 0x7fff_ffff, 1]
        );
    }

    #[test]
    fn only_the_whole_secret_matches() {
        let key = CancelKey::short(1, [5; LONG_SECRET]);
        assert!(key.matches(&[5; 4]));
        assert!(!key.matches(&[5, 5, 5, 6]));
        assert!(!key.matches(&[5; LONG_SECRET]));
        let key = CancelKey::long(1, [5; LONG_SECRET]);
        assert!(key.matches(&[5; LONG_SECRET]));
        assert!(!key.matches(&[5; 4]));
        assert!(!format!("{key:?}").contains('5'));
    }
}
