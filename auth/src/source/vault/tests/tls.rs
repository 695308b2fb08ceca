use std::path::PathBuf;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};

use super::*;
use crate::source::scratch::Directory;

/// A private CA and what it has signed.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        Self(CertifiedIssuer::self_signed(params, key).expect("a CA"))
    }

    fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate and its key, as PEM.
    fn sign(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec![name.to_owned()]).expect("parameters");
        let certificate = params.signed_by(&key, &self.0).expect("a certificate");
        (certificate.pem(), key.serialize_pem())
    }

    /// A server named `name`, which wants certificates of `clients` if there are such.
    fn server(&self, name: &str, clients: Option<&Self>) -> ServerConfig {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .expect("versions");
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(clients) => {
                let mut roots = RootCertStore::empty();
                roots.add(clients.0.der().clone()).expect("a root");
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                builder.with_client_cert_verifier(verifier.build().expect("a verifier"))
            }
        };
        let (certificate, key) = self.sign(name);
        let certificate =
            CertificateDer::from_pem_slice(certificate.as_bytes()).expect("a certificate");
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("a key");
        builder.with_single_cert(vec![certificate], key).expect("a server")
    }
}

#[tokio::test]
async fn a_private_ca_is_trusted_when_it_is_named() {
    let (directory, authority) = (Directory::new(), Authority::new());
    let server = Server::start_tls(authority.server("127.0.0.1", None), healthy).await;
    let mut config = config(&[&server.url]);
    config.ca_file = Some(directory.file("ca.pem", authority.pem()));
    client(&config).read("app").await.expect("an answer");
}

#[tokio::test]
async fn what_does_not_verify_is_refused_and_asked_nothing() {
    let (directory, authority) = (Directory::new(), Authority::new());
    let stranger = Authority::new();
    let other_name = Server::start_tls(authority.server("vault.example", None), healthy).await;
    let other_ca = Server::start_tls(stranger.server("127.0.0.1", None), healthy).await;
    let unnamed = Server::start_tls(authority.server("127.0.0.1", None), healthy).await;
    let ca = Some(directory.file("ca.pem", authority.pem()));
    for (server, ca_file, next) in [
        (&other_name, &ca, "write the address with a name that is in its certificate"),
        (&other_ca, &ca, "set `ca_file` to the file with Vault's CA"),
        (&unnamed, &None, "set `ca_file` to the file with Vault's CA"),
    ] {
        let mut config = config(&[&server.url]);
        config.ca_file.clone_from(ca_file);
        let error = client(&config).read("app").await.expect_err("a refusal");
        assert_eq!(error.result_label(), "tls", "{}", texts(&error));
        assert!(texts(&error).contains(next), "{error}");
        assert!(!error.is_transient() && server.asked().is_empty());
    }
}

#[tokio::test]
async fn tls_is_never_given_up_for_plain_text() {
    let server = Server::start(healthy).await;
    let config = config(&[&server.url.replace("http:", "https:")]);
    let error = client(&config).read("app").await.expect_err("a refusal");
    assert_eq!(error.result_label(), "tls", "{}", texts(&error));
    assert!(texts(&error).contains("write http://"), "{error}");
    assert!(server.asked().is_empty());
}

#[tokio::test]
async fn a_tls_server_at_a_plain_address_is_recognised() {
    let server = Server::start(|_: &Received| {
        Reply::json(400, "Client sent an HTTP request to an HTTPS server.\n")
    })
    .await;
    let error = client(&config(&[&server.url])).read("app").await.expect_err("a refusal");
    assert!(texts(&error).contains("write https://"), "{error}");
}

#[tokio::test]
async fn a_client_certificate_is_shown_where_it_is_wanted() {
    let (directory, authority) = (Directory::new(), Authority::new());
    let server = authority.server("127.0.0.1", Some(&authority));
    let server = Server::start_tls(server, healthy).await;
    let mut config = config(&[&server.url]);
    config.ca_file = Some(directory.file("ca.pem", authority.pem()));
    let error = client(&config).read("app").await.expect_err("no certificate");
    assert_eq!(error.result_label(), "tls", "{}", texts(&error));
    let (certificate, key) = authority.sign("pgimbal");
    config.cert_file = Some(directory.file("cert.pem", certificate));
    config.key_file = Some(directory.file("key.pem", key));
    client(&config).read("app").await.expect("an answer");
}

#[tokio::test]
async fn certificates_that_were_replaced_on_disk_are_read_again() {
    let (directory, old, new) = (Directory::new(), Authority::new(), Authority::new());
    let server = Server::start_tls(new.server("127.0.0.1", Some(&new)), healthy).await;
    let (certificate, key) = old.sign("pgimbal");
    let mut config = config(&[&server.url]);
    config.ca_file = Some(directory.file("ca.pem", old.pem()));
    config.cert_file = Some(directory.file("cert.pem", certificate));
    config.key_file = Some(directory.file("key.pem", key));
    let client = client(&config);
    let error = client.read("app").await.expect_err("the old certificates");
    assert_eq!(error.result_label(), "tls", "{}", texts(&error));
    let (certificate, key) = new.sign("pgimbal");
    directory.file("ca.pem", new.pem());
    directory.file("cert.pem", certificate);
    directory.file("key.pem", key);
    let begun = Instant::now();
    while client.read("app").await.is_err() {
        assert!(begun.elapsed() < Duration::from_secs(10), "the new ones are not read");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_certificate_file_that_cannot_be_used_is_named() {
    let (directory, authority) = (Directory::new(), Authority::new());
    let (certificate, key) = authority.sign("pgimbal");
    let (certificate, key) = (directory.file("cert.pem", certificate), directory.file("key", key));
    let empty = directory.file("empty.pem", "hunter2");
    let (none, base) = (directory.path("none.pem"), config(&["https://vault"]));
    for (ca_file, cert_file, key_file, named) in [
        (Some(&none), None, None, &none),
        (Some(&empty), None, None, &empty),
        (None, Some(&none), Some(&key), &none),
        (None, Some(&certificate), Some(&empty), &empty),
    ] {
        let [ca_file, cert_file, key_file] =
            [ca_file, cert_file, key_file].map(|path: Option<&PathBuf>| path.cloned());
        let config = VaultConfig { ca_file, cert_file, key_file, ..base.clone() };
        let error = VaultClient::new("main", &config).expect_err("a refusal");
        assert!(texts(&error).contains(&named.display().to_string()), "{error}");
    }
}
