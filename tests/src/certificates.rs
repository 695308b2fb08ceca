//! A certificate authority and a certificate for localhost, made anew for each test.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use crate::process::{Directory, directory};

/// A certificate authority and a server's certificate with its key, all as PEM.
#[derive(Clone)]
pub struct Certificates {
    /// The authority's certificate, PEM.
    pub authority: String,
    /// The server's certificate, PEM.
    pub chain: String,
    /// The server's private key, PEM.
    pub key: String,
    /// The directory of [`Certificates::files`], removed with the last clone.
    directory: Arc<Directory>,
}

impl Certificates {
    /// Makes an authority, and a certificate for `localhost` and `127.0.0.1` that it signs.
    #[must_use]
    pub fn new() -> Self {
        Self::named(&["localhost", "127.0.0.1"])
    }

    /// Makes an authority, and a certificate for these names that it signs.
    ///
    /// # Panics
    /// When a name cannot stand in a certificate.
    #[must_use]
    pub fn named(names: &[&str]) -> Self {
        let authority_key = KeyPair::generate().expect("a key");
        let mut authority = CertificateParams::new(Vec::new()).expect("an authority");
        // Two names, or OpenSSL takes the server's certificate for one that signs itself.
        authority.distinguished_name.push(DnType::CommonName, "pgimbal test authority");
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority_certificate = authority.self_signed(&authority_key).expect("a certificate");
        let issuer = Issuer::new(authority, authority_key);
        let key = KeyPair::generate().expect("a key");
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let certificate = CertificateParams::new(names)
            .expect("names")
            .signed_by(&key, &issuer)
            .expect("a certificate");
        Self {
            authority: authority_certificate.pem(),
            chain: certificate.pem(),
            key: key.serialize_pem(),
            directory: Arc::new(directory("certificates")),
        }
    }

    /// Wraps certificates that were made elsewhere, as PEM.
    #[must_use]
    pub fn of(authority: String, chain: String, key: String) -> Self {
        Self { authority, chain, key, directory: Arc::new(directory("certificates")) }
    }

    /// Writes the files of [`Certificates::write`] into a directory of the certificates' own, and
    /// returns their paths.
    ///
    /// # Panics
    /// When a file cannot be written.
    #[must_use]
    pub fn files(&self) -> [PathBuf; 3] {
        self.write(&self.directory)
    }

    /// Writes `ca.crt`, `server.crt` and `server.key` into `directory`, and returns their paths in
    /// this order.
    ///
    /// # Panics
    /// When a file cannot be written.
    #[must_use]
    pub fn write(&self, directory: &Path) -> [PathBuf; 3] {
        let files =
            [("ca.crt", &self.authority), ("server.crt", &self.chain), ("server.key", &self.key)];
        files.map(|(name, text)| {
            let path = directory.join(name);
            std::fs::write(&path, text).expect("a file");
            // As PostgreSQL, pgimbal refuses a key that others can read.
            let owner_only = std::fs::Permissions::from_mode(0o600);
            std::fs::set_permissions(&path, owner_only).expect("permissions");
            path
        })
    }

    /// The rustls configuration of a client that trusts this authority and offers the protocols
    /// `alpn`.
    ///
    /// # Panics
    /// Never with certificates made here.
    #[must_use]
    pub fn client(&self, alpn: &[&str]) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        let authority = CertificateDer::from_pem_slice(self.authority.as_bytes()).expect("PEM");
        roots.add(authority).expect("an authority");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let versions =
            ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let mut config =
            versions.expect("versions").with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Arc::new(config)
    }
}

impl Default for Certificates {
    fn default() -> Self {
        Self::new()
    }
}
