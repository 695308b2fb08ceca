//! What replicas derive from the option `deployment_key`, beside the salts of users.

use hkdf::Hkdf;
use pgimbal_config::Secret;
use sha2::Sha256;
use zeroize::Zeroizing;

/// The salt of HKDF (RFC 5869), which is public.
const SALT: &[u8] = b"pgimbal";
/// What the seed is for, HKDF's `info`. Another protocol between replicas would have another one.
const PEERS: &[u8] = b"peers: Ed25519, 1";

/// The seed of the Ed25519 key (RFC 8032) by which replicas know each other: the first 32 bytes of
/// HKDF-SHA256 of the key's text. The checks of the configuration refuse a text that could be
/// guessed.
#[must_use]
pub fn peer_seed(deployment_key: &Secret) -> Zeroizing<[u8; 32]> {
    let mut seed = Zeroizing::new([0; 32]);
    let hkdf = Hkdf::<Sha256>::new(Some(SALT), deployment_key.expose().as_bytes());
    // It fails only beyond 8,160 bytes.
    let _ = hkdf.expand(PEERS, &mut *seed);
    seed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seed_is_what_rfc_5869_makes_of_the_text() {
        let seed = peer_seed(&Secret::from("0f1e2d3c4b5a69788796a5b4c3d2e1f0"));
        // Made with Python's hmac.
        let hex: String = seed.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "c4c8d49e7e78e66e6f42374ac3dc5cae994beae1a987466e2aecb4b5c988172e");
        assert_ne!(*seed, *peer_seed(&Secret::from("0f1e2d3c4b5a69788796a5b4c3d2e1f1")));
    }
}
