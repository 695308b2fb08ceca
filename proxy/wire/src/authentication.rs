//! The messages of an authentication exchange, in both directions: the server's Authentication
//! requests and the client's PasswordMessage, SASLInitialResponse and SASLResponse.
//!
//! This module owns their bytes; `pgimbal-auth` decides about their content. Source: "Message
//! Formats" and "SASL Authentication" of the protocol's chapter.

use thiserror::Error;

use crate::encode::{cstr, message};
use crate::tag::{backend, frontend};

/// Longest authentication message in bytes, header included: of a server, and of a client that
/// sends a password or an MD5 answer ([`MAX_SASL_MESSAGE`] holds for SASL). A login with a longer
/// one fails. PostgreSQL's own limit is 65535 bytes (`PG_MAX_AUTH_TOKEN_LENGTH`).
pub const MAX_AUTH_MESSAGE: usize = 65_535;

/// Longest SASL message of a client in bytes, header included: PostgreSQL's limit for the length
/// field (`PG_MAX_SASL_MESSAGE_LENGTH`, 1024) and one byte for the tag. A login with a longer one
/// fails before the message has arrived.
pub const MAX_SASL_MESSAGE: usize = 1025;

/// An Authentication message (tag `R`) of a server, by the `Int32` at the start of its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthRequest<'a> {
    /// AuthenticationOk (0): the login succeeded.
    Ok,
    /// AuthenticationCleartextPassword (3): the client must send its password in clear text.
    CleartextPassword,
    /// AuthenticationMD5Password (5), with the salt with which the password must be hashed.
    Md5Password([u8; 4]),
    /// AuthenticationSASL (10), with the mechanisms that the client may choose from, the server's
    /// preferred one first.
    Sasl(Mechanisms<'a>),
    /// AuthenticationSASLContinue (11), with the challenge of the mechanism.
    SaslContinue(&'a [u8]),
    /// AuthenticationSASLFinal (12), with the data of the mechanism's outcome: in SCRAM the
    /// server's signature.
    SaslFinal(&'a [u8]),
    /// A method that pgimbal does not speak, with its number: 2 is Kerberos V5, 7 and 8 are GSSAPI,
    /// 9 is SSPI. Its data is not kept, and the login to that server fails.
    Unsupported(u32),
}

/// A list of SASL mechanism names as sent: each name ends with a zero byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mechanisms<'a>(&'a [u8]);

impl Mechanisms<'static> {
    /// SCRAM-SHA-256 only, as PostgreSQL offers it without TLS.
    pub const SCRAM: Self = Self(b"SCRAM-SHA-256\0");
    /// SCRAM-SHA-256-PLUS (with channel binding) and SCRAM-SHA-256, as PostgreSQL offers them over
    /// TLS.
    pub const SCRAM_AND_PLUS: Self = Self(b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0");
}

impl<'a> Mechanisms<'a> {
    /// Iterates over the names in the order sent, without their zero bytes; an empty name is left
    /// out, an unknown one is not.
    pub fn iter(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        self.0.split(|byte| *byte == 0).filter(|name| !name.is_empty())
    }
}

/// An authentication message whose body does not have the form that the protocol demands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("malformed authentication message")]
pub struct MalformedAuth;

impl<'a> AuthRequest<'a> {
    /// Reads the body of an Authentication message.
    ///
    /// # Errors
    /// [`MalformedAuth`] when the body is shorter than 4 bytes, an MD5 salt has not exactly 4
    /// bytes, or the list of SASL mechanisms is empty or not terminated. An unknown number is no
    /// error but [`Self::Unsupported`].
    pub fn parse(body: &'a [u8]) -> Result<Self, MalformedAuth> {
        let (code, data) = body.split_first_chunk::<4>().ok_or(MalformedAuth)?;
        Ok(match u32::from_be_bytes(*code) {
            0 => Self::Ok,
            3 => Self::CleartextPassword,
            5 => Self::Md5Password(data.try_into().map_err(|_| MalformedAuth)?),
            10 if data.ends_with(b"\0\0") => Self::Sasl(Mechanisms(&data[..data.len() - 1])),
            10 => return Err(MalformedAuth),
            11 => Self::SaslContinue(data),
            12 => Self::SaslFinal(data),
            other => Self::Unsupported(other),
        })
    }

    /// Appends the request as an Authentication message, header included, as pgimbal sends it to a
    /// client that logs in. [`Self::Unsupported`] is sent as its number alone.
    pub fn encode(&self, out: &mut Vec<u8>) {
        message(out, backend::AUTHENTICATION, |out| {
            let (code, data): (u32, &[u8]) = match self {
                Self::Ok => (0, b""),
                Self::CleartextPassword => (3, b""),
                Self::Md5Password(salt) => (5, salt),
                Self::Sasl(mechanisms) => (10, mechanisms.0),
                Self::SaslContinue(data) => (11, data),
                Self::SaslFinal(data) => (12, data),
                Self::Unsupported(code) => (*code, b""),
            };
            out.extend_from_slice(&code.to_be_bytes());
            out.extend_from_slice(data);
            if matches!(self, Self::Sasl(_)) {
                out.push(0);
            }
        });
    }
}

/// A client's SASLInitialResponse: the choice of a mechanism, with its first message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SaslInitial<'a> {
    /// Name of the mechanism that the client chose, such as `SCRAM-SHA-256`.
    pub mechanism: &'a [u8],
    /// The mechanism's first message; `None` when the client sent none (length -1).
    pub response: Option<&'a [u8]>,
}

impl<'a> SaslInitial<'a> {
    /// Reads the body of a SASLInitialResponse.
    ///
    /// # Errors
    /// [`MalformedAuth`] when the mechanism has no terminator, or the response's length does not
    /// match the rest of the body.
    pub fn parse(body: &'a [u8]) -> Result<Self, MalformedAuth> {
        let end = body.iter().position(|byte| *byte == 0).ok_or(MalformedAuth)?;
        let (mechanism, rest) = (&body[..end], &body[end + 1..]);
        let (length, response) = rest.split_first_chunk::<4>().ok_or(MalformedAuth)?;
        let response = match u32::from_be_bytes(*length) {
            u32::MAX if response.is_empty() => None,
            length if length as usize == response.len() => Some(response),
            _ => return Err(MalformedAuth),
        };
        Ok(Self { mechanism, response })
    }

    /// Appends the SASLInitialResponse, header included, as pgimbal sends it to a server that has
    /// asked for SASL. `mechanism` must have no zero byte; `response` may be any bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        message(out, frontend::PASSWORD, |out| {
            cstr(out, self.mechanism);
            let length = self.response.map_or(u32::MAX, |response| response.len() as u32);
            out.extend_from_slice(&length.to_be_bytes());
            out.extend_from_slice(self.response.unwrap_or_default());
        });
    }
}

