//! Signatures of certificates and handshakes, of every kind of key that OpenSSL makes and rustls or
//! its cryptography can verify.
//!
//! The algorithms are those of rustls's provider. Two kinds are added, because libpq has them: keys
//! that are RSA-PSS by themselves, and (for a handshake alone) RSA keys below 2048 bits.

use aws_lc_rs::signature::{
    RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY, RSA_PKCS1_1024_8192_SHA512_FOR_LEGACY_USE_ONLY,
    RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512, RsaParameters,
    RsaPssSaltLength, UnparsedPublicKey,
};
use rsa::pkcs1::DecodeRsaPublicKey;
use rsa::sha2::{Sha256, Sha384, Sha512};
use rsa::signature::Verifier;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, SubjectPublicKeyInfoDer};
use rustls::{CertificateError, DigitallySignedStruct, Error, PeerMisbehaved, SignatureScheme};
use x509_parser::certificate::X509Certificate;
use x509_parser::oid_registry::{
    OID_NIST_HASH_SHA256, OID_NIST_HASH_SHA384, OID_NIST_HASH_SHA512, OID_PKCS1_RSAENCRYPTION,
    OID_PKCS1_RSASSAPSS,
};
use x509_parser::signature_algorithm::SignatureAlgorithm;
use x509_parser::x509::SubjectPublicKeyInfo;

use super::certificate::{SEQUENCE, algorithm_identifier, element};
use super::fault::CertificateFault;
use super::x509;

/// The schemes of TLS 1.3 for keys that are RSA-PSS by themselves, which rustls has no names for.
pub(super) const PSS_KEY_SHA256: SignatureScheme = SignatureScheme::Unknown(0x0809);
pub(super) const PSS_KEY_SHA384: SignatureScheme = SignatureScheme::Unknown(0x080a);
pub(super) const PSS_KEY_SHA512: SignatureScheme = SignatureScheme::Unknown(0x080b);

/// OpenSSL's default for RSA-PSS certificates: the longest salt that fits.
const PSS_SHA256_LONG: RsaParameters =
    RSA_PSS_2048_8192_SHA256.with_pss_salt_length(RsaPssSaltLength::Max);
const PSS_SHA384_LONG: RsaParameters =
    RSA_PSS_2048_8192_SHA384.with_pss_salt_length(RsaPssSaltLength::Max);
const PSS_SHA512_LONG: RsaParameters =
    RSA_PSS_2048_8192_SHA512.with_pss_salt_length(RsaPssSaltLength::Max);

/// Length in bits of the shortest RSA key that may sign a certificate: OpenSSL's security level 2.
pub(super) const SHORTEST_RSA: u32 = 2048;

/// Length in bits of the shortest RSA key that may sign a handshake of a server that is not
/// verified.
const SHORTEST_UNVERIFIED_RSA: u32 = 1024;

/// Every scheme that [`handshake`] verifies.
pub(super) fn schemes(algorithms: &WebPkiSupportedAlgorithms) -> Vec<SignatureScheme> {
    let mut schemes = algorithms.supported_schemes();
    schemes.extend([PSS_KEY_SHA256, PSS_KEY_SHA384, PSS_KEY_SHA512]);
    schemes
}

/// Length of an RSA key in bits; `None` for a key of another kind.
pub(super) fn rsa_bits(key: &SubjectPublicKeyInfo<'_>) -> Option<u32> {
    let kind = &key.algorithm.algorithm;
    (*kind == OID_PKCS1_RSAENCRYPTION || *kind == OID_PKCS1_RSASSAPSS)
        .then(|| RsaParameters::public_modulus_len(&key.subject_public_key.data).ok())?
}

/// Whether `certificate` was signed with `key`, the key of its issuer; `false` also for a kind of
/// signature that cannot be verified.
pub(super) fn signed_by(
    certificate: &X509Certificate<'_>,
    key: &SubjectPublicKeyInfo<'_>,
    algorithms: &WebPkiSupportedAlgorithms,
) -> bool {
    if certificate.signature_algorithm != certificate.tbs_certificate.signature {
        return false;
    }
    let (message, signature) =
        (certificate.tbs_certificate.as_ref(), &*certificate.signature_value.data);
    let key_bits = &*key.subject_public_key.data;
    if let Ok(SignatureAlgorithm::RSASSA_PSS(pss)) =
        SignatureAlgorithm::try_from(&certificate.signature_algorithm)
    {
        let hash = pss.hash_algorithm_oid();
        let parameters = if *hash == OID_NIST_HASH_SHA256 {
            [&RSA_PSS_2048_8192_SHA256, &const { PSS_SHA256_LONG }]
        } else if *hash == OID_NIST_HASH_SHA384 {
            [&RSA_PSS_2048_8192_SHA384, &const { PSS_SHA384_LONG }]
        } else if *hash == OID_NIST_HASH_SHA512 {
            [&RSA_PSS_2048_8192_SHA512, &const { PSS_SHA512_LONG }]
        } else {
            return false;
        };
        return rsa_bits(key).is_some()
            && parameters.into_iter().any(|parameters| {
                UnparsedPublicKey::new(parameters, key_bits).verify(message, signature).is_ok()
            });
    }
    let Some(used) = certificate_algorithm(certificate) else { return false };
    let Some(kind) = key_algorithm(key) else { return false };
    algorithms.all.iter().any(|algorithm| {
        *algorithm.signature_alg_id() == *used
            && *algorithm.public_key_alg_id() == *kind
            && algorithm.verify_signature(key_bits, message, signature).is_ok()
    })
}

