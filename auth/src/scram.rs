//! SCRAM-SHA-256 (RFC 5802, RFC 7677) and SCRAM-SHA-256-PLUS, which is bound to the TLS channel
//! (RFC 5929).

pub mod client;
pub mod server;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use thiserror::Error;

/// Name of the mechanism without channel binding (RFC 7677). The server offers it in
/// AuthenticationSASL, and the client chooses it in SASLInitialResponse.
pub const MECHANISM: &str = "SCRAM-SHA-256";
/// Name of the mechanism with channel binding (RFC 7677), which PostgreSQL offers over TLS only.
pub const MECHANISM_PLUS: &str = "SCRAM-SHA-256-PLUS";

/// Length of one side's half of the nonce in random bytes, before Base64: PostgreSQL's
/// `SCRAM_RAW_NONCE_LEN`.
pub const NONCE_LEN: usize = 18;

/// The only binding type that PostgreSQL speaks.
const BINDING_HEADER: &str = "p=tls-server-end-point,,";

/// The reason for which a SCRAM message is refused. The exchange is over then. The text of a
/// variant is a fixed one in English and quotes nothing of the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ScramError {
    /// The message breaks the grammar of RFC 5802; the text says where.
    #[error("malformed SCRAM message: {0}")]
    Malformed(&'static str),
    /// The message asks for a feature that PostgreSQL does not support either. The text names it:
    /// an authorization identity, another channel-binding type, or an extension.
    #[error("{0}")]
    Unsupported(&'static str),
    /// The two sides see different TLS channels, or somebody in between has removed
    /// SCRAM-SHA-256-PLUS from the offer. The text says which of the two. Only
    /// [`server::ScramServer`] finds this.
    #[error("SCRAM channel binding check failed: {0}")]
    ChannelBinding(&'static str),
    /// The proof does not match the password: the client's proof (RFC 5802, ClientProof) or the
    /// server's signature (ServerSignature) is wrong.
    #[error("the SCRAM proof does not match")]
    WrongProof,
}

/// Takes the value of attribute `name` and the comma after it off the front of `rest`.
fn attribute<'a>(
    rest: &mut &'a str,
    name: char,
    missing: &'static str,
) -> Result<&'a str, ScramError> {
    let value = rest
        .strip_prefix(name)
        .and_then(|tail| tail.strip_prefix('='))
        .ok_or(ScramError::Malformed(missing))?;
    let (value, tail) = value.split_once(',').unwrap_or((value, ""));
    *rest = tail;
    Ok(value)
}

fn text(message: &[u8]) -> Result<&str, ScramError> {
    // RFC 5802 allows UTF-8 only, and no zero byte.
    std::str::from_utf8(message)
        .ok()
        .filter(|text| !text.contains('\0'))
        .ok_or(ScramError::Malformed("not UTF-8"))
}

fn decode(value: &str, what: &'static str) -> Result<Vec<u8>, ScramError> {
    BASE64.decode(value).map_err(|_| ScramError::Malformed(what))
}

/// Printable ASCII without a comma.
fn is_nonce(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b',')
}

#[cfg(test)]
mod tests {
    use super::client::ScramClient;
    use super::server::{Offer, ScramServer};
    use super::*;
    use crate::Channel;
    use crate::verifier::ScramVerifier;

    const CLIENT: [u8; NONCE_LEN] = [1; NONCE_LEN];
    const SERVER: [u8; NONCE_LEN] = [2; NONCE_LEN];

    /// Runs a whole exchange; which verifier matched.
    fn exchange(
        password: &[u8],
        verifiers: &[&ScramVerifier],
        client: Channel<'_>,
        server: Channel<'_>,
    ) -> Result<usize, ScramError> {
        let offer = Offer::for_channel(server);
        let (state, mechanism, first) =
            ScramClient::begin(client, offer == Offer::ScramAndPlus, CLIENT);
        let (server_state, challenge) =
            ScramServer::begin(server, mechanism.as_bytes(), &first, verifiers[0], SERVER)?;
        let (state, last) = state.answer(password, challenge.as_bytes())?;
        let accepted = server_state.finish(&last, verifiers.iter().copied())?;
        state.finish(accepted.message.as_bytes())?;
        Ok(accepted.matched)
    }

    #[test]
    fn a_right_password_is_accepted_and_a_wrong_one_is_not() {
        let verifier = ScramVerifier::of_password(b"pencil", b"salt", 10);
        for channel in [Channel::Plain, Channel::Tls { end_point: Some(b"hash") }] {
            assert_eq!(exchange(b"pencil", &[&verifier], channel, channel), Ok(0));
            let wrong = exchange(b"pen", &[&verifier], channel, channel);
            assert_eq!(wrong, Err(ScramError::WrongProof));
        }
    }

    #[test]
    fn any_of_several_passwords_is_accepted() {
        let verifiers = [b"new", b"old"].map(|p| ScramVerifier::of_password(p, b"salt", 10));
        let both = [&verifiers[0], &verifiers[1]];
        assert_eq!(exchange(b"old", &both, Channel::Plain, Channel::Plain), Ok(1));
        assert_eq!(exchange(b"new", &both, Channel::Plain, Channel::Plain), Ok(0));
    }

    #[test]
    fn behaviour_41_another_certificate_in_between_is_noticed() {
        let verifier = ScramVerifier::of_password(b"pencil", b"salt", 10);
        let client = Channel::Tls { end_point: Some(b"theirs") };
        let server = Channel::Tls { end_point: Some(b"ours") };
        let result = exchange(b"pencil", &[&verifier], client, server);
        assert!(matches!(result, Err(ScramError::ChannelBinding(_))), "{result:?}");
    }

    #[test]
    fn a_hidden_stronger_mechanism_is_noticed() {
        // The client believes that PLUS was not offered ('y'), the server knows that it was.
        let verifier = ScramVerifier::of_password(b"pencil", b"salt", 10);
        let channel = Channel::Tls { end_point: Some(b"hash") };
        let (_, mechanism, first) = ScramClient::begin(channel, false, CLIENT);
        assert_eq!(mechanism, MECHANISM);
        assert!(first.starts_with(b"y,,"));
        let result = ScramServer::begin(channel, mechanism.as_bytes(), &first, &verifier, SERVER);
        assert!(matches!(result, Err(ScramError::ChannelBinding(_))));
    }
}
