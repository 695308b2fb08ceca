//! The login at a server: how pgimbal answers the server's authentication requests.
//!
//! Source: "Message Flow" and "SASL Authentication" of the protocol's chapter, RFC 5802.

mod proof_computation;

use pgimbal_config::{AuthMethod, AuthMethods, PasswordForm, Secret};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::md5::Md5Hash;
use crate::scram::client::{AwaitsServerProof, ScramClient};
use crate::scram::{MECHANISM, MECHANISM_PLUS, NONCE_LEN, ScramError};
use crate::{Channel, ErrorSource};

pub use self::proof_computation::{ComputedProof, ProofComputation};

/// The authentication methods that a server may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AllowedAuth {
    /// The methods that the option `require_auth` allows; `None` when it is not set, so that every
    /// method is allowed.
    pub methods: Option<AuthMethods>,
    /// Whether the other end of the connection is certainly the right server: behind a Unix socket,
    /// or over TLS with a verified certificate. A password is sent in clear text only then, unless
    /// `methods` lists `password`.
    pub is_private: bool,
}

impl AllowedAuth {
    /// Checks that the server may ask for `method`.
    fn check(self, method: AuthMethod) -> Result<(), ServerLoginError> {
        match self.methods {
            Some(methods) if !methods.allows(method) => {
                Err(ServerLoginError::MethodRefused(method.name()))
            }
            _ => Ok(()),
        }
    }

    fn check_cleartext(self) -> Result<(), ServerLoginError> {
        self.check(AuthMethod::Password)?;
        let is_named = self.methods.is_some_and(|methods| methods.lists(AuthMethod::Password));
        (self.is_private || is_named).then_some(()).ok_or(ServerLoginError::CleartextRefused)
    }
}

/// An authentication request of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request<'a> {
    /// AuthenticationOk: the login succeeded.
    Ok,
    /// AuthenticationCleartextPassword: the password itself is asked for.
    Cleartext,
    /// AuthenticationMD5Password, with the salt.
    Md5([u8; 4]),
    /// AuthenticationSASL, with the names of the mechanisms.
    Sasl(&'a [&'a [u8]]),
    /// AuthenticationSASLContinue, with the challenge.
    SaslContinue(&'a [u8]),
    /// AuthenticationSASLFinal, with the server's signature.
    SaslFinal(&'a [u8]),
    /// A method that pgimbal does not speak, by its number in the protocol.
    Unsupported(u32),
}

/// pgimbal's answer to an authentication request. `Debug` masks its content.
#[derive(PartialEq, Eq)]
pub enum Reply {
    /// No message: the server sends its next request unasked. It follows AuthenticationSASLFinal.
    Wait,
    /// No message: the login is complete. It follows AuthenticationOk; ParameterStatus messages
    /// come next.
    Done,
    /// PasswordMessage, to be sent with a terminator: the password, or the answer to an MD5
    /// challenge.
    Password(Zeroizing<Vec<u8>>),
    /// SASLInitialResponse: the choice of a mechanism.
    SaslInitial {
        /// Name of the mechanism that pgimbal chose.
        mechanism: &'static str,
        /// The mechanism's first message, the client-first-message of RFC 5802.
        response: Vec<u8>,
    },
    /// A proof that must be computed first; its result is handed to [`ServerLogin::handle_proof`].
    /// [`ProofComputation::run`] computes it, outside of a worker's loop.
    Prove(ProofComputation),
    /// SASLResponse with the client-final-message, which has the proof.
    SaslResponse(Vec<u8>),
}

impl std::fmt::Debug for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Wait => "Wait",
            Self::Done => "Done",
            Self::Password(_) => "Password(***)",
            Self::SaslInitial { .. } => "SaslInitial(***)",
            Self::Prove(_) => "Prove(***)",
            Self::SaslResponse(_) => "SaslResponse(***)",
        })
    }
}

/// A login at a server, which answers one request after another.
#[derive(Debug)]
pub struct ServerLogin<'a> {
    user: &'a str,
    password: Option<&'a Secret>,
    channel: Channel<'a>,
    allowed: AllowedAuth,
    state: State,
}