/// The content of a certificate's signatureAlgorithm.
fn certificate_algorithm<'a>(certificate: &X509Certificate<'a>) -> Option<&'a [u8]> {
    algorithm_identifier(certificate.as_raw())
}

/// The content of the AlgorithmIdentifier of a key.
fn key_algorithm<'a>(key: &SubjectPublicKeyInfo<'a>) -> Option<&'a [u8]> {
    let (inside, _) = element(key.raw, SEQUENCE)?;
    element(inside, SEQUENCE).map(|(algorithm, _)| algorithm)
}

/// The TLS version of a handshake.
#[derive(Clone, Copy, Debug)]
pub(super) enum Tls {
    V12,
    V13,
}

/// Verifies the signature of a handshake. The certificate may be of any version: only its key is
/// looked at.
pub(super) fn handshake(
    tls: Tls,
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signed: &DigitallySignedStruct,
    algorithms: &WebPkiSupportedAlgorithms,
) -> Result<HandshakeSignatureValid, Error> {
    let certificate = x509::read(certificate).map_err(CertificateFault::into_server_error)?;
    let key = certificate.public_key();
    match tls {
        Tls::V12 => handshake_12(message, key, signed, algorithms),
        Tls::V13 => handshake_13(message, key, signed, algorithms),
    }
}

fn handshake_13(
    message: &[u8],
    key: &SubjectPublicKeyInfo<'_>,
    signed: &DigitallySignedStruct,
    algorithms: &WebPkiSupportedAlgorithms,
) -> Result<HandshakeSignatureValid, Error> {
    let bits = &*key.subject_public_key.data;
    let of_pss_key = key.algorithm.algorithm == OID_PKCS1_RSASSAPSS;
    let parameters = match (signed.scheme, of_pss_key) {
        (PSS_KEY_SHA256, true) => &RSA_PSS_2048_8192_SHA256,
        (PSS_KEY_SHA384, true) => &RSA_PSS_2048_8192_SHA384,
        (PSS_KEY_SHA512, true) => &RSA_PSS_2048_8192_SHA512,
        _ => {
            if is_short(key) {
                return short_pss(message, bits, signed);
            }
            let key = SubjectPublicKeyInfoDer::from(key.raw);
            return verify_tls13_signature_with_raw_key(message, &key, signed, algorithms);
        }
    };
    valid(UnparsedPublicKey::new(parameters, bits).verify(message, signed.signature()).is_ok())
}

fn handshake_12(
    message: &[u8],
    key: &SubjectPublicKeyInfo<'_>,
    signed: &DigitallySignedStruct,
    algorithms: &WebPkiSupportedAlgorithms,
) -> Result<HandshakeSignatureValid, Error> {
    let (bits, signature) = (&*key.subject_public_key.data, signed.signature());
    if is_short(key) {
        let parameters = match signed.scheme {
            SignatureScheme::RSA_PKCS1_SHA256 => &RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY,
            SignatureScheme::RSA_PKCS1_SHA512 => &RSA_PKCS1_1024_8192_SHA512_FOR_LEGACY_USE_ONLY,
            _ => return short_pss(message, bits, signed),
        };
        return valid(UnparsedPublicKey::new(parameters, bits).verify(message, signature).is_ok());
    }
    let offered = algorithms.mapping.iter().find(|(scheme, _)| *scheme == signed.scheme);
    let Some((_, candidates)) = offered else { return Err(not_offered()) };
    let kind = key_algorithm(key).unwrap_or_default();
    let fitting = candidates.iter().find(|algorithm| *algorithm.public_key_alg_id() == *kind);
    valid(fitting.is_some_and(|a| a.verify_signature(bits, message, signature).is_ok()))
}

/// An RSA key that rustls's own algorithms refuse to look at.
fn is_short(key: &SubjectPublicKeyInfo<'_>) -> bool {
    rsa_bits(key).is_some_and(|bits| bits < SHORTEST_RSA)
}

/// RSA-PSS with a key of 1024 to 2047 bits. Whether such a certificate is trusted is decided
/// elsewhere; this says who is at the other end as far as such a key can.
fn short_pss(
    message: &[u8],
    key: &[u8],
    signed: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, Error> {
    let is_long_enough =
        RsaParameters::public_modulus_len(key).is_ok_and(|bits| bits >= SHORTEST_UNVERIFIED_RSA);
    let parsed = rsa::RsaPublicKey::from_pkcs1_der(key).ok().filter(|_| is_long_enough);
    let signature = rsa::pss::Signature::try_from(signed.signature()).ok();
    let Some((key, signature)) = parsed.zip(signature) else { return valid(false) };
    let verified = match signed.scheme {
        SignatureScheme::RSA_PSS_SHA256 => {
            rsa::pss::VerifyingKey::<Sha256>::new(key).verify(message, &signature)
        }
        SignatureScheme::RSA_PSS_SHA384 => {
            rsa::pss::VerifyingKey::<Sha384>::new(key).verify(message, &signature)
        }
        SignatureScheme::RSA_PSS_SHA512 => {
            rsa::pss::VerifyingKey::<Sha512>::new(key).verify(message, &signature)
        }
        _ => return Err(not_offered()),
    };
    valid(verified.is_ok())
}

fn valid(is_valid: bool) -> Result<HandshakeSignatureValid, Error> {
    if is_valid {
        return Ok(HandshakeSignatureValid::assertion());
    }
    Err(Error::InvalidCertificate(CertificateError::BadSignature))
}

fn not_offered() -> Error {
    PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into()
}
