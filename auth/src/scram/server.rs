//! The server's side of SCRAM: a client proves to pgimbal that it knows a password.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::{
    BINDING_HEADER, MECHANISM, MECHANISM_PLUS, NONCE_LEN, ScramError, attribute, decode, is_nonce,
    text,
};
use crate::Channel;
use crate::verifier::ScramVerifier;

/// The SASL mechanisms that a client is offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// SCRAM-SHA-256 only, as without TLS.
    Scram,
    /// SCRAM-SHA-256-PLUS and SCRAM-SHA-256, as over TLS.
    ScramAndPlus,
}

impl Offer {
    /// The mechanisms for this connection: with SCRAM-SHA-256-PLUS when channel binding is
    /// possible. That needs TLS and a certificate with binding data ([`Channel::end_point`]).
    #[must_use]
    pub const fn for_channel(channel: Channel<'_>) -> Self {
        match channel.end_point() {
            Some(_) => Self::ScramAndPlus,
            None => Self::Scram,
        }
    }
}

/// A SCRAM exchange (RFC 5802) whose challenge, the server-first-message, was sent; the client's
/// proof is awaited.
#[derive(Debug)]
pub struct ScramServer {
    client_first_bare: String,
    server_first: String,
    /// The client's and the server's half of the nonce.
    nonce: String,
    /// The bytes to which attribute `c` of the proof must decode: GS2 header and channel data.
    binding: Vec<u8>,
}

/// The outcome of [`ScramServer::finish`] for a proof that matched a verifier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// The data of AuthenticationSASLFinal, which proves that pgimbal knows the verifier.
    pub message: String,
    /// Index of the verifier that matched, among those given to [`ScramServer::finish`].
    pub matched: usize,
}

impl ScramServer {
    /// Reads the mechanism that a client chose and its first message, and returns the challenge to
    /// send. The salt and iterations of `verifier` are shown to the client; `nonce` must be random.
    /// `channel` must be the one of the offer. The user name in the message is ignored, as in
    /// PostgreSQL.
    ///
    /// # Errors
    /// [`ScramError`] for a mechanism that was not offered, a malformed message, an unsupported
    /// feature, and a sign that channel binding was tampered with.
    pub fn begin(
        channel: Channel<'_>,
        mechanism: &[u8],
        first: &[u8],
        verifier: &ScramVerifier,
        nonce: [u8; NONCE_LEN],
    ) -> Result<(Self, String), ScramError> {
        let first = text(first)?;
        let (binding, bare) = read_header(channel, mechanism, first)?;
        let client_nonce = read_bare(bare)?;
        let nonce = format!("{client_nonce}{}", BASE64.encode(nonce));
        let salt = BASE64.encode(&verifier.salt);
        let server_first = format!("r={nonce},s={salt},i={}", verifier.iterations);
        let state = Self { client_first_bare: bare.to_owned(), server_first, nonce, binding };
        let challenge = state.server_first.clone();
        Ok((state, challenge))
    }

    /// Checks a client's proof by each verifier; all must have the salt and iterations that were
    /// shown. Every verifier is tried, so that the time taken does not depend on which one matches.
    /// An empty list gives [`ScramError::WrongProof`]; of several that match, the first counts. The
    /// exchange stays as it is, so that the same message can be checked again.
    ///
    /// # Errors
    /// [`ScramError::WrongProof`] when no verifier matches, [`ScramError::ChannelBinding`] when the
    /// client saw another TLS channel, and [`ScramError::Malformed`] for a message that breaks the
    /// grammar.
    pub fn finish<'v>(
        &self,
        last: &[u8],
        verifiers: impl IntoIterator<Item = &'v ScramVerifier>,
    ) -> Result<Accepted, ScramError> {
        let last = text(last)?;
        let (without_proof, proof) =
            last.rsplit_once(",p=").ok_or(ScramError::Malformed("proof expected"))?;
        let mut rest = without_proof;
        let binding = attribute(&mut rest, 'c', "channel binding expected")?;
        if decode(binding, "channel binding is not base64")? != self.binding {
            return Err(ScramError::ChannelBinding("the client saw another channel"));
        }
        if attribute(&mut rest, 'r', "nonce expected")? != self.nonce {
            return Err(ScramError::Malformed("nonce does not match"));
        }
        let proof = decode(proof, "proof is not base64")?
            .try_into()
            .map_err(|_| ScramError::Malformed("proof of wrong length"))?;
        let auth_message =
            format!("{},{},{without_proof}", self.client_first_bare, self.server_first);
        let mut accepted = None;
        for (index, verifier) in verifiers.into_iter().enumerate() {
            let signature = verifier.check_proof(auth_message.as_bytes(), &proof);
            accepted = accepted.or(signature.map(|signature| (index, signature)));
        }
        let (matched, signature) = accepted.ok_or(ScramError::WrongProof)?;
        Ok(Accepted { message: format!("v={}", BASE64.encode(signature)), matched })
    }
}

