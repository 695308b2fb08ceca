//! A certificate authority and a certificate for localhost, made anew for each test.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use crate::process::{Directory, directory};

/// PEM texts of an authority and of a server named `localhost` and `127.0.0.1`.
#[derive(Clone)]
pub struct Certificates {
    /// The authority's certificate.
    pub authority: String,
    /// The server's certificate.
    pub chain: String,
    /// The server's key.
    pub key: String,
    /// Where [`Certificates::files`] puts them; it goes with the last clone.
    directory: Arc<Directory>,
}

impl Certificates {
    /// Makes a new authority and a certificate signed by it.
    ///
    /// # Panics
    /// Never with these fixed names.
    #[must_use]
    pub fn new() -> Self {
        Self::named(&["localhost", "127.0.0.1"])
    }

    /// As [`Certificates::new`] for other names, such as one that no client asks for.
    ///
    /// # Panics
    /// When a name is no name.
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

    /// Those of others, as PEM.
    #[must_use]
    pub fn of(authority: String, chain: String, key: String) -> Self {
        Self { authority, chain, key, directory: Arc::new(directory("certificates")) }
    }

    /// As [`Certificates::write`], into a directory of their own.
    ///
    /// # Panics
    /// When a file cannot be written.
    #[must_use]
    pub fn files(&self) -> [PathBuf; 3] {
        self.write(&self.directory)
    }

    /// Writes `ca.crt`, `server.crt` and `server.key` and returns their paths.
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

    /// A client that trusts this authority and offers `alpn`.
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