#[derive(Debug)]
enum State {
    /// No request has arrived yet; the nonce is for SCRAM.
    Start([u8; NONCE_LEN]),
    ScramChallenge(ScramClient),
    /// The proof is being computed.
    ComputingProof,
    ScramProof(AwaitsServerProof),
    /// Every request so far has been answered.
    Answered,
}

impl<'a> ServerLogin<'a> {
    /// Begins a login as the role `user`. `password` is `None` when no password is known; `nonce`
    /// must be random. `channel` is the connection to the server; `password` may be clear text, or
    /// an MD5 hash, which answers MD5 only.
    #[must_use]
    pub const fn new(
        user: &'a str,
        password: Option<&'a Secret>,
        channel: Channel<'a>,
        allowed: AllowedAuth,
        nonce: [u8; NONCE_LEN],
    ) -> Self {
        Self { user, password, channel, allowed, state: State::Start(nonce) }
    }

    /// Answers an authentication request. The caller sends the reply and calls this again for the
    /// next request, until [`Reply::Done`]. SCRAM-SHA-256-PLUS is chosen when the server offers it
    /// and the channel allows binding.
    ///
    /// # Errors
    /// [`ServerLoginError`] when the request is not allowed, cannot be answered with what is known,
    /// or does not follow from the one before. The connection must be closed then.
    pub fn answer(&mut self, request: Request<'_>) -> Result<Reply, ServerLoginError> {
        let state = std::mem::replace(&mut self.state, State::Answered);
        match (state, request) {
            (State::Start(_), Request::Ok) => {
                self.allowed.check(AuthMethod::None)?;
                Ok(Reply::Done)
            }
            (State::Answered, Request::Ok) => Ok(Reply::Done),
            (State::Start(_), Request::Cleartext) => self.cleartext(),
            (State::Start(_), Request::Md5(salt)) => self.md5(salt),
            (State::Start(nonce), Request::Sasl(mechanisms)) => self.choose(mechanisms, nonce),
            (State::ScramChallenge(scram), Request::SaslContinue(challenge)) => {
                let password = Zeroizing::new(self.plain()?.expose().as_bytes().to_vec());
                self.state = State::ComputingProof;
                Ok(Reply::Prove(ProofComputation {
                    scram,
                    password,
                    challenge: challenge.to_vec(),
                }))
            }
            (State::ScramProof(state), Request::SaslFinal(last)) => {
                state.finish(last)?;
                Ok(Reply::Wait)
            }
            (State::ScramChallenge(_) | State::ScramProof(_), Request::Ok) => {
                Err(ServerLoginError::ProofSkipped)
            }
            (_, Request::Unsupported(method)) => Err(ServerLoginError::Unsupported(method)),
            _ => Err(ServerLoginError::Unexpected),
        }
    }

    /// Answers the server's SCRAM challenge with a computed proof. Called once after
    /// [`Reply::Prove`]; the reply is [`Reply::SaslResponse`], to be sent to the server.
    ///
    /// # Errors
    /// [`ServerLoginError::Scram`] when the challenge was malformed, or asked for more than 1,000,000
    /// iterations.
    pub fn handle_proof(&mut self, proof: ComputedProof) -> Result<Reply, ServerLoginError> {
        let (state, response) = proof.0?;
        self.state = State::ScramProof(state);
        Ok(Reply::SaslResponse(response))
    }

    fn cleartext(&self) -> Result<Reply, ServerLoginError> {
        self.allowed.check_cleartext()?;
        let password = self.plain()?.expose().as_bytes().to_vec();
        Ok(Reply::Password(Zeroizing::new(password)))
    }

    fn md5(&self, salt: [u8; 4]) -> Result<Reply, ServerLoginError> {
        self.allowed.check(AuthMethod::Md5)?;
        let secret = self.password.ok_or_else(|| self.no_password())?;
        let hash = match PasswordForm::of(secret) {
            PasswordForm::Plain => Md5Hash::of(secret.expose().as_bytes(), self.user.as_bytes()),
            PasswordForm::Md5 => {
                Md5Hash::parse(secret.expose()).ok_or_else(|| self.no_password())?
            }
            PasswordForm::Scram => return Err(self.no_password()),
        };
        Ok(Reply::Password(Zeroizing::new(hash.answer(salt).to_vec())))
    }

