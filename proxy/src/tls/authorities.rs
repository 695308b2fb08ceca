//! Certificate authorities: whether a chain of certificates leads to a trusted one.
//!
//! webpki verifies the certificates that it can read. What OpenSSL, and so libpq, accepts beyond
//! that is verified here by the same rules: X.509 version 1 certificates, servers' certificates
//! that are marked as an authority, and RSA-PSS keys and signatures. Two rules of OpenSSL are added
//! that webpki lacks: a certificate in `ca_file` can expire too, and a certificate that is in
//! `ca_file` itself is trusted directly.

use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::{EndEntityCert, KeyUsage};
use x509_parser::certificate::X509Certificate;
use x509_parser::x509::X509Version;

use super::fault::CertificateFault;
use super::signature::{SHORTEST_RSA, rsa_bits, signed_by};
use super::x509::{self, Side, in_time, serves, signs, subject_name, understood};

/// Limit of the authorities between a certificate and one of `ca_file`: webpki's limit.
const LONGEST: usize = 6;

/// Limit of the signatures that are verified for one chain; a longer search is an attack.
const MOST_SIGNATURES: usize = 50;

/// The certificates of a `ca_file`.
#[derive(Debug)]
pub(super) struct Authorities {
    certificates: Vec<CertificateDer<'static>>,
    /// webpki's view of each.
    anchors: Vec<TrustAnchor<'static>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Authorities {
    /// Reads the certificates.
    ///
    /// # Errors
    /// The cause in words, when one is malformed.
    pub(super) fn new(
        certificates: Vec<CertificateDer<'static>>,
        algorithms: WebPkiSupportedAlgorithms,
    ) -> Result<Self, String> {
        let anchors = certificates
            .iter()
            .map(|certificate| {
                x509::read(certificate).map_err(|fault| fault.to_string())?;
                let anchor = webpki::anchor_from_trusted_cert(certificate);
                anchor.map(|anchor| anchor.to_owned()).map_err(|error| error.to_string())
            })
            .collect::<Result<_, String>>()?;
        Ok(Self { certificates, anchors, algorithms })
    }

    /// Verifies that `shown`, with the certificates `sent` along with it, is trusted at `now`: it
    /// is in `ca_file` itself, or signatures lead to one that is, over at most 6 authorities. Names
    /// are not looked at.
    ///
    /// # Errors
    /// [`CertificateFault`] of the certificate that stops the last way that was tried.
    pub(super) fn verify(
        &self,
        side: Side,
        shown: &CertificateDer<'_>,
        sent: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), CertificateFault> {
        let leaf = x509::read(shown)?;
        in_time(&leaf, now)?;
        long_enough(&leaf)?;
        if self.certificates.iter().any(|known| known == shown) {
            understood(&leaf)?;
            return serves(&leaf, side);
        }
        if self.webpki(side, shown, sent, now)? {
            return Ok(());
        }
        understood(&leaf)?;
        serves(&leaf, side)?;
        let known = self.read_all(&self.certificates);
        let sent = self.read_all(sent);
        let mut walk = Walk { known, sent, side, now, algorithms: &self.algorithms, signatures: 0 };
        walk.up(&leaf, 0)
    }

    /// Whether webpki finds a way to a certificate of ca_file. The time of that one is not its
    /// concern, but OpenSSL's.
    fn webpki(
        &self,
        side: Side,
        shown: &CertificateDer<'_>,
        sent: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<bool, CertificateFault> {
        let Ok(leaf) = EndEntityCert::try_from(shown) else { return Ok(false) };
        let usage = match side {
            Side::Server => KeyUsage::server_auth(),
            Side::Client => KeyUsage::client_auth(),
        };
        let algorithms = self.algorithms.all;
        let path = leaf.verify_for_usage(algorithms, &self.anchors, sent, now, usage, None, None);
        let Ok(path) = path else { return Ok(false) };
        let found = path.anchor();
        let same = |anchor: &TrustAnchor<'_>| {
            anchor.subject == found.subject
                && anchor.subject_public_key_info == found.subject_public_key_info
        };
        // One that was renewed may stand there twice.
        let mut verdict = Ok(());
        for (anchor, certificate) in self.anchors.iter().zip(&self.certificates) {
            if same(anchor) {
                verdict = in_time(&x509::read(certificate)?, now);
                if verdict.is_ok() {
                    break;
                }
            }
        }
        verdict.map(|()| true)
    }

