//! TLS towards servers.

use std::io;
use std::sync::Arc;

use pgimbal_config::{ServerTls, SslMode, Verification};
use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use rustls::sign::SingleCertAndKey;
use tokio_rustls::client::TlsStream;

use super::authorities::Authorities;
use super::fallbacks::TlsFallbacks;
use super::fault::describe_server_error;
use super::verify::ServerVerifier;
use super::{ALPN, TlsError, acceptor, files, own, provider};
use crate::transport::Socket;

/// The cause under which a server is remembered at which TLS was not tried.
const UNTRIED: &str = "untried";

/// The warning about a server that offers TLS, which sslmode `allow` does not try.
pub(crate) const PLAIN_FIRST: &str = "offers TLS, and sslmode \"allow\" goes there in plain text without trying \
     it: say sslmode = \"prefer\" or more, or \"disable\" if it is meant";

/// TLS towards servers: when it is used, the certificate that servers are shown, and how theirs are
/// verified. Clones share the list of warnings that were logged.
#[derive(Clone)]
pub struct TlsConnector {
    rustls: tokio_rustls::TlsConnector,
    mode: TlsMode,
    verifies: bool,
    fallbacks: Arc<TlsFallbacks>,
}

/// When TLS is used towards a server: libpq's `sslmode` and `sslnegotiation`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsMode {
    /// `disable`: TLS is never used.
    Never,
    /// `allow`: TLS is used only when the server refuses a plain connection.
    Allow,
    /// `prefer`: plain text is used only when the server has no TLS, or refuses it.
    Preferred,
    /// `require`, `verify-ca` or `verify-full`: TLS is always used, after an SSLRequest.
    Required,
    /// TLS is always used from the first byte (`sslnegotiation = "direct"`, PostgreSQL 17).
    Direct,
}

impl TlsConnector {
    /// Reads the CAs, certificate and key of `server_tls`; the CAs only when servers are verified.
    /// Without a certificate servers are shown none. A file that changes later counts after a
    /// reload.
    ///
    /// # Errors
    /// [`TlsError`] when a file is missing, unreadable, or does not fit the others, and when only
    /// one of `cert_file` and `key_file` is set.
    pub fn new(config: &ServerTls) -> Result<Self, TlsError> {
        let mode = match config.mode {
            SslMode::Disable => TlsMode::Never,
            SslMode::Allow => TlsMode::Allow,
            SslMode::Prefer => TlsMode::Preferred,
            _ if config.direct => TlsMode::Direct,
            _ => TlsMode::Required,
        };
        let provider = provider();
        let algorithms = provider.signature_verification_algorithms;
        let verifier = ServerVerifier::new(config.verification(), authorities(config)?, algorithms);
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut rustls = match (&config.cert_file, &config.key_file) {
            (Some(cert_file), Some(key_file)) => {
                let own = own::certified(cert_file, key_file, &provider)?;
                builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(own)))
            }
            (None, None) => builder.with_no_client_auth(),
            (Some(_), None) => return Err(missing(config, "server_tls.key_file")),
            (None, Some(_)) => return Err(missing(config, "server_tls.cert_file")),
        };
        rustls.resumption = Resumption::disabled();
        rustls.alpn_protocols = vec![ALPN.to_vec()];
        let verifies = config.verification() != Verification::None;
        Ok(Self { rustls: Arc::new(rustls).into(), mode, verifies, fallbacks: Arc::default() })
    }

    /// Whether a server's certificate is verified, at least as far as `verify-ca` goes (also
    /// `require` with a `ca_file`, as in libpq). Only then may a password go there in clear text,
    /// unless `require_auth` names that method.
    #[must_use]
    pub const fn verifies(&self) -> bool {
        self.verifies
    }

    /// Logs that a connection to `server` (`host:port`) continues without TLS although the server
    /// offers it; once for each server and cause until a reload, and for at most 256 such pairs.
    pub(crate) fn warn_fallback(&self, server: &str, cause: &str) {
        if self.fallbacks.is_new(server, cause) {
            tracing::warn!(
                "server {server} offers TLS, and it is given up for plain text, as sslmode \"prefer\" \
                 allows: {cause}; mend that, or say sslmode = \"disable\" if it is meant"
            );
        }
    }

    /// Whether `server` (`host:port`), which accepted plain text before TLS was tried, must still
    /// be asked if it offers TLS. It counts as asked from now on, so that the next call returns
    /// false; so does every call in a mode other than `allow`.
    pub(crate) fn asks_of_untried(&self, server: &str) -> bool {
        self.mode == TlsMode::Allow && self.fallbacks.is_new(server, UNTRIED)
    }

    /// Notes that `server` (`host:port`) did not answer whether it offers TLS, so that
    /// [`Self::asks_of_untried`] says `true` for it again.
    pub(crate) fn forget_untried(&self, server: &str) {
        self.fallbacks.forget(server, UNTRIED);
    }

    /// The mode that follows from `sslmode` and `sslnegotiation`.
    #[must_use]
    pub const fn mode(&self) -> TlsMode {
        self.mode
    }

    /// Runs the handshake with the server; `host` is the name or address that its certificate must
    /// bear under `verify-full`.
    ///
    /// # Errors
    /// The socket's error; [`io::ErrorKind::InvalidData`] when the server's certificate or TLS is
    /// refused, and [`io::ErrorKind::InvalidInput`] when `host` is no valid name.
    pub(crate) async fn connect(
        &self,
        host: &str,
        socket: Socket,
    ) -> io::Result<Box<TlsStream<Socket>>> {
        let name = ServerName::try_from(host.to_owned())
            .map_err(|err| io::Error::new(io::ErrorKind::InvalidInput, err))?;
        let tls = self.rustls.connect(name, socket).await.map_err(describe_server_error)?;
        let spoken = tls.get_ref().1.alpn_protocol();
        if self.mode == TlsMode::Direct && spoken != Some(ALPN) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "direct TLS needs ALPN \"postgresql\", which the server did not agree to",
            ));
        }
        Ok(Box::new(tls))
    }
}

impl std::fmt::Debug for TlsConnector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsConnector").field("mode", &self.mode).finish_non_exhaustive()
    }
}

fn authorities(config: &ServerTls) -> Result<Option<Authorities>, TlsError> {
    if config.verification() == Verification::None {
        return Ok(None);
    }
    let path = config.ca_file.as_ref().ok_or_else(|| missing(config, "server_tls.ca_file"))?;
    let algorithms = provider().signature_verification_algorithms;
    let authorities = Authorities::new(files::authorities(path)?, algorithms)
        .map_err(|cause| TlsError::Certificate { path: path.clone(), cause })?;
    Ok(Some(authorities))
}

fn missing(config: &ServerTls, key: &'static str) -> TlsError {
    TlsError::Missing { mode: acceptor::name(config.mode), key }
}