    fn choose(
        &mut self,
        mechanisms: &[&[u8]],
        nonce: [u8; NONCE_LEN],
    ) -> Result<Reply, ServerLoginError> {
        self.allowed.check(AuthMethod::ScramSha256)?;
        let offers = |name: &str| mechanisms.contains(&name.as_bytes());
        let plus = offers(MECHANISM_PLUS);
        if !(offers(MECHANISM) || plus && self.channel.end_point().is_some()) {
            return Err(ServerLoginError::NoMechanism);
        }
        self.plain()?;
        let (scram, mechanism, response) = ScramClient::begin(self.channel, plus, nonce);
        self.state = State::ScramChallenge(scram);
        Ok(Reply::SaslInitial { mechanism, response })
    }

    /// The password itself; a hash or a verifier cannot prove anything in clear text or SCRAM.
    fn plain(&self) -> Result<&'a Secret, ServerLoginError> {
        self.password
            .filter(|secret| PasswordForm::of(secret) == PasswordForm::Plain)
            .ok_or_else(|| self.no_password())
    }

    fn no_password(&self) -> ServerLoginError {
        match self.password {
            None => ServerLoginError::NoPassword(self.user.into()),
            Some(_) => ServerLoginError::OnlyHash(self.user.into()),
        }
    }
}