    fn read_all<'a>(&self, ders: &'a [CertificateDer<'_>]) -> Vec<X509Certificate<'a>> {
        ders.iter().filter_map(|der| x509::read(der).ok()).collect()
    }
}

fn long_enough(certificate: &X509Certificate<'_>) -> Result<(), CertificateFault> {
    match rsa_bits(certificate.public_key()) {
        Some(bits) if bits < SHORTEST_RSA => {
            Err(CertificateFault::WeakKey { whose: subject_name(certificate.subject()), bits })
        }
        _ => Ok(()),
    }
}

/// The search for a way up.
struct Walk<'a> {
    known: Vec<X509Certificate<'a>>,
    sent: Vec<X509Certificate<'a>>,
    side: Side,
    now: UnixTime,
    algorithms: &'a WebPkiSupportedAlgorithms,
    signatures: usize,
}

impl<'a> Walk<'a> {
    /// Whether a chain of signatures leads from `child`, below which stand `below` authorities, to
    /// a certificate of ca_file.
    fn up(&mut self, child: &X509Certificate<'_>, below: usize) -> Result<(), CertificateFault> {
        let mut fault = self.no_issuer(child);
        for index in 0..self.known.len() {
            let issuer = self.known[index].clone();
            if self.issued(&issuer, child) {
                match self.anchor(&issuer, below) {
                    Ok(()) => return Ok(()),
                    Err(found) => fault = found,
                }
            }
        }
        for index in 0..self.sent.len() {
            let issuer = self.sent[index].clone();
            if below < LONGEST && self.issued(&issuer, child) {
                let mut verified = self.authority(&issuer, below);
                if verified.is_ok() {
                    verified = self.up(&issuer, below + 1);
                }
                match verified {
                    Ok(()) => return Ok(()),
                    Err(found) => fault = found,
                }
            }
        }
        Err(fault)
    }

    fn no_issuer(&self, child: &X509Certificate<'_>) -> CertificateFault {
        let (whose, issuer) = (subject_name(child.subject()), subject_name(child.issuer()));
        let named = |other: &X509Certificate<'_>| other.subject() == child.issuer();
        match self.known.iter().chain(&self.sent).any(named) {
            true => CertificateFault::NotSigned { whose, issuer },
            false => CertificateFault::UnknownIssuer { whose, issuer },
        }
    }

    fn issued(&mut self, issuer: &X509Certificate<'_>, child: &X509Certificate<'_>) -> bool {
        let named = issuer.subject().as_raw() == child.issuer().as_raw();
        if !named || self.signatures == MOST_SIGNATURES {
            return false;
        }
        self.signatures += 1;
        long_enough(issuer).is_ok() && signed_by(child, issuer.public_key(), self.algorithms)
    }

    /// A certificate of ca_file: of version 1, which has no extensions, it may sign if it has
    /// signed itself, as in OpenSSL.
    fn anchor(
        &self,
        certificate: &X509Certificate<'_>,
        below: usize,
    ) -> Result<(), CertificateFault> {
        let signed_itself = certificate.subject().as_raw() == certificate.issuer().as_raw();
        if certificate.version() == X509Version::V1 && signed_itself {
            return in_time(certificate, self.now);
        }
        self.authority(certificate, below)
    }

    fn authority(
        &self,
        certificate: &X509Certificate<'_>,
        below: usize,
    ) -> Result<(), CertificateFault> {
        in_time(certificate, self.now)?;
        understood(certificate)?;
        serves(certificate, self.side)?;
        signs(certificate, below)
    }
}
