//! PEM files with certificates and keys.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use pgimbal_config::SYSTEM_ROOTS;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::TlsError;

/// The certificates of a PEM file, in its order; at least one, because none is an error.
pub(super) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let unreadable = |cause: String| TlsError::File { path: path.to_owned(), cause };
    let found: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|err| unreadable(err.to_string()))?;
    if found.is_empty() {
        return Err(unreadable("no certificate in it".to_owned()));
    }
    Ok(found)
}

/// The first private key of a PEM file. By PostgreSQL's rule its mode must be 0600 or less, or 0640
/// or less when root owns it; otherwise the error is [`TlsError::KeyMode`].
pub(super) fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let unreadable = |cause: String| TlsError::File { path: path.to_owned(), cause };
    let file = File::open(path).map_err(|err| unreadable(err.to_string()))?;
    let metadata = file.metadata().map_err(|err| unreadable(err.to_string()))?;
    let mode = metadata.mode() & 0o777;
    let forbidden = if metadata.uid() == 0 { 0o037 } else { 0o077 };
    if mode & forbidden != 0 {
        return Err(TlsError::KeyMode { path: path.to_owned(), mode });
    }
    PrivateKeyDer::from_pem_reader(file).map_err(|err| unreadable(err.to_string()))
}

/// The CAs of a PEM file; those of the system when `path` is `system`, without the ones that cannot
/// be read.
pub(super) fn authorities(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    if path != Path::new(SYSTEM_ROOTS) {
        return certificates(path);
    }
    let found = rustls_native_certs::load_native_certs().certs;
    // One that is odd must not stop the others.
    let found: Vec<_> =
        found.into_iter().filter(|der| webpki::anchor_from_trusted_cert(der).is_ok()).collect();
    if found.is_empty() { Err(TlsError::NoSystemRoots) } else { Ok(found) }
}
