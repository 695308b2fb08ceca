//! Mutual TLS 1.3 between replicas: both sides show the key of the deployment, and nothing else is
//! accepted.

use std::sync::Arc;

use pgimbal_config::CredentialConfig;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{AlwaysResolvesClientRawPublicKeys, Resumption};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, ServerConfig,
    SignatureScheme,
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::key::{DeploymentKey, UnusableKey};

/// The protocol in ALPN; another version of it would have another name.
const ALPN: &[u8] = b"pgimbal-peers/1";

/// TLS of a replica in both directions.
#[derive(Clone)]
pub struct PeerTls {
    acceptor: TlsAcceptor,
    /// One for each key, that of `deployment_key` first.
    connectors: Arc<[(TlsConnector, ServerName<'static>)]>,
}

impl std::fmt::Debug for PeerTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PeerTls({} keys)", self.connectors.len())
    }
}

/// TLS with the peers cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum PeerTlsError {
    /// No key can be made.
    #[error(transparent)]
    Key(#[from] UnusableKey),
    /// There is no `deployment_key`; the checks of the configuration refuse that.
    #[error("peers need deployment_key")]
    NoKey,
    /// rustls refuses the settings.
    #[error("TLS for peers cannot be set up: {0}")]
    Setup(#[from] Error),
}

impl PeerTls {
    /// Makes TLS with the key of `deployment_key`, which is shown first, and that of
    /// `deployment_key_previous`, which is accepted too.
    ///
    /// # Errors
    /// [`PeerTlsError`] without a `deployment_key`, or when the library refuses.
    pub fn new(credentials: &CredentialConfig) -> Result<Self, PeerTlsError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let secrets = [&credentials.deployment_key, &credentials.deployment_key_previous];
        let keys: Vec<DeploymentKey> =
            secrets.into_iter().flatten().map(DeploymentKey::derive).collect::<Result<_, _>>()?;
        if credentials.deployment_key.is_none() {
            return Err(PeerTlsError::NoKey);
        }
        let verifier = Arc::new(Pinned {
            algorithms: provider.signature_verification_algorithms,
            keys: keys.clone(),
        });
        let connector = |key: &DeploymentKey| {
            let config = client(&provider, &verifier, key)?;
            Ok::<_, PeerTlsError>((TlsConnector::from(Arc::new(config)), key.server_name()?))
        };
        let connectors = keys.iter().map(connector).collect::<Result<_, _>>()?;
        let acceptor = Arc::new(server(&provider, verifier, keys)?).into();
        Ok(Self { acceptor, connectors })
    }

    /// For connections of other replicas to this one.
    pub(super) const fn acceptor(&self) -> &TlsAcceptor {
        &self.acceptor
    }

    /// For connections to other replicas, one for each key, to be tried in this order.
    pub(super) fn connectors(&self) -> &[(TlsConnector, ServerName<'static>)] {
        &self.connectors
    }
}

fn server(
    provider: &Arc<CryptoProvider>,
    verifier: Arc<Pinned>,
    keys: Vec<DeploymentKey>,
) -> Result<ServerConfig, Error> {
    let mut config = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(ByName(keys)));
    config.alpn_protocols = vec![ALPN.to_vec()];
    // Every connection proves the key anew, so that a key that was taken out counts no more.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

fn client(
    provider: &Arc<CryptoProvider>,
    verifier: &Arc<Pinned>,
    key: &DeploymentKey,
) -> Result<ClientConfig, Error> {
    let shown = AlwaysResolvesClientRawPublicKeys::new(Arc::clone(key.certified()));
    let mut config = ClientConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::clone(verifier) as Arc<dyn ServerCertVerifier>)
        .with_client_cert_resolver(Arc::new(shown));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// Chooses the key that the client has named, else the first.
#[derive(Debug)]
struct ByName(Vec<DeploymentKey>);

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let named = self.0.iter().find(|key| hello.server_name() == Some(key.name()));
        named.or(self.0.first()).map(|key| Arc::clone(key.certified()))
    }

    fn only_raw_public_keys(&self) -> bool {
        true
    }
}

/// Accepts who shows one of the deployment's keys and signs with it. There are no names and no
/// dates: the key is all.
#[derive(Debug)]
struct Pinned {
    algorithms: WebPkiSupportedAlgorithms,
    keys: Vec<DeploymentKey>,
}

impl Pinned {
    fn check(&self, shown: &[u8]) -> Result<(), Error> {
        // All are compared, so that the time does not tell which it was.
        match self.keys.iter().fold(false, |found, key| found | key.is(shown)) {
            true => Ok(()),
            false => Err(CertificateError::UnknownIssuer.into()),
        }
    }

    fn signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let key = SubjectPublicKeyInfoDer::from(shown.as_ref());
        verify_tls13_signature_with_raw_key(message, &key, signed, &self.algorithms)
    }
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(shown).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        // TLS 1.2 is not offered.
        verify_tls12_signature(message, shown, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signature(message, shown, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for Pinned {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        shown: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check(shown).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, shown, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signature(message, shown, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}
