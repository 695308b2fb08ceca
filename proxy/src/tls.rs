//! TLS towards clients and servers, with libpq's meaning of `sslmode`.
//!
//! This module owns what is offered, demanded and verified. Each value is built once from the
//! configuration and its files; a reload builds a new one and replaces the `Arc` around it.

mod acceptor;
mod authorities;
mod certificate;
mod connector;
mod fallbacks;
mod fault;
mod files;
mod name;
mod own;
mod signature;
mod validity;
mod verify;
mod x509;

use std::path::PathBuf;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use thiserror::Error;

pub use acceptor::TlsAcceptor;
pub use connector::{TlsConnector, TlsMode};
pub use validity::OwnCertificate;

pub(crate) use certificate::end_point;
pub(crate) use connector::PLAIN_FIRST;

/// PostgreSQL's protocol name in ALPN (RFC 7301), which direct TLS needs.
pub(crate) const ALPN: &[u8] = b"postgresql";

/// TLS options or files that cannot be used.
#[derive(Debug, Error)]
pub enum TlsError {
    /// An option is missing that the mode needs.
    #[error("sslmode {mode} needs {key}")]
    Missing {
        /// The value of `sslmode`, for example `verify-full`.
        mode: &'static str,
        /// The missing option's key with its table, for example `client_tls.ca_file`.
        key: &'static str,
    },
    /// A file cannot be read, is not PEM, or holds no certificate or key.
    #[error("cannot read {}: {cause}", path.display())]
    File {
        /// The file's path.
        path: PathBuf,
        /// The operating system's or PEM reader's reason.
        cause: String,
    },
    /// A private key is readable for others; PostgreSQL's rule for its own key.
    #[error(
        "private key {} has mode {mode:04o}: it must have 0600 or less, or 0640 or less when root \
         owns it; chmod it", path.display()
    )]
    KeyMode {
        /// The file's path.
        path: PathBuf,
        /// The file's permission bits, to be shown in octal.
        mode: u32,
    },
    /// A certificate, key or CA cannot be used, or two of them do not fit together.
    #[error("TLS with {}: {cause}", path.display())]
    Certificate {
        /// Path of the file that is at fault.
        path: PathBuf,
        /// What does not fit, in words.
        cause: String,
    },
    /// `ca_file` is `system`, and the system has no CA certificates.
    #[error("the system has no CA certificates: install ca-certificates, or name a ca_file")]
    NoSystemRoots,
    /// rustls, the TLS library, refuses the settings, for this reason.
    #[error("TLS cannot be set up: {0}")]
    Setup(#[from] rustls::Error),
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}
