//! The hash of a certificate that SCRAM's channel binding uses (RFC 5929, section 4.1).
//!
//! Only the signature algorithm must be found, so the outer layer of DER is walked and nothing
//! else of the certificate is verified.

use rustls::pki_types::CertificateDer;
use sha2::{Digest, Sha256, Sha384, Sha512};

pub(super) const SEQUENCE: u8 = 0x30;
const OBJECT_IDENTIFIER: u8 = 0x06;

/// Hashes a certificate.
type HashOf = fn(&[u8]) -> Box<[u8]>;

/// Object identifiers of signature algorithms, without tag and length, and the hash to bind with.
/// MD5 and SHA-1 count as SHA-256. Algorithms with no single hash (Ed25519, RSA-PSS, whose hash
/// PostgreSQL looks up only since 16) have no binding.
const SIGNATURES: &[(&[u8], HashOf)] = &[
    // 1.2.840.113549.1.1.*: RSA with MD5, SHA-1, SHA-256, SHA-384, SHA-512.
    (b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x04", hash::<Sha256>),
    (b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x05", hash::<Sha256>),
    (b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0b", hash::<Sha256>),
    (b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0c", hash::<Sha384>),
    (b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0d", hash::<Sha512>),
    // 1.2.840.10045.4.*: ECDSA with SHA-1, SHA-256, SHA-384, SHA-512.
    (b"\x2a\x86\x48\xce\x3d\x04\x01", hash::<Sha256>),
    (b"\x2a\x86\x48\xce\x3d\x04\x03\x02", hash::<Sha256>),
    (b"\x2a\x86\x48\xce\x3d\x04\x03\x03", hash::<Sha384>),
    (b"\x2a\x86\x48\xce\x3d\x04\x03\x04", hash::<Sha512>),
];

/// The `tls-server-end-point` of a server's certificate, to which SCRAM is bound: its hash with the
/// hash function of its signature, 32 to 64 bytes (SHA-256 for MD5 and SHA-1). `None` when the
/// signature algorithm has no hash of its own (Ed25519, RSA-PSS) or the certificate is malformed;
/// there is no channel binding then.
pub(crate) fn end_point(certificate: &CertificateDer<'_>) -> Option<Box<[u8]>> {
    let algorithm = signature_algorithm(certificate)?;
    let (_, hash) = SIGNATURES.iter().find(|(id, _)| *id == algorithm)?;
    Some(hash(certificate))
}

/// Certificate ::= SEQUENCE { tbsCertificate SEQUENCE, signatureAlgorithm SEQUENCE { OID … } … }
pub(super) fn algorithm_identifier(certificate: &[u8]) -> Option<&[u8]> {
    let (outer, _) = element(certificate, SEQUENCE)?;
    let (_, after_tbs) = element(outer, SEQUENCE)?;
    element(after_tbs, SEQUENCE).map(|(algorithm, _)| algorithm)
}

fn signature_algorithm(certificate: &[u8]) -> Option<&[u8]> {
    element(algorithm_identifier(certificate)?, OBJECT_IDENTIFIER).map(|(id, _)| id)
}

/// The content of the DER element at the front of `der`, and what follows it; `None` when it has
/// another tag than `tag` or is cut short.
pub(super) fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let [first, length, rest @ ..] = der else { return None };
    if *first != tag {
        return None;
    }
    let (length, rest) = match length {
        0..=0x7f => (usize::from(*length), rest),
        // Certificates are shorter than 2^32 bytes.
        0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(usize::from(length & 0x7f))?;
            (digits.iter().fold(0, |sum, digit| sum << 8 | usize::from(*digit)), rest)
        }
        _ => return None,
    };
    rest.split_at_checked(length)
}

fn hash<D: Digest>(data: &[u8]) -> Box<[u8]> {
    D::digest(data).to_vec().into()
}

#[cfg(test)]
mod tests {
    use pgimbal_tests::certificates::Certificates;
    use rustls::pki_types::pem::PemObject;

    use super::*;

    #[test]
    fn the_hash_follows_the_signature_algorithm() {
        let pem = Certificates::new().chain;
        let made = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
        assert_eq!(*end_point(&made).unwrap(), *Sha256::digest(&made));
        // The same certificate, were it signed with SHA-384 or with Ed25519.
        let sha256 = b"\x2a\x86\x48\xce\x3d\x04\x03\x02";
        let other = |id: &[u8; 8]| {
            let mut der = made.to_vec();
            let outside = signature_algorithm(&made).unwrap().as_ptr() as usize;
            let at = outside - made.as_ptr() as usize;
            assert_eq!(der[at..at + 8], *sha256);
            der[at..at + 8].copy_from_slice(id);
            CertificateDer::from(der)
        };
        let sha384 = other(b"\x2a\x86\x48\xce\x3d\x04\x03\x03");
        assert_eq!(*end_point(&sha384).unwrap(), *Sha384::digest(&sha384));
        assert_eq!(end_point(&other(b"\x2b\x65\x70\0\0\0\0\0")), None);
    }

    #[test]
    fn a_certificate_cut_short_has_no_hash() {
        let pem = Certificates::new().chain;
        let whole = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
        for length in 0..whole.len() {
            assert_eq!(end_point(&CertificateDer::from(&whole[..length])), None);
        }
    }
}
