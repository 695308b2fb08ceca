//! pgimbal's own certificates, with their keys.

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs1KeyDer, SubjectPublicKeyInfoDer};
use rustls::sign::{CertifiedKey, Signer, SigningKey};
use rustls::{Error, SignatureAlgorithm, SignatureScheme};
use x509_parser::oid_registry::OID_PKCS1_RSASSAPSS;

use super::certificate::{SEQUENCE, element};
use super::signature::{PSS_KEY_SHA256, SHORTEST_RSA, rsa_bits};
use super::{TlsError, files, x509};

/// DER's tags in a PKCS #8 key.
const INTEGER: u8 = 0x02;
const OCTET_STRING: u8 = 0x04;

/// Reads pgimbal's certificate chain and its key; a certificate of any X.509 version may stand in
/// front.
///
/// # Errors
/// [`TlsError`] when a file cannot be read, the key is of an unknown kind, an RSA key is shorter
/// than 2048 bits, or the key is not the certificate's.
pub(super) fn certified(
    cert_file: &Path,
    key_file: &Path,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, TlsError> {
    let unusable = |path: &Path, cause: String| TlsError::Certificate { path: path.into(), cause };
    let chain = files::certificates(cert_file)?;
    let certificate =
        x509::read(&chain[0]).map_err(|fault| unusable(cert_file, fault.to_string()))?;
    let public = certificate.public_key();
    if let Some(bits) = rsa_bits(public).filter(|bits| *bits < SHORTEST_RSA) {
        let cause = format!(
            "its RSA key has {bits} bits, with which pgimbal cannot sign; PostgreSQL on Debian \
             refuses it too: make one of {SHORTEST_RSA} bits or more"
        );
        return Err(unusable(cert_file, cause));
    }
    let key = files::private_key(key_file)?;
    let load = |key| {
        provider.key_provider.load_private_key(key).map_err(|_| {
            let cause = "the key is of a kind that pgimbal cannot sign with: make one with RSA \
                         (2048 bits or more), EC (P-256, P-384, P-521) or Ed25519";
            unusable(key_file, cause.to_owned())
        })
    };
    let is_pss = public.algorithm.algorithm == OID_PKCS1_RSASSAPSS;
    let (key, shown): (Arc<dyn SigningKey>, &[u8]) = match is_pss {
        true => (Arc::new(PssKey(load(unwrapped(key))?)), &public.subject_public_key.data),
        false => (load(key)?, public.raw),
    };
    // Of an RSA-PSS key only what is inside is the same: outside stands another kind of key.
    let fits = key.public_key().is_none_or(|spki| spki.as_ref().ends_with(shown));
    if !fits {
        let cause = format!("the key in {} is not this certificate's", key_file.display());
        return Err(unusable(cert_file, cause));
    }
    Ok(CertifiedKey::new(chain, key))
}

/// The RSA key inside a PKCS #8 key; what is no such key stays as it is.
fn unwrapped(key: PrivateKeyDer<'static>) -> PrivateKeyDer<'static> {
    let inside = || {
        let (whole, _) = element(key.secret_der(), SEQUENCE)?;
        let (_, after_version) = element(whole, INTEGER)?;
        let (_, after_algorithm) = element(after_version, SEQUENCE)?;
        element(after_algorithm, OCTET_STRING).map(|(inside, _)| inside.to_vec())
    };
    match inside() {
        Some(inside) => PrivatePkcs1KeyDer::from(inside).into(),
        None => key,
    }
}

/// A key that is RSA-PSS by itself. rustls has no name for its scheme and drops it from what the
/// other side offers, so that is not asked: no other scheme fits the certificate, and who cannot
/// read it ends the handshake.
#[derive(Debug)]
struct PssKey(Arc<dyn SigningKey>);

impl SigningKey for PssKey {
    fn choose_scheme(&self, _offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        let signer = self.0.choose_scheme(&[SignatureScheme::RSA_PSS_SHA256])?;
        Some(Box::new(PssSigner(signer)))
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        self.0.public_key()
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::RSA
    }
}

#[derive(Debug)]
struct PssSigner(Box<dyn Signer>);

impl Signer for PssSigner {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        self.0.sign(message)
    }

    fn scheme(&self) -> SignatureScheme {
        PSS_KEY_SHA256
    }
}
