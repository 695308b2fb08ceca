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
    /// The process id that the client is told: random, from 1 to 2^31 - 1, and of no process.
    /// Several sessions may have one.
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

    /// The same key with the peer id of this replica in it, so that another replica knows where
    /// the session is; `None` for a replica that has no id yet. The layout is PgBouncer's, of the 8
    /// bytes of process id and secret: bytes 1 and 2 are the peer id, little-endian, and the low 2
    /// bits of byte 7 a hop count, which PgBouncer hands out as 3. The sign bit of byte 0 is clear.
    /// The other 45 bits stay random; a key of 3.2 has 224 more.
    #[must_use]
    pub const fn with_peer(mut self, peer: Option<PeerId>) -> Self {
        let [low, high] = match peer {
            Some(peer) => peer.0.to_le_bytes(),
            None => [0; 2],
        };
        let [first, _, _, last] = self.process_id.to_be_bytes();
        self.process_id = like_postgresqls(u32::from_be_bytes([first, low, high, last]));
        self.secret[3] |= HOPS;
        self
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

/// The low bits of byte 7 of a key.
const HOPS: u8 = 0b11;

/// The number of a replica in the cancel keys that it hands out, 1 to 16,383.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(u16);

impl PeerId {
    /// The greatest one: PgBouncer's limit of 14 bits.
    pub const GREATEST: u16 = (1 << 14) - 1;

    /// The peer id with this number; `None` for 0 and for numbers above [`Self::GREATEST`].
    #[must_use]
    pub const fn new(number: u16) -> Option<Self> {
        match number {
            1..=Self::GREATEST => Some(Self(number)),
            _ => None,
        }
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }
}

/// What a cancel key says of the replica that handed it out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyOwner {
    /// The replica with this peer id.
    Peer(PeerId),
    /// A replica that had no peer id then.
    Unknown,
    /// No replica: this is no key of [`CancelKey::with_peer`].
    Nobody,
}

impl KeyOwner {
    /// The owner of the key with this process id and secret, as a CancelRequest has them.
    #[must_use]
    pub fn of(process_id: u32, secret: &[u8]) -> Self {
        let [first, low, high, _] = process_id.to_be_bytes();
        let has_hops = secret.get(3).is_some_and(|last| last & HOPS == HOPS);
        match (first < 1 << 7, u16::from_le_bytes([low, high])) {
            (true, 0) if has_hops => Self::Unknown,
            (true, number) if has_hops => PeerId::new(number).map_or(Self::Nobody, Self::Peer),
            _ => Self::Nobody,
        }
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
    fn a_key_with_a_peer_id_has_pgbouncers_layout() {
        let bytes = |key: &CancelKey| [&key.process_id.to_be_bytes()[..], key.secret()].concat();
        let mut random = 0x9e37_79b9_u32;
        let mut keys = Vec::new();
        for number in [1, 2, 255, 256, 0x1234, PeerId::GREATEST] {
            random = random.wrapping_mul(747_796_405).wrapping_add(1);
            let mut secret = [0; LONG_SECRET];
            secret[..4].copy_from_slice(&random.to_le_bytes());
            for key in [CancelKey::short(random, secret), CancelKey::long(random, secret)] {
                let plain = bytes(&key);
                let key = key.with_peer(PeerId::new(number));
                let with = bytes(&key);
                assert_eq!((with[0] & 0x80, with[7] & 3), (0, 3));
                assert_eq!(u16::from_le_bytes([with[1], with[2]]), number);
                // All else is as chance has made it.
                assert_eq!((with[0], with[3], &with[4..7]), (plain[0], plain[3], &plain[4..7]));
                assert_eq!((with[7] >> 2, &with[8..]), (plain[7] >> 2, &plain[8..]));
                let owner = KeyOwner::of(key.process_id, key.secret());
                assert_eq!(Some(owner), PeerId::new(number).map(KeyOwner::Peer));
                keys.push(with);
            }
        }
        let without = CancelKey::short(random, [9; LONG_SECRET]).with_peer(None);
        assert_eq!(KeyOwner::of(without.process_id, without.secret()), KeyOwner::Unknown);
        assert_eq!(KeyOwner::of(1 << 31, &[3; 4]), KeyOwner::Nobody, "the sign bit");
        assert_eq!(KeyOwner::of(0, &[0; 4]), KeyOwner::Nobody, "no hops");
        assert_eq!(KeyOwner::of(0x00ff_ff00, &[3; 4]), KeyOwner::Nobody, "above 16383");
        assert_eq!(KeyOwner::of(0, &[]), KeyOwner::Nobody);
        assert!([0, PeerId::GREATEST + 1].iter().all(|number| PeerId::new(*number).is_none()));
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), 12);
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
