//! Why a certificate is not believed, in words for whoever can mend it.

use std::sync::Arc;

use rustls::{AlertDescription, CertificateError, Error, OtherError};
use thiserror::Error as ThisError;

/// What is wrong with a certificate or with the chain above it.
#[derive(Clone, Debug, PartialEq, Eq, ThisError)]
pub(super) enum CertificateFault {
    /// Not X.509.
    #[error("the certificate cannot be read: {0}")]
    Malformed(String),
    /// Its time is over.
    #[error("the certificate of \"{whose}\" expired on {when}")]
    Expired { whose: String, when: String },
    /// Its time has not begun.
    #[error(
        "the certificate of \"{whose}\" is not valid before {when}; is this machine's clock right?"
    )]
    NotYetValid { whose: String, when: String },
    /// No chain leads to a certificate that is trusted.
    #[error("the certificate of \"{whose}\" is signed by \"{issuer}\", which is not in ca_file")]
    UnknownIssuer { whose: String, issuer: String },
    /// Somebody signed who may not.
    #[error("the certificate of \"{0}\" may not sign others: it is no certificate authority's")]
    NotAnAuthority(String),
    /// It is not made for this side of TLS.
    #[error("the certificate of \"{0}\" is made for another purpose (extendedKeyUsage)")]
    OtherPurpose(String),
    /// It demands what is not understood.
    #[error("the certificate of \"{0}\" has a critical extension that pgimbal does not understand")]
    Critical(String),
    /// A key that OpenSSL's default would not trust either.
    #[error(
        "the certificate of \"{whose}\" has an RSA key of {bits} bits, which anybody can forge: \
         make one of 2048 bits or more, or do not verify (sslmode \"require\" without ca_file)"
    )]
    WeakKey { whose: String, bits: u32 },
    /// The one whose name stands there as the signer's has not signed it.
    #[error(
        "the certificate of \"{whose}\" is not signed by the \"{issuer}\" that is known: that is \
         another one of the same name, or the signature is of a kind that pgimbal cannot verify \
         (it can RSA, RSA-PSS, EC with P-256, P-384 and P-521, and Ed25519, with SHA-256 or more)"
    )]
    NotSigned { whose: String, issuer: String },
    /// It is somebody else's.
    #[error("the certificate is for {theirs}, not for \"{wanted}\"")]
    OtherName { wanted: String, theirs: String },
}

impl CertificateFault {
    /// For a server's certificate: the words come back in the error of the handshake.
    pub(super) fn told(self) -> Error {
        Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(self))))
    }

    /// For a client's certificate: the kind comes to the client as TLS's alert.
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

/// A handshake with a client that failed, in plain words where rustls's own are made for
/// programmers.
pub(super) fn of_client_in_words(error: std::io::Error) -> std::io::Error {
    match cause(&error) {
        Some(Error::InvalidCertificate(CertificateError::Other(OtherError(fault)))) => {
            std::io::Error::new(error.kind(), fault.to_string())
        }
        _ => error,
    }
}

/// The same with a server.
pub(super) fn in_words(error: std::io::Error) -> std::io::Error {
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