/// Checks the header against the mechanism and the channel. Gives what the proof must repeat, and
/// the message behind the header.
fn read_header<'a>(
    channel: Channel<'_>,
    mechanism: &[u8],
    first: &'a str,
) -> Result<(Vec<u8>, &'a str), ScramError> {
    let plus = match mechanism {
        name if name == MECHANISM.as_bytes() => false,
        name if name == MECHANISM_PLUS.as_bytes() && channel.end_point().is_some() => true,
        _ => return Err(ScramError::Malformed("mechanism was not offered")),
    };
    let (flag, rest) = first.split_once(',').ok_or(ScramError::Malformed("header expected"))?;
    let (authzid, bare) = rest.split_once(',').ok_or(ScramError::Malformed("header expected"))?;
    if !authzid.is_empty() {
        return Err(ScramError::Unsupported(
            "client uses authorization identity, but it is not supported",
        ));
    }
    let data: &[u8] = match (flag, plus) {
        ("n", false) => b"",
        ("y", false) if channel.end_point().is_none() => b"",
        ("y", false) => {
            return Err(ScramError::ChannelBinding(
                "the client supports it but thinks that the server does not",
            ));
        }
        ("p=tls-server-end-point", true) => channel.end_point().unwrap_or_default(),
        (other, true) if other.starts_with("p=") => {
            return Err(ScramError::Unsupported("unsupported SCRAM channel-binding type"));
        }
        _ => return Err(ScramError::Malformed("channel binding flag contradicts mechanism")),
    };
    debug_assert!(!plus || first.starts_with(BINDING_HEADER));
    let header = &first.as_bytes()[..first.len() - bare.len()];
    Ok(([header, data].concat(), bare))
}

/// Reads the message behind the header; its nonce. The name in it counts for nothing, as in
/// PostgreSQL: the startup packet has said it.
fn read_bare(bare: &str) -> Result<&str, ScramError> {
    if bare.starts_with("m=") {
        return Err(ScramError::Unsupported("client requires an unsupported SCRAM extension"));
    }
    let mut rest = bare;
    attribute(&mut rest, 'n', "user name expected")?;
    let nonce = attribute(&mut rest, 'r', "nonce expected")?;
    if is_nonce(nonce) { Ok(nonce) } else { Err(ScramError::Malformed("non-printable nonce")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONCE: [u8; NONCE_LEN] = [0; NONCE_LEN];

    #[test]
    fn rfc_7677_example() {
        let salt = BASE64.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let verifier = ScramVerifier::of_password(b"pencil", &salt, 4096);
        // The example's server nonce is no base64 of 18 bytes, so the state is set up by hand.
        let nonce = "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
        let state = ScramServer {
            client_first_bare: "n=user,r=rOprNGfwEbeRWgbNEkqO".to_owned(),
            server_first: format!("r={nonce},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"),
            nonce: nonce.to_owned(),
            binding: b"n,,".to_vec(),
        };
        let last = format!("c=biws,r={nonce},p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=");
        let accepted = state.finish(last.as_bytes(), [&verifier]).unwrap();
        assert_eq!(accepted.message, "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
    }

    #[test]
    fn behaviour_40_malformed_first_messages() {
        let verifier = ScramVerifier::of_password(b"x", b"salt", 1);
        let begin = |mechanism: &str, first: &[u8], channel| {
            ScramServer::begin(channel, mechanism.as_bytes(), first, &verifier, NONCE).map(|_| ())
        };
        let malformed: [&[u8]; 9] = [
            b"",
            b"n",
            b"n,,",
            b"n,,n=",
            b"n,,n=,r=",
            b"n,,r=a",
            b"x,,n=,r=a",
            b"\xff",
            b"n,,n=,r=\x01",
        ];
        for first in malformed {
            let result = begin(MECHANISM, first, Channel::Plain);
            assert!(matches!(result, Err(ScramError::Malformed(_))), "{first:?} {result:?}");
        }
        let bound = Channel::Tls { end_point: Some(b"h") };
        for (mechanism, first, channel) in [
            (MECHANISM_PLUS, &b"n,,n=,r=a"[..], bound),
            (MECHANISM_PLUS, b"y,,n=,r=a", bound),
            (MECHANISM_PLUS, b"p=tls-server-end-point,,n=,r=a", Channel::Plain),
            (MECHANISM, b"p=tls-server-end-point,,n=,r=a", bound),
            ("PLAIN", b"n,,n=,r=a", bound),
        ] {
            let result = begin(mechanism, first, channel);
            assert!(matches!(result, Err(ScramError::Malformed(_))), "{first:?} {result:?}");
        }
        for first in [&b"n,a=x,n=,r=a"[..], b"n,,m=1,n=,r=a"] {
            let result = begin(MECHANISM, first, Channel::Plain);
            assert!(matches!(result, Err(ScramError::Unsupported(_))), "{first:?}");
        }
        let unique = begin(MECHANISM_PLUS, b"p=tls-unique,,n=,r=a", bound);
        assert!(matches!(unique, Err(ScramError::Unsupported(_))));
    }

    #[test]
    fn behaviour_40_malformed_proofs() {
        let verifier = ScramVerifier::of_password(b"x", b"salt", 1);
        for last in ["", "p=", "c=biws", "c=biws,r=a,p=YQ==", "c=!,r=a,p=", "r=a,c=biws,p="] {
            let (state, _) = ScramServer::begin(
                Channel::Plain,
                b"SCRAM-SHA-256",
                b"n,,n=,r=a",
                &verifier,
                NONCE,
            )
            .unwrap();
            let result = state.finish(last.as_bytes(), [&verifier]);
            assert!(matches!(result, Err(ScramError::Malformed(_))), "{last} {result:?}");
        }
    }
}