/// Reads the password from the body of a PasswordMessage, without its terminator. The password is
/// borrowed and not copied, in the client's encoding, and may be empty.
///
/// # Errors
/// [`MalformedAuth`] unless the last byte of the body is its only zero byte.
pub fn parse_password(body: &[u8]) -> Result<&[u8], MalformedAuth> {
    match body.split_last() {
        Some((0, password)) if !password.contains(&0) => Ok(password),
        _ => Err(MalformedAuth),
    }
}

/// Appends a PasswordMessage with a password in clear text, or with the answer to an MD5 challenge.
/// `password` must have no zero byte. `out` then holds a secret, which its owner has to wipe.
pub fn password(out: &mut Vec<u8>, password: &[u8]) {
    message(out, frontend::PASSWORD, |out| cstr(out, password));
}

/// Appends a SASLResponse, the answer to AuthenticationSASLContinue, with the mechanism's next
/// message: in SCRAM the client-final-message (RFC 5802).
pub fn sasl_response(out: &mut Vec<u8>, response: &[u8]) {
    message(out, frontend::PASSWORD, |out| out.extend_from_slice(response));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::HEADER_LEN;

    #[test]
    fn requests_read_back() {
        let requests = [
            AuthRequest::Ok,
            AuthRequest::CleartextPassword,
            AuthRequest::Md5Password(*b"salt"),
            AuthRequest::Sasl(Mechanisms::SCRAM_AND_PLUS),
            AuthRequest::SaslContinue(b"r=1"),
            AuthRequest::SaslFinal(b"v=2"),
            AuthRequest::Unsupported(7),
        ];
        for request in requests {
            let mut out = Vec::new();
            request.encode(&mut out);
            assert_eq!(AuthRequest::parse(&out[HEADER_LEN..]), Ok(request));
        }
        let names: Vec<_> = Mechanisms::SCRAM_AND_PLUS.iter().collect();
        assert_eq!(names, [&b"SCRAM-SHA-256-PLUS"[..], b"SCRAM-SHA-256"]);
    }

    #[test]
    fn behaviour_40_malformed_answers() {
        for body in [&b""[..], b"\0\0\0", b"\0\0\0\x05abc", b"\0\0\0\x0aX\0", b"\0\0\0\x0a"] {
            assert_eq!(AuthRequest::parse(body), Err(MalformedAuth), "{body:?}");
        }
        for body in [&b""[..], b"a", b"a\0\0", b"a\0\0\0\0\x02x", b"a\0\xff\xff\xff\xffx"] {
            assert_eq!(SaslInitial::parse(body), Err(MalformedAuth), "{body:?}");
        }
        for body in [&b""[..], b"a", b"a\0b\0"] {
            assert_eq!(parse_password(body), Err(MalformedAuth), "{body:?}");
        }
        let none = SaslInitial::parse(b"a\0\xff\xff\xff\xff").unwrap();
        assert_eq!(none, SaslInitial { mechanism: b"a", response: None });
    }
}
