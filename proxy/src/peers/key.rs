//! The key of a deployment, by which replicas know each other.
//!
//! Every replica derives the same Ed25519 key from `deployment_key` and shows it as a raw public key
//! (RFC 7250), so that there is no certificate to read. Whoever connects learns the public key and
//! can try deployment keys against it, which is why the checks refuse short ones.

use std::fmt::Write;
use std::sync::Arc;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest;
use pgimbal_auth::deployment::peer_seed;
use pgimbal_config::Secret;
use rustls::crypto::aws_lc_rs::sign::any_eddsa_type;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName};
use rustls::sign::CertifiedKey;
use zeroize::Zeroizing;

/// Bytes of the seed of an Ed25519 key (RFC 8032).
const SEED: usize = 32;
/// What stands before the seed in PKCS #8 (RFC 8410, section 7).
const PKCS8: [u8; 16] = *b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20";
/// Bytes of the hash by which a client says which key it means.
const NAME_BYTES: usize = 16;

/// The key that a deployment's replicas derive from one `deployment_key`. `Debug` shows the name
/// alone.
#[derive(Clone)]
pub struct DeploymentKey {
    certified: Arc<CertifiedKey>,
    public: CertificateDer<'static>,
    name: String,
}

/// The deployment key cannot be made into a key of TLS; no text that passes the checks causes this.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no key for peers can be made from deployment_key")]
pub struct UnusableKey;

impl DeploymentKey {
    /// Derives the key, whose seed is [`peer_seed`] of the text.
    ///
    /// # Errors
    /// [`UnusableKey`] when the library refuses.
    pub fn derive(secret: &Secret) -> Result<Self, UnusableKey> {
        let mut pkcs8 = Zeroizing::new([0; PKCS8.len() + SEED]);
        let (head, seed) = pkcs8.split_at_mut(PKCS8.len());
        head.copy_from_slice(&PKCS8);
        seed.copy_from_slice(&*peer_seed(secret));
        // The library reads it in place: no copy stays in memory.
        let signs = any_eddsa_type(&PrivatePkcs8KeyDer::from(&pkcs8[..]));
        let signs = signs.map_err(|_| UnusableKey)?;
        let public = signs.public_key().ok_or(UnusableKey)?.to_vec();
        let hash = digest::digest(&digest::SHA256, &public);
        let mut name = "k".to_owned();
        for byte in hash.as_ref().iter().take(NAME_BYTES) {
            // Writing to a String cannot fail.
            let _ = write!(name, "{byte:02x}");
        }
        name.push_str(".peers.pgimbal");
        let public = CertificateDer::from(public);
        let certified = Arc::new(CertifiedKey::new(vec![public.clone()], signs));
        Ok(Self { certified, public, name })
    }

    /// The key with its proof, as TLS shows it.
    pub(super) const fn certified(&self) -> &Arc<CertifiedKey> {
        &self.certified
    }

    /// Whether `shown`, the SubjectPublicKeyInfo of the other side, is this key's; compared in
    /// constant time.
    pub(super) fn is(&self, shown: &[u8]) -> bool {
        verify_slices_are_equal(&self.public, shown).is_ok()
    }

    /// The server name by which a client says which key it means, made from a hash of the public
    /// key: while a deployment changes its key, a server has two.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The same for a client of TLS.
    pub(super) fn server_name(&self) -> Result<ServerName<'static>, UnusableKey> {
        ServerName::try_from(self.name.clone()).map_err(|_| UnusableKey)
    }
}

impl std::fmt::Debug for DeploymentKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DeploymentKey({})", self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_text_gives_one_key_and_another_text_another() {
        let key = |text: &str| DeploymentKey::derive(&Secret::from(text)).unwrap();
        let (a, again, b) = (key("a"), key("a"), key("b"));
        assert!(a.is(&again.public) && !a.is(&b.public) && !a.is(b""));
        assert_eq!((a.name(), a.server_name().is_ok()), (again.name(), true));
        assert_ne!(a.name(), b.name());
    }
}
