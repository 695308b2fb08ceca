//! TLS towards clients and servers, with libpq's meaning of `sslmode`.
//!
//! Owns what is offered, demanded and verified. Each value is built once from the configuration
//! and its files; a reload builds a new one and replaces the `Arc` around it.

mod acceptor;
mod authorities;
mod certificate;
mod connector;
mod fault;
mod files;
mod given_up;
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

/// PostgreSQL's name in TLS's application-layer protocol negotiation.
pub(crate) const ALPN: &[u8] = b"postgresql";

/// TLS settings that cannot be used.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A setting without which the mode makes no sense.
    #[error("sslmode {mode} needs {key}")]
    Missing {
        /// The mode.
        mode: &'static str,
        /// The missing setting's key.
        key: &'static str,
    },
    /// A file that cannot be read.
    #[error("cannot read {}: {cause}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: String,
    },
    /// A private key that others can read.
    #[error(
        "private key {} has mode {mode:04o}: it must have 0600 or less, or 0640 or less when root \
         owns it; chmod it", path.display()
    )]
    KeyMode {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Certificate, key or CA that do not fit.
    #[error("TLS with {}: {cause}", path.display())]
    Certificate {
        /// The file that it is about.
        path: PathBuf,
        /// What does not fit.
        cause: String,
    },
    /// The system has no CAs.
    #[error("the system has no CA certificates: install ca-certificates, or name a ca_file")]
    NoSystemRoots,
    /// The platform's cryptography refuses.
    #[error("TLS cannot be set up: {0}")]
    Setup(#[from] rustls::Error),
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}
