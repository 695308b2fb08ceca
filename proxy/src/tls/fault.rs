//! The reasons for which a certificate is refused, in words for the person who can correct it.

use std::sync::Arc;

use rustls::{AlertDescription, CertificateError, Error, OtherError};
use thiserror::Error as ThisError;

/// A fault of a certificate or of the chain above it.
#[derive(Clone, Debug, PartialEq, Eq, ThisError)]
pub(super) enum CertificateFault {
    /// The certificate is not X.509.
    #[error("the certificate cannot be read: {0}")]
    Malformed(String),
    /// The certificate has expired.
    #[error("the certificate of \"{whose}\" expired on {when}")]
    Expired { whose: String, when: String },
    /// The certificate is not valid yet.
    #[error(
        "the certificate of \"{whose}\" is not valid before {when}; is this machine's clock right?"
    )]
    NotYetValid { whose: String, when: String },
    /// No chain leads to a certificate of `ca_file`.
    #[error("the certificate of \"{whose}\" is signed by \"{issuer}\", which is not in ca_file")]
    UnknownIssuer { whose: String, issuer: String },
    /// The certificate signed another one, which it may not.
    #[error("the certificate of \"{0}\" may not sign others: it is no certificate authority's")]
    NotAnAuthority(String),
    /// The certificate is not made for this side of TLS.
    #[error("the certificate of \"{0}\" is made for another purpose (extendedKeyUsage)")]
    OtherPurpose(String),
    /// The certificate has a critical extension that is not understood.
    #[error("the certificate of \"{0}\" has a critical extension that pgimbal does not understand")]
    Critical(String),
    /// The RSA key is too short, as for OpenSSL's default security level.
    #[error(
        "the certificate of \"{whose}\" has an RSA key of {bits} bits, which anybody can forge: \
         make one of 2048 bits or more, or do not verify (sslmode \"require\" without ca_file)"
    )]
    WeakKey { whose: String, bits: u32 },
    /// The certificate with the issuer's name did not sign it.
    #[error(
        "the certificate of \"{whose}\" is not signed by the \"{issuer}\" that is known: that is \
         another one of the same name, or the signature is of a kind that pgimbal cannot verify \
         (it can RSA, RSA-PSS, EC with P-256, P-384 and P-521, and Ed25519, with SHA-256 or more)"
    )]
    NotSigned { whose: String, issuer: String },
    /// The certificate bears other names than the host's.
    #[error("the certificate is for {theirs}, not for \"{wanted}\"")]
    OtherName { wanted: String, theirs: String },
}

impl CertificateFault {
    /// The error for a server's certificate; its text comes back in the error of the handshake.
    pub(super) fn into_server_error(self) -> Error {
        Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(self))))
    }

    /// The error for a client's certificate; its kind becomes the TLS alert that the client
    /// receives.
    pub(super) fn alert(self) -> Error {
        Error::InvalidCertificate(match self {
            Self::Malformed(_) => CertificateError::BadEncoding,
            Self::Expired { .. } => CertificateError::Expired,
            Self::NotYetValid { .. } => CertificateError::NotValidYet,
            Self::UnknownIssuer { .. } => CertificateError::UnknownIssuer,
            Self::OtherPurpose(_) => CertificateError::InvalidPurpose,
            Self::Critical(_) => CertificateError::UnhandledCriticalExtension,
            other => CertificateError::Other(OtherError(Arc::new(other))),
        })
    }
}

fn cause(error: &std::io::Error) -> Option<&Error> {
    error.get_ref()?.downcast_ref()
}

/// The error of a failed handshake with a client, in plain words where rustls's own are for
/// programmers.
pub(super) fn describe_client_error(error: std::io::Error) -> std::io::Error {
    match cause(&error) {
        Some(Error::InvalidCertificate(CertificateError::Other(OtherError(fault)))) => {
            std::io::Error::new(error.kind(), fault.to_string())
        }
        _ => error,
    }
}

/// The error of a failed handshake with a server, in plain words where rustls's own are for
/// programmers.
pub(super) fn describe_server_error(error: std::io::Error) -> std::io::Error {
    let text = match cause(&error) {
        Some(Error::InvalidCertificate(CertificateError::Other(OtherError(fault)))) => {
            fault.to_string()
        }
        Some(Error::AlertReceived(AlertDescription::ProtocolVersion)) => {
            "the server speaks neither TLS 1.2 nor 1.3, and pgimbal nothing older".to_owned()
        }
        Some(Error::AlertReceived(AlertDescription::HandshakeFailure)) => {
            "the server finds nothing in common: pgimbal speaks TLS 1.2 and 1.3 and reads keys of \
             RSA, RSA-PSS, EC (P-256, P-384, P-521) and Ed25519; is its certificate's key of \
             another kind?"
                .to_owned()
        }
        _ => return error,
    };
    std::io::Error::new(error.kind(), text)
}
