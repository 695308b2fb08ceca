//! The verification of peers' certificates: of a server's in libpq's three degrees, and of a
//! client's against `ca_file`.

use std::net::IpAddr;

use pgimbal_config::Verification;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};

use super::authorities::Authorities;
use super::fault::CertificateFault;
use super::signature::Tls;
use super::x509::Side;
use super::{name, signature, x509};

/// The verification of handshake signatures, which servers and clients have in common, and rustls
/// in two traits.
macro_rules! handshake_signatures {
    () => {
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signed: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            signature::handshake(Tls::V12, message, certificate, signed, &self.algorithms)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signed: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            signature::handshake(Tls::V13, message, certificate, signed, &self.algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            signature::schemes(&self.algorithms)
        }
    };
}

/// Checks nothing, the chain, or chain and name. The handshake's own signature is always checked.
#[derive(Debug)]
pub(super) struct ServerVerifier {
    degree: Degree,
    algorithms: WebPkiSupportedAlgorithms,
}

#[derive(Debug)]
enum Degree {
    Nothing,
    Chain(Authorities),
    ChainAndName(Authorities),
}

impl ServerVerifier {
    pub(super) fn new(
        verification: Verification,
        authorities: Option<Authorities>,
        algorithms: WebPkiSupportedAlgorithms,
    ) -> Self {
        let degree = match (verification, authorities) {
            (Verification::None, _) | (_, None) => Degree::Nothing,
            (Verification::Chain, Some(authorities)) => Degree::Chain(authorities),
            (Verification::ChainAndName, Some(authorities)) => Degree::ChainAndName(authorities),
        };
        Self { degree, algorithms }
    }

    fn verify(
        &self,
        shown: &CertificateDer<'_>,
        sent: &[CertificateDer<'_>],
        host: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), CertificateFault> {
        match &self.degree {
            Degree::Nothing => Ok(()),
            Degree::Chain(authorities) => authorities.verify(Side::Server, shown, sent, now),
            Degree::ChainAndName(authorities) => {
                authorities.verify(Side::Server, shown, sent, now)?;
                name::bears(&x509::read(shown)?, &text(host))
            }
        }
    }
}

fn text(host: &ServerName<'_>) -> String {
    match host {
        ServerName::IpAddress(address) => IpAddr::from(*address).to_string(),
        other => other.to_str().into_owned(),
    }
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified = self.verify(end_entity, intermediates, name, now);
        verified
            .map(|()| ServerCertVerified::assertion())
            .map_err(CertificateFault::into_server_error)
    }

    handshake_signatures!();
}

/// Asks each client for a certificate that ca_file has signed.
#[derive(Debug)]
pub(super) struct ClientVerifier {
    authorities: Authorities,
    /// The authorities that are named to clients, for their choice among several certificates.
    hints: Vec<DistinguishedName>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ClientVerifier {
    pub(super) fn new(
        authorities: Authorities,
        hints: Vec<DistinguishedName>,
        algorithms: WebPkiSupportedAlgorithms,
    ) -> Self {
        Self { authorities, hints, algorithms }
    }
}

impl ClientCertVerifier for ClientVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.authorities.verify(Side::Client, end_entity, intermediates, now);
        verified.map(|()| ClientCertVerified::assertion()).map_err(|fault| {
            tracing::debug!("a client's certificate is refused: {fault}");
            fault.alert()
        })
    }

    handshake_signatures!();
}
