//! How far a server's certificate is believed: libpq's three degrees.

use std::sync::Arc;

use pgimbal_config::Verification;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

/// Checks nothing, the chain, or chain and name. The handshake's own signature is always checked.
#[derive(Debug)]
pub(super) struct ServerVerifier {
    degree: Degree,
    provider: Arc<CryptoProvider>,
}

#[derive(Debug)]
enum Degree {
    Nothing,
    Chain(Roots),
    ChainAndName(Roots),
}

/// The CAs, and the certificates in the CA file as they are: a server's self-signed certificate
/// that the operator put there is trusted by being named, though it is no CA for itself.
#[derive(Debug)]
pub(super) struct Roots {
    webpki: Arc<WebPkiServerVerifier>,
    named: Vec<CertificateDer<'static>>,
}

impl Roots {
    pub(super) fn new(
        roots: RootCertStore,
        named: Vec<CertificateDer<'static>>,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, String> {
        let webpki =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
                .build()
                .map_err(|err| err.to_string())?;
        Ok(Self { webpki, named })
    }

    fn verify(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<(), Error> {
        match self.webpki.verify_server_cert(end_entity, intermediates, name, ocsp, now) {
            Err(_) if self.named.iter().any(|named| named == end_entity) => {
                rustls::client::verify_server_name(&ParsedCertificate::try_from(end_entity)?, name)
            }
            result => result.map(|_| ()),
        }
    }
}

impl ServerVerifier {
    pub(super) fn new(
        verification: Verification,
        roots: Option<Roots>,
        provider: Arc<CryptoProvider>,
    ) -> Self {
        let degree = match (verification, roots) {
            (Verification::None, _) | (_, None) => Degree::Nothing,
            (Verification::Chain, Some(roots)) => Degree::Chain(roots),
            (Verification::ChainAndName, Some(roots)) => Degree::ChainAndName(roots),
        };
        Self { degree, provider }
    }
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified = match &self.degree {
            Degree::Nothing => Ok(()),
            Degree::ChainAndName(roots) => roots.verify(end_entity, intermediates, name, ocsp, now),
            // The name is the last thing that is looked at: whoever fails there has a good chain.
            Degree::Chain(roots) => {
                match roots.verify(end_entity, intermediates, name, ocsp, now) {
                    Err(Error::InvalidCertificate(
                        CertificateError::NotValidForName
                        | CertificateError::NotValidForNameContext { .. },
                    )) => Ok(()),
                    result => result,
                }
            }
        };
        verified.map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