/// The reason for which a login at a server failed (protocol, "Message Flow", Start-up). `Display`
/// is the message for waiting clients.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ServerLoginError {
    /// The server asks for the password of this role, and none is configured.
    #[error("the server asks for a password of role \"{0}\" and none is configured")]
    NoPassword(Box<str>),
    /// The server asks for a proof that the stored hash or verifier of this role's password cannot
    /// give.
    #[error("the server asks role \"{0}\" for its password, but only a hash of it is configured")]
    OnlyHash(Box<str>),
    /// The server asks for the password in clear text, and nothing proves that it is the right
    /// server. The password was not sent.
    #[error(
        "the server asks for the password in clear text, and nothing proves that it is the right \
         server: use sslmode \"verify-full\" or \"verify-ca\", or say require_auth = \"password\""
    )]
    CleartextRefused,
    /// The server asks for a method that `require_auth` does not allow, by the name of the method
    /// in `require_auth`.
    #[error("the server asks for authentication \"{0}\", which require_auth does not allow")]
    MethodRefused(&'static str),
    /// The server asks for a method that pgimbal does not speak, such as GSSAPI or SSPI, with its
    /// number in the protocol. 7 is GSSAPI and 9 SSPI.
    #[error("the server asks for authentication method {0}, which pgimbal does not support")]
    Unsupported(u32),
    /// The server offers no SASL mechanism that pgimbal speaks. SCRAM-SHA-256-PLUS alone counts
    /// only over TLS with binding data.
    #[error("the server offers no SASL mechanism that pgimbal supports")]
    NoMechanism,
    /// The server sent AuthenticationOk before it proved in SCRAM that it knows the password's
    /// verifier.
    #[error("the server ended SCRAM without proving that it knows the password")]
    ProofSkipped,
    /// The server sent a request that does not follow from the one before. For example a second
    /// AuthenticationSASL, or AuthenticationSASLContinue at the start.
    #[error("the server sent an unexpected authentication request")]
    Unexpected,
    /// The SCRAM exchange failed: the server broke its grammar or does not know the password.
    #[error("SCRAM with the server failed: {0}")]
    Scram(#[from] ScramError),
}

impl ServerLoginError {
    /// SQLSTATE of the error that waiting clients are sent: 28000 when the operator can remove its
    /// cause, 08P01 when the server broke the protocol.
    #[must_use]
    pub const fn sqlstate(&self) -> &'static str {
        match self.error_source() {
            ErrorSource::Operator => "28000",
            _ => "08P01",
        }
    }

    /// The side that can remove the error: the operator or the server. The server for
    /// [`Self::ProofSkipped`], [`Self::Unexpected`] and [`Self::Scram`], the operator for all
    /// others. A wrong password is no error here: the server reports it itself.
    #[must_use]
    pub const fn error_source(&self) -> ErrorSource {
        match self {
            Self::NoPassword(_)
            | Self::OnlyHash(_)
            | Self::CleartextRefused
            | Self::MethodRefused(_)
            | Self::Unsupported(_)
            | Self::NoMechanism => ErrorSource::Operator,
            Self::ProofSkipped | Self::Unexpected | Self::Scram(_) => ErrorSource::Server,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scram::server::ScramServer;
    use crate::verifier::ScramVerifier;

    fn login<'a>(password: Option<&'a Secret>, channel: Channel<'a>) -> ServerLogin<'a> {
        let nonce = [4; NONCE_LEN];
        let allowed = AllowedAuth { methods: None, is_private: channel != Channel::Plain };
        ServerLogin::new("app", password, channel, allowed, nonce)
    }

    #[test]
    fn scram_with_and_without_channel_binding() {
        let password = Secret::from("pw");
        let verifier = ScramVerifier::of_password(b"pw", b"salt", 10);
        for channel in [Channel::Plain, Channel::Tls { end_point: Some(b"h") }] {
            let offered: &[&[u8]] = match channel {
                Channel::Plain => &[b"SCRAM-SHA-256"],
                Channel::Tls { .. } => &[b"SCRAM-SHA-256-PLUS", b"SCRAM-SHA-256"],
            };
            let mut login = login(Some(&password), channel);
            let Ok(Reply::SaslInitial { mechanism, response }) =
                login.answer(Request::Sasl(offered))
            else {
                panic!("answers");
            };
            assert_eq!(mechanism.as_bytes(), offered[0]);
            let (server, challenge) = ScramServer::begin(
                channel,
                mechanism.as_bytes(),
                &response,
                &verifier,
                [8; NONCE_LEN],
            )
            .unwrap();
            let Ok(Reply::Prove(computation)) =
                login.answer(Request::SaslContinue(challenge.as_bytes()))
            else {
                panic!("proves");
            };
            assert_eq!(computation.iterations(), 10);
            let Ok(Reply::SaslResponse(last)) = login.handle_proof(computation.run()) else {
                panic!("answers");
            };
            let accepted = server.finish(&last, [&verifier]).unwrap();
            let last = login.answer(Request::SaslFinal(accepted.message.as_bytes()));
            assert_eq!(last, Ok(Reply::Wait));
            assert_eq!(login.answer(Request::Ok), Ok(Reply::Done));
        }
    }

    #[test]
    fn a_server_that_skips_its_proof_is_refused() {
        let password = Secret::from("pw");
        let mut login = login(Some(&password), Channel::Plain);
        login.answer(Request::Sasl(&[b"SCRAM-SHA-256"])).unwrap();
        assert_eq!(login.answer(Request::Ok), Err(ServerLoginError::ProofSkipped));
    }

    #[test]
    fn clear_text_and_md5() {
        let password = Secret::from("pw");
        let tls = Channel::Tls { end_point: None };
        let reply = login(Some(&password), tls).answer(Request::Cleartext);
        assert_eq!(reply, Ok(Reply::Password(Zeroizing::new(b"pw".to_vec()))));
        let refused = login(Some(&password), Channel::Plain).answer(Request::Cleartext);
        assert_eq!(refused, Err(ServerLoginError::CleartextRefused));
        let Ok(Reply::Password(answer)) =
            login(Some(&password), tls).answer(Request::Md5(*b"salt"))
        else {
            panic!("answers");
        };
        assert_eq!(answer[..], Md5Hash::of(b"pw", b"app").answer(*b"salt"));
    }

    #[test]
    fn what_is_missing_is_the_operators_fault() {
        let none = login(None, Channel::Plain).answer(Request::Md5(*b"salt")).unwrap_err();
        assert_eq!(none, ServerLoginError::NoPassword("app".into()));
        assert_eq!(none.error_source(), ErrorSource::Operator);
        let hash = Secret::from("SCRAM-SHA-256$whatever");
        let only_hash =
            login(Some(&hash), Channel::Plain).answer(Request::Sasl(&[b"SCRAM-SHA-256"]));
        assert_eq!(only_hash, Err(ServerLoginError::OnlyHash("app".into())));
        let other = login(None, Channel::Plain).answer(Request::Unsupported(7));
        assert_eq!(other, Err(ServerLoginError::Unsupported(7)));
        let sasl = login(None, Channel::Plain).answer(Request::Sasl(&[b"OAUTHBEARER"]));
        assert_eq!(sasl, Err(ServerLoginError::NoMechanism));
    }
}
