//! Whether a certificate bears a host's name: libpq's rules for `verify-full`.
//!
//! The alternative names count; the common name where there is none of the host's kind. RFC 6125
//! would not look at the common name at all, but PostgreSQL's own recipe writes nothing else.

use std::net::IpAddr;

use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;

use super::fault::CertificateFault;
use super::x509::{malformed, subject_name};

/// Names that are listed in an error at most.
const SHOWN: usize = 5;

/// Verifies that `certificate` is for `host`, a name or an IP address: by an alternative name of
/// that kind, or by the common name where there is none. A leading `*.` stands for one label. Names
/// are compared without regard to case.
///
/// # Errors
/// [`CertificateFault::OtherName`] with at most 5 of the certificate's names.
pub(super) fn bears(certificate: &X509Certificate<'_>, host: &str) -> Result<(), CertificateFault> {
    let address = host.parse::<IpAddr>().ok();
    let alternatives = certificate.subject_alternative_name().map_err(malformed)?;
    let alternatives = alternatives.map(|names| &*names.value.general_names).unwrap_or_default();
    let mut theirs = Vec::new();
    let mut ask_common_name = true;
    for name in alternatives {
        match name {
            GeneralName::DNSName(name) => {
                ask_common_name &= address.is_some();
                if matches(name, host) {
                    return Ok(());
                }
                theirs.push((*name).to_owned());
            }
            GeneralName::IPAddress(bytes) => {
                ask_common_name &= address.is_none();
                let found = ip(bytes);
                if found.is_some() && found == address {
                    return Ok(());
                }
                theirs.extend(found.map(|found| found.to_string()));
            }
            _ => {}
        }
    }
    if ask_common_name {
        let common = certificate.subject().iter_common_name().next();
        if common.and_then(|name| name.as_str().ok()).is_some_and(|name| matches(name, host)) {
            return Ok(());
        }
        theirs.push(subject_name(certificate.subject()));
    }
    theirs.truncate(SHOWN);
    let theirs: Vec<String> = theirs.into_iter().map(|name| format!("\"{name}\"")).collect();
    Err(CertificateFault::OtherName { wanted: host.to_owned(), theirs: theirs.join(", ") })
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    let four = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    four.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

/// Equal, or the pattern's `*.` stands for exactly one label.
fn matches(pattern: &str, host: &str) -> bool {
    if pattern.eq_ignore_ascii_case(host) {
        return true;
    }
    let Some(tail) = pattern.strip_prefix("*.").filter(|tail| !tail.is_empty()) else {
        return false;
    };
    let is_address = host.parse::<IpAddr>().is_ok();
    host.split_once('.').is_some_and(|(label, rest)| {
        !is_address && !label.is_empty() && rest.eq_ignore_ascii_case(tail)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_one_label_and_never_part_of_an_address() {
        assert!(matches("Db.Example", "db.example"));
        assert!(matches("*.example", "db.example"));
        assert!(!matches("*.example", "a.db.example"));
        assert!(!matches("*.example", "example"));
        assert!(!matches("*", "db"));
        assert!(!matches("*.", "db."));
        assert!(!matches("d*.example", "db.example"));
        assert!(!matches("*.0.0.1", "127.0.0.1"));
    }
}
