//! The validity of pgimbal's own certificates: warnings before they expire.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pgimbal_config::Config;
use rustls::pki_types::CertificateDer;
use x509_parser::time::ASN1Time;

use super::{files, x509};

/// Time before its expiry from which a certificate is warned of: most authorities renew one within
/// it, with people in between.
const AHEAD: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// A certificate that the configuration names as pgimbal's own, with its validity.
///
/// Two are equal when their files hold the same chain: a renewed one differs.
#[derive(Debug, PartialEq, Eq)]
pub struct OwnCertificate {
    key: String,
    path: PathBuf,
    chain: Vec<CertificateDer<'static>>,
    whose: String,
    begins: ASN1Time,
    ends: ASN1Time,
}

/// A warning about one of pgimbal's certificates; `Display` is its text.
#[derive(Debug, PartialEq, Eq)]
pub struct ExpiryWarning {
    /// Whether the certificate has expired or is not valid yet, so that peers that verify it refuse
    /// pgimbal; `false` for one that only expires soon.
    pub is_invalid: bool,
    text: String,
}

impl fmt::Display for ExpiryWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl OwnCertificate {
    /// Every certificate that pgimbal shows to clients, servers and Vaults, each file once. A file
    /// that cannot be read is left out, because its use reports the error. Of a file with a chain
    /// the first certificate counts. Empty when the configuration names no `cert_file`.
    #[must_use]
    pub fn all(config: &Config) -> Vec<Self> {
        let database = |(name, database): (&String, &pgimbal_config::DatabaseConfig)| {
            Some((format!("databases.{name}.server_tls"), database.tls.cert_file.clone()?))
        };
        let cluster = |(name, cluster): (&String, &pgimbal_config::ClusterConfig)| {
            Some((format!("clusters.{name}.server_tls"), cluster.tls.cert_file.clone()?))
        };
        let vault = |(name, vault): (&String, &pgimbal_config::VaultConfig)| {
            Some((format!("vaults.{name}"), vault.cert_file.clone()?))
        };
        let tops = [
            ("client_tls", &config.clients.tls.cert_file),
            ("server_tls", &config.server_tls.cert_file),
        ];
        let tops = tops.into_iter().filter_map(|(key, path)| Some((key.into(), path.clone()?)));
        let named = tops
            .chain(config.databases.iter().filter_map(database))
            .chain(config.clusters.iter().filter_map(cluster))
            .chain(config.vaults.iter().filter_map(vault));
        let mut all: Vec<Self> = Vec::new();
        for (table, path) in named {
            // Databases mostly share the certificate of [server_tls].
            if !all.iter().any(|known| known.path == path) {
                all.extend(Self::read(format!("{table}.cert_file"), &path));
            }
        }
        all
    }

    fn read(key: String, path: &Path) -> Option<Self> {
        let chain = files::certificates(path).ok()?;
        let certificate = x509::read(chain.first()?).ok()?;
        let validity = certificate.validity().clone();
        let whose = x509::subject_name(certificate.subject());
        Some(Self {
            key,
            path: path.to_owned(),
            whose,
            begins: validity.not_before,
            ends: validity.not_after,
            chain,
        })
    }

    /// The option that names the file, such as `client_tls.cert_file`; the first of several.
    #[must_use]
    pub fn option(&self) -> &str {
        &self.key
    }

    /// The last moment at which the certificate is valid, in seconds of Unix time.
    #[must_use]
    pub fn not_after(&self) -> i64 {
        self.ends.timestamp()
    }

    /// The warning to give at `now`: the certificate has expired, is not valid yet, or expires
    /// within 30 days. `None` otherwise. pgimbal logs it at the start, at reloads and once a day.
    #[must_use]
    pub fn expiry_warning(&self, now: SystemTime) -> Option<ExpiryWarning> {
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let now = i64::try_from(now).unwrap_or(i64::MAX);
        let left = self.ends.timestamp().saturating_sub(now);
        let is_early = now < self.begins.timestamp();
        let what = if left < 0 {
            format!("expired on {}: whoever verifies it refuses pgimbal", x509::date(self.ends))
        } else if is_early {
            let when = x509::date(self.begins);
            format!("is not valid before {when}: is this machine's clock right?")
        } else if left.unsigned_abs() < AHEAD.as_secs() {
            format!("expires on {}, in {} days", x509::date(self.ends), left / (24 * 60 * 60))
        } else {
            return None;
        };
        let place = self.path.display();
        let text = format!("{}: the certificate of \"{}\" in {place} {what}", self.key, self.whose);
        Some(ExpiryWarning { is_invalid: left < 0 || is_early, text })
    }
}
