//! The client's side of SCRAM: pgimbal proves to a server that it knows a password, and the server
//! proves that it knows the password's verifier.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::{
    BINDING_HEADER, MECHANISM, MECHANISM_PLUS, NONCE_LEN, ScramError, attribute, decode, text,
};
use crate::Channel;
use crate::verifier::{Key, MAX_ITERATIONS, PasswordKeys, hmac, xor};

/// A SCRAM exchange (RFC 5802) whose client-first-message was sent; the server's challenge is
/// awaited.
#[derive(Debug, PartialEq, Eq)]
pub struct ScramClient {
    nonce: String,
    first_bare: String,
    /// The bytes that attribute `c` of the proof repeats: GS2 header and channel data.
    binding: Vec<u8>,
}

/// A SCRAM exchange (RFC 5802) whose client-final-message with the proof was sent; the server's
/// signature is awaited.
pub struct AwaitsServerProof {
    signature: Key,
}

impl std::fmt::Debug for AwaitsServerProof {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AwaitsServerProof")
    }
}

impl ScramClient {
    /// Begins an exchange: chooses the mechanism and makes the first message, in this order in the
    /// result. `plus_offered` says whether the server offered SCRAM-SHA-256-PLUS; `nonce` must be
    /// random. The mechanism is SCRAM-SHA-256-PLUS if it is offered and `channel` has binding data,
    /// else SCRAM-SHA-256, even if that was not offered. The message names no user: the startup
    /// packet did.
    #[must_use]
    pub fn begin(
        channel: Channel<'_>,
        plus_offered: bool,
        nonce: [u8; NONCE_LEN],
    ) -> (Self, &'static str, Vec<u8>) {
        let (mechanism, header, data) = match (channel.end_point(), plus_offered) {
            (Some(data), true) => (MECHANISM_PLUS, BINDING_HEADER, data),
            // "I could, you did not offer": a server that did offer notices who is in between.
            (Some(_), false) => (MECHANISM, "y,,", &b""[..]),
            (None, _) => (MECHANISM, "n,,", &b""[..]),
        };
        let nonce = BASE64.encode(nonce);
        // The name stays empty: the server takes it from the startup packet.
        let first_bare = format!("n=,r={nonce}");
        let first = format!("{header}{first_bare}").into_bytes();
        let binding = [header.as_bytes(), data].concat();
        (Self { nonce, first_bare, binding }, mechanism, first)
    }

    /// Answers the server's challenge with the proof of `password`. It costs as many PBKDF2
    /// iterations as the server asks for, at most [`MAX_ITERATIONS`], which takes up to about a
    /// second. Returns the state that checks the server's last message, and the
    /// client-final-message to send. The exchange is consumed, also by an error.
    ///
    /// # Errors
    /// [`ScramError::Malformed`] for a challenge that breaks the grammar, does not repeat the
    /// client's nonce, or asks for more iterations than [`MAX_ITERATIONS`].
    pub fn answer(
        self,
        password: &[u8],
        challenge: &[u8],
    ) -> Result<(AwaitsServerProof, Vec<u8>), ScramError> {
        let challenge = text(challenge)?;
        let mut rest = challenge;
        let nonce = attribute(&mut rest, 'r', "nonce expected")?;
        if nonce.len() <= self.nonce.len() || !nonce.starts_with(&self.nonce) {
            return Err(ScramError::Malformed("nonce does not match"));
        }
        let salt = decode(attribute(&mut rest, 's', "salt expected")?, "salt is not base64")?;
        let iterations = attribute(&mut rest, 'i', "iterations expected")?
            .parse()
            .ok()
            .filter(|count| (1..=MAX_ITERATIONS).contains(count))
            .ok_or(ScramError::Malformed("number of iterations out of range"))?;
        let without_proof = format!("c={},r={nonce}", BASE64.encode(&self.binding));
        let auth_message = format!("{},{challenge},{without_proof}", self.first_bare);
        let keys = PasswordKeys::derive(password, &salt, iterations);
        let stored_key = Sha256::digest(*keys.client_key);
        let proof = xor(&keys.client_key, &hmac(&stored_key, &[auth_message.as_bytes()]));
        let signature = hmac(&*keys.server_key, &[auth_message.as_bytes()]);
        let last = format!("{without_proof},p={}", BASE64.encode(proof)).into_bytes();
        Ok((AwaitsServerProof { signature }, last))
    }
}

impl AwaitsServerProof {
    /// Checks the server's last message, the data of AuthenticationSASLFinal. `Ok` proves the
    /// server; AuthenticationOk must still follow. Compares in constant time.
    ///
    /// # Errors
    /// [`ScramError::WrongProof`] when the signature shows that the server does not know the
    /// password's verifier; [`ScramError::Malformed`] when the server reports an error or breaks
    /// the grammar.
    pub fn finish(self, last: &[u8]) -> Result<(), ScramError> {
        let mut rest = text(last)?;
        if rest.starts_with("e=") {
            return Err(ScramError::Malformed("the server reports an error"));
        }
        let proof = decode(attribute(&mut rest, 'v', "proof expected")?, "proof is not base64")?;
        if bool::from(self.signature.ct_eq(&proof)) { Ok(()) } else { Err(ScramError::WrongProof) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc_7677_example() {
        let state = ScramClient {
            nonce: "rOprNGfwEbeRWgbNEkqO".to_owned(),
            first_bare: "n=user,r=rOprNGfwEbeRWgbNEkqO".to_owned(),
            binding: b"n,,".to_vec(),
        };
        let challenge = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                         s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
        let (state, last) = state.answer(b"pencil", challenge.as_bytes()).unwrap();
        assert_eq!(
            String::from_utf8(last).unwrap(),
            "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
             p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
        );
        state.finish(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=").unwrap();
    }

    #[test]
    fn challenges_that_are_refused() {
        let nonce = BASE64.encode([3; NONCE_LEN]);
        for challenge in [
            String::new(),
            "r=other1,s=YQ==,i=1".to_owned(),
            format!("r={nonce},s=YQ==,i=1"),
            format!("r={nonce}x,s=!,i=1"),
            format!("r={nonce}x,s=YQ==,i=0"),
            format!("r={nonce}x,s=YQ==,i=2000000000"),
            format!("r={nonce}x,s=YQ=="),
        ] {
            let (state, ..) = ScramClient::begin(Channel::Plain, false, [3; NONCE_LEN]);
            let result = state.answer(b"x", challenge.as_bytes());
            assert!(matches!(result, Err(ScramError::Malformed(_))), "{challenge}");
        }
    }

    #[test]
    fn a_server_that_does_not_know_the_password_is_refused() {
        let state = || AwaitsServerProof { signature: [1; 32] };
        assert_eq!(state().finish(b"v=YQ=="), Err(ScramError::WrongProof));
        assert!(matches!(state().finish(b"e=other-error"), Err(ScramError::Malformed(_))));
        assert!(matches!(state().finish(b""), Err(ScramError::Malformed(_))));
    }
}
