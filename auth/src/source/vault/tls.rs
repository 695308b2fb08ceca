//! TLS towards Vault: rustls with aws-lc-rs, verified always.

use std::path::Path;
use std::sync::Arc;

use pgimbal_config::VaultConfig;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use super::reply::malformed;
use crate::SourceError;

/// The TLS configuration of all connections to this Vault. `needed` is false when no address uses
/// TLS; the system's CAs are not read then.
pub(super) fn client_config(
    vault: &VaultConfig,
    needed: bool,
) -> Result<ClientConfig, SourceError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| tls("rustls", &error))?
        .with_root_certificates(roots(vault, needed)?);
    match (&vault.cert_file, &vault.key_file) {
        (Some(cert_file), Some(key_file)) => {
            let key = PrivateKeyDer::from_pem_file(key_file)
                .map_err(|error| unreadable(key_file, &error))?;
            builder
                .with_client_auth_cert(certificates(cert_file)?, key)
                .map_err(|error| tls(&cert_file.display().to_string(), &error))
        }
        _ => Ok(builder.with_no_client_auth()),
    }
}

fn roots(vault: &VaultConfig, needed: bool) -> Result<RootCertStore, SourceError> {
    let mut roots = RootCertStore::empty();
    match &vault.ca_file {
        Some(path) => {
            for certificate in certificates(path)? {
                let location = path.display().to_string();
                roots.add(certificate).map_err(|error| tls(&location, &error))?;
            }
        }
        None if needed => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
        None => {}
    }
    Ok(roots)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, SourceError> {
    let found: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|error| unreadable(path, &error))?;
    if found.is_empty() {
        return Err(malformed(&path.display().to_string(), "there is no certificate in it"));
    }
    Ok(found)
}

fn unreadable(path: &Path, error: &pem::Error) -> SourceError {
    SourceError::Unreadable {
        location: path.display().to_string().into(),
        cause: match error {
            pem::Error::Io(error) => error.to_string().into(),
            pem::Error::NoItemsFound => "there is no PEM section of the right kind in it".into(),
            // The others may quote the file.
            _ => "it is not PEM".into(),
        },
    }
}

fn tls(location: &str, error: &rustls::Error) -> SourceError {
    SourceError::Tls { location: location.into(), cause: error.to_string().into() }
}
