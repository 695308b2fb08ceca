//! X.509 certificates: their names, validity and purposes.

use rustls::pki_types::UnixTime;
use x509_parser::certificate::{BasicExtension, X509Certificate};
use x509_parser::extensions::{BasicConstraints, ParsedExtension};
use x509_parser::oid_registry::OID_X509_EXT_CERTIFICATE_POLICIES;
use x509_parser::prelude::FromDer;
use x509_parser::time::ASN1Time;
use x509_parser::x509::X509Name;

use super::fault::CertificateFault;

/// The side of TLS that shows a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Server,
    Client,
}

/// Reads a certificate of any version.
pub(super) fn read(der: &[u8]) -> Result<X509Certificate<'_>, CertificateFault> {
    X509Certificate::from_der(der)
        .map(|(_, certificate)| certificate)
        .map_err(|error| CertificateFault::Malformed(error.to_string()))
}

/// The name of a certificate's subject for an error: its common name, or else the whole name; at
/// most 100 characters, without control characters.
pub(super) fn subject_name(name: &X509Name<'_>) -> String {
    let common = name.iter_common_name().find_map(|attribute| attribute.as_str().ok());
    // Whoever sent it chose the text, which ends in logs.
    let text = common.map_or_else(|| name.to_string(), str::to_owned);
    text.chars().filter(|c| !c.is_control()).take(100).collect()
}

/// The time in UTC as text.
pub(super) fn date(time: ASN1Time) -> String {
    let (date, clock) = (time.to_datetime().date(), time.to_datetime().time());
    format!("{date} {:02}:{:02} UTC", clock.hour(), clock.minute())
}

/// Verifies that `now` is within the certificate's validity, both ends included.
///
/// # Errors
/// [`CertificateFault::Expired`] or [`CertificateFault::NotYetValid`].
pub(super) fn in_time(
    certificate: &X509Certificate<'_>,
    now: UnixTime,
) -> Result<(), CertificateFault> {
    let validity = certificate.validity();
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    let whose = || subject_name(certificate.subject());
    if validity.not_after.timestamp() < now {
        return Err(CertificateFault::Expired { whose: whose(), when: date(validity.not_after) });
    }
    if now < validity.not_before.timestamp() {
        let when = date(validity.not_before);
        return Err(CertificateFault::NotYetValid { whose: whose(), when });
    }
    Ok(())
}

/// Verifies that the certificate may be shown by this side of TLS. Without an extendedKeyUsage
/// extension it may, as in OpenSSL.
pub(super) fn serves(
    certificate: &X509Certificate<'_>,
    side: Side,
) -> Result<(), CertificateFault> {
    let usage = certificate.extended_key_usage().map_err(malformed)?;
    let fits = usage.is_none_or(|usage| {
        usage.value.any
            || match side {
                Side::Server => usage.value.server_auth,
                Side::Client => usage.value.client_auth,
            }
    });
    fits.then_some(())
        .ok_or_else(|| CertificateFault::OtherPurpose(subject_name(certificate.subject())))
}

/// Verifies that the certificate may sign others (basicConstraints and keyUsage), with `below`
/// authorities between it and the end of the chain, which pathLenConstraint may limit. A
/// certificate without basicConstraints may not.
pub(super) fn signs(
    certificate: &X509Certificate<'_>,
    below: usize,
) -> Result<(), CertificateFault> {
    let constraints: Option<BasicExtension<&BasicConstraints>> =
        certificate.basic_constraints().map_err(malformed)?;
    let usage = certificate.key_usage().map_err(malformed)?;
    let is_authority = constraints.is_some_and(|constraints| {
        let longest = constraints.value.path_len_constraint;
        constraints.value.ca && longest.is_none_or(|longest| below <= longest as usize)
    });
    if is_authority && usage.is_none_or(|usage| usage.value.key_cert_sign()) {
        return Ok(());
    }
    Err(CertificateFault::NotAnAuthority(subject_name(certificate.subject())))
}

/// Verifies that every critical extension is understood. Name constraints are not, so a certificate
/// that has them is refused.
pub(super) fn understood(certificate: &X509Certificate<'_>) -> Result<(), CertificateFault> {
    let is_known = |extension: &ParsedExtension<'_>| {
        matches!(
            extension,
            ParsedExtension::BasicConstraints(_)
                | ParsedExtension::KeyUsage(_)
                | ParsedExtension::ExtendedKeyUsage(_)
                | ParsedExtension::SubjectAlternativeName(_)
        )
    };
    for extension in certificate.extensions() {
        let parsed = extension.parsed_extension();
        let constrains = matches!(parsed, ParsedExtension::NameConstraints(_));
        // A policy that nobody asks for restricts nothing.
        let is_policy = extension.oid == OID_X509_EXT_CERTIFICATE_POLICIES;
        if constrains || extension.critical && !is_known(parsed) && !is_policy {
            return Err(CertificateFault::Critical(subject_name(certificate.subject())));
        }
    }
    Ok(())
}

pub(super) fn malformed(error: impl std::fmt::Display) -> CertificateFault {
    CertificateFault::Malformed(error.to_string())
}
