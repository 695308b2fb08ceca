//! TLS towards clients.

use std::io;
use std::path::Path;
use std::sync::Arc;

use pgimbal_config::{ClientTls, SslMode};
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::server::{NoServerSessionStorage, ServerConnection};
use rustls::sign::SingleCertAndKey;
use rustls::{DistinguishedName, ServerConfig};
use tokio_rustls::server::TlsStream;

use super::authorities::Authorities;
use super::fault::describe_client_error;
use super::verify::ClientVerifier;
use super::{ALPN, TlsError, end_point, files, own, provider, x509};
use crate::transport::Socket;

/// TLS towards clients: the certificate that they are shown, and whether they must use TLS and show
/// a certificate of their own.
pub struct TlsAcceptor {
    rustls: tokio_rustls::TlsAcceptor,
    end_point: Option<Box<[u8]>>,
    required: bool,
}

impl TlsAcceptor {
    /// Reads the certificate, key and CAs of `client_tls`; `None` when its `sslmode` is `disable`,
    /// so that clients are offered no TLS. CAs are read, and clients asked for a certificate, only
    /// with `verify-ca` and `verify-full`. A file that changes later counts after a reload.
    ///
    /// # Errors
    /// [`TlsError`] when a file is missing, unreadable, or does not fit the others.
    pub fn new(config: &ClientTls) -> Result<Option<Self>, TlsError> {
        let mode = config.mode;
        if mode == SslMode::Disable {
            return Ok(None);
        }
        let missing = |key| move || TlsError::Missing { mode: name(mode), key };
        let cert_file = config.cert_file.as_ref().ok_or_else(missing("client_tls.cert_file"))?;
        let key_file = config.key_file.as_ref().ok_or_else(missing("client_tls.key_file"))?;
        let provider = provider();
        let own = own::certified(cert_file, key_file, &provider)?;
        let end_point = own.end_entity_cert().ok().and_then(end_point);
        let algorithms = provider.signature_verification_algorithms;
        let builder =
            ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let builder = if matches!(mode, SslMode::VerifyCa | SslMode::VerifyFull) {
            let ca_file = config.ca_file.as_ref().ok_or_else(missing("client_tls.ca_file"))?;
            builder.with_client_cert_verifier(Arc::new(client_verifier(ca_file, algorithms)?))
        } else {
            builder.with_no_client_auth()
        };
        let mut rustls = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(own)));
        rustls.alpn_protocols = vec![ALPN.to_vec()];
        // Nobody resumes a session with a database: tickets would be bytes for nothing.
        rustls.session_storage = Arc::new(NoServerSessionStorage {});
        rustls.send_tls13_tickets = 0;
        let required = matches!(mode, SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull);
        Ok(Some(Self { rustls: Arc::new(rustls).into(), end_point, required }))
    }

    /// Whether TCP clients without TLS are refused: `true` with `require`, `verify-ca` and
    /// `verify-full`, `false` with `allow` and `prefer`. Unix sockets never use TLS.
    #[must_use]
    pub const fn required(&self) -> bool {
        self.required
    }

    /// The channel binding data of SCRAM-SHA-256-PLUS, `tls-server-end-point` of RFC 5929: the hash
    /// of the certificate that clients are shown. `None` when its signature algorithm has no such
    /// hash (Ed25519, RSA-PSS): clients are then offered SCRAM-SHA-256 only.
    #[must_use]
    pub fn end_point(&self) -> Option<&[u8]> {
        self.end_point.as_deref()
    }

    /// Runs the handshake with a client, after the answer `S` to its SSLRequest or at once for
    /// direct TLS; `read` holds bytes of it that were read already, empty for none. Has no time
    /// limit.
    ///
    /// # Errors
    /// The socket's error, and [`io::ErrorKind::InvalidData`] when the client's bytes or
    /// certificate are refused.
    pub(crate) async fn accept(
        &self,
        socket: Socket,
        read: &[u8],
    ) -> io::Result<Box<TlsStream<Socket>>> {
        let mut fed = Ok(());
        let handshake = self.rustls.accept_with(socket, |tls| fed = feed(tls, read));
        fed?;
        handshake.await.map(Box::new).map_err(describe_client_error)
    }
}

impl std::fmt::Debug for TlsAcceptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsAcceptor").field("required", &self.required).finish_non_exhaustive()
    }
}

fn client_verifier(
    ca_file: &Path,
    algorithms: WebPkiSupportedAlgorithms,
) -> Result<ClientVerifier, TlsError> {
    let unusable = |cause| TlsError::Certificate { path: ca_file.to_owned(), cause };
    let certificates = files::authorities(ca_file)?;
    let hints = certificates
        .iter()
        .map(|der| x509::read(der).map(|c| DistinguishedName::from(c.subject().as_raw().to_vec())))
        .collect::<Result<_, _>>()
        .map_err(|fault| unusable(fault.to_string()))?;
    let authorities = Authorities::new(certificates, algorithms).map_err(unusable)?;
    Ok(ClientVerifier::new(authorities, hints, algorithms))
}

fn feed(tls: &mut ServerConnection, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        tls.read_tls(&mut bytes)?;
        tls.process_new_packets().map_err(|err| io::Error::new(io::ErrorKind::InvalidData, err))?;
    }
    Ok(())
}

pub(super) const fn name(mode: SslMode) -> &'static str {
    match mode {
        SslMode::Disable => "disable",
        SslMode::Allow => "allow",
        SslMode::Prefer => "prefer",
        SslMode::Require => "require",
        SslMode::VerifyCa => "verify-ca",
        SslMode::VerifyFull => "verify-full",
    }
}
