//! The login of a client: what it is asked, and whether its answer is right.
//!
//! A user who does not exist is asked the same questions and refused in the same way, with the same
//! work. Source: "Message Flow" and "SASL Authentication" of the protocol's chapter, RFC 5802.

mod unmatched_proof;

use pgimbal_config::AuthType;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::Channel;
use crate::account::{CleartextCost, Proof, wants_derivation};
use crate::scram::server::{Offer, ScramServer};
use crate::scram::{NONCE_LEN, ScramError};
use crate::verifier::{DEFAULT_ITERATIONS, SaltKey, SaltParameters, ScramVerifier};

pub use self::unmatched_proof::UnmatchedProof;
pub use crate::account::{Account, MatchedPassword};

/// The authentication method of clients, from the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Method {
    /// The option `auth_type`: how clients are asked for their passwords.
    pub auth_type: AuthType,
    /// The work with which a password in clear text is checked, the same for every user.
    pub cleartext_cost: CleartextCost,
}

/// Random bytes for one login of a client, from a cryptographic source; they must never be used
/// twice.
#[derive(Clone, Copy)]
pub struct LoginRandomness {
    /// The server's half of a SCRAM nonce, before Base64. 18 bytes; not used by other methods.
    pub nonce: [u8; NONCE_LEN],
    /// The salt of an MD5 challenge, 4 bytes. Not used by other methods.
    pub md5_salt: [u8; 4],
}

/// An authentication request to a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientRequest {
    /// AuthenticationCleartextPassword; [`Answer::Password`] must follow.
    Cleartext,
    /// AuthenticationMD5Password with this salt; [`Answer::Password`] must follow.
    Md5([u8; 4]),
    /// AuthenticationSASL with these mechanisms; [`Answer::SaslInitial`] must follow.
    Sasl(Offer),
    /// AuthenticationSASLContinue with this challenge; [`Answer::SaslResponse`] must follow. The
    /// challenge is the server-first-message of RFC 5802: nonce, salt and iterations.
    SaslContinue(String),
}

/// A client's answer to an authentication request.
#[derive(Clone, Copy)]
pub enum Answer<'a> {
    /// PasswordMessage: a password, or the answer to an MD5 challenge, without its terminator.
    Password(&'a [u8]),
    /// SASLInitialResponse: the choice of a mechanism.
    SaslInitial {
        /// Name of the mechanism that the client chose.
        mechanism: &'a [u8],
        /// The mechanism's first message; empty when the client sent none.
        response: &'a [u8],
    },
    /// SASLResponse with the mechanism's next message.
    SaslResponse(&'a [u8]),
}

/// The next step of a client's login, from [`ClientLogin::begin`] and [`ClientLogin::answer`].
#[derive(Debug)]
pub enum Step<'a> {
    /// The client must be sent this request; the login goes on with its answer. Pass that to
    /// [`ClientLogin::answer`].
    Request(ClientLogin<'a>, ClientRequest),
    /// The client is authenticated; AuthenticationOk can be sent.
    Accepted(Accepted),
    /// The client's proof fits none of the known passwords. It may still fit a newer password that
    /// its source has not delivered yet. The client waits meanwhile; end the login with
    /// [`UnmatchedProof::retry`] or [`UnmatchedProof::error`].
    Unmatched(UnmatchedProof),
}

/// A login that succeeded; AuthenticationOk can be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// The data of AuthenticationSASLFinal, to be sent before AuthenticationOk; `None` without
    /// SCRAM.
    pub message: Option<String>,
    /// The password that the client has shown; `None` when it was asked for none (`auth_type =
    /// "trust"`).
    pub matched: Option<MatchedPassword>,
}

/// A client's login that waits for an answer. It holds no account: an answer is checked by the
/// account that is in force when it arrives, because passwords may have been revoked since the
/// request.
#[derive(Debug)]
pub struct ClientLogin<'a> {
    user: &'a str,
    channel: Channel<'a>,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Waits for the password; a key that was derived with the parameters may be at hand.
    Password(SaltParameters, CleartextCost, Option<ScramVerifier>),
    Md5([u8; 4]),
    /// Waits for the mechanism and the first message. The verifier is one with the salt and
    /// iterations to show.
    ScramChoice(Box<ScramVerifier>, [u8; NONCE_LEN]),
    /// Waits for the proof.
    ScramProof(Box<ScramVerifier>, Box<ScramServer>),
}

impl<'a> ClientLogin<'a> {
    /// Begins the login of `user`, whose account is `None` when there is no such user. Such a user
    /// is asked what `method` says and refused in the end. With `AuthType::Trust` nobody is asked,
    /// and the PostgreSQL server reports a role that does not exist. An account's own method counts
    /// over `method`: SCRAM for a verifier with `auth_type = "md5"`. SCRAM-SHA-256-PLUS is offered
    /// when `channel` allows binding.
    #[must_use]
    pub fn begin(
        method: Method,
        user: &'a str,
        account: Option<&Account>,
        channel: Channel<'a>,
        salts: &SaltKey,
        randomness: LoginRandomness,
    ) -> Step<'a> {
        // Made for every user, so that it takes no time of its own for those who do not exist.
        let mock = Box::new(salts.mock_verifier(user.as_bytes()));
        let state = match (account.map(|account| &account.proof), method.auth_type) {
            (Some(Proof::Trust), _) | (None, AuthType::Trust) => {
                return Step::Accepted(Accepted { message: None, matched: None });
            }
            (Some(Proof::Password(salt_parameters, _)), _) => {
                State::Password(salt_parameters.clone(), method.cleartext_cost, None)
            }
            (None, AuthType::Password) => {
                let salt_parameters =
                    SaltParameters { salt: mock.salt.clone(), iterations: DEFAULT_ITERATIONS };
                State::Password(salt_parameters, method.cleartext_cost, None)
            }
            (Some(Proof::Md5(_)), _) | (None, AuthType::Md5) => State::Md5(randomness.md5_salt),
            (Some(Proof::Scram(shown, _)), _) => {
                State::ScramChoice(shown.clone(), randomness.nonce)
            }
            (None, AuthType::ScramSha256) => State::ScramChoice(mock, randomness.nonce),
        };
        let request = match &state {
            State::Password(..) => ClientRequest::Cleartext,
            State::Md5(salt) => ClientRequest::Md5(*salt),
            State::ScramChoice(..) | State::ScramProof(..) => {
                ClientRequest::Sasl(Offer::for_channel(channel))
            }
        };
        Step::Request(Self { user, channel, state }, request)
    }

    /// The key derivation that checking `password` by `account` needs; `None` when it needs none. A
    /// derivation costs milliseconds, so it should run outside of a worker's loop; its result is
    /// handed to [`Self::derived`].
    #[must_use]
    pub fn derivation(&self, password: &[u8], account: Option<&Account>) -> Option<Derivation> {
        let State::Password(salt_parameters, cost, None) = &self.state else { return None };
        let keys = match account.map(|account| &account.proof) {
            Some(Proof::Password(_, keys)) => keys.as_slice(),
            _ => &[],
        };
        wants_derivation(keys, *cost).then(|| Derivation {
            password: Zeroizing::new(password.to_vec()),
            salt_parameters: salt_parameters.clone(),
        })
    }

    /// Adds the result of [`Self::derivation`], for the password that is checked next. Without it,
    /// [`Self::answer`] derives the key itself, if it needs one, and blocks. No effect when the
    /// login waits for anything but a password in clear text.
    #[must_use]
    pub fn derived(mut self, verifier: ScramVerifier) -> Self {
        if let State::Password(_, _, derived) = &mut self.state {
            *derived = Some(verifier);
        }
        self
    }

    /// Checks an answer by the user's account, which is `None` when there is no such user. The
    /// login is consumed and goes on in [`Step::Request`]. Blocks for a key derivation when one is
    /// needed and [`Self::derived`] was not called.
    ///
    /// # Errors
    /// [`ClientLoginError`] when the answer is not the message that was asked for, or a SCRAM
    /// message is refused. A wrong password is [`Step::Unmatched`] and no error yet.
    pub fn answer(
        self,
        answer: Answer<'_>,
        account: Option<&Account>,
    ) -> Result<Step<'a>, ClientLoginError> {
        let Self { user, channel, state } = self;
        let unmatched = match (state, answer) {
            (State::Password(salt_parameters, cost, derived), Answer::Password(password)) => {
                UnmatchedProof::of_password(user, salt_parameters, cost, password, derived)
            }
            (State::Md5(salt), Answer::Password(answer)) => {
                UnmatchedProof::of_md5(user, answer, salt)
            }
            (State::ScramChoice(shown, nonce), Answer::SaslInitial { mechanism, response }) => {
                let (server, challenge) =
                    ScramServer::begin(channel, mechanism, response, &shown, nonce)
                        .map_err(|err| ClientLoginError::scram(user, err))?;
                let state = State::ScramProof(shown, Box::new(server));
                let login = Self { user, channel, state };
                return Ok(Step::Request(login, ClientRequest::SaslContinue(challenge)));
            }
            (State::ScramProof(shown, server), Answer::SaslResponse(response)) => {
                UnmatchedProof::of_scram(user, shown, server, response)
            }
            _ => return Err(ClientLoginError::UnexpectedAnswer),
        };
        Ok(match unmatched.against(account)? {
            Some(accepted) => Step::Accepted(accepted),
            None => Step::Unmatched(unmatched),
        })
    }
}

/// A key derivation (PBKDF2) for a password that a client has sent in clear text.
/// [`ClientLogin::derivation`] returns it. The password is wiped when this is dropped.
pub struct Derivation {
    password: Zeroizing<Vec<u8>>,
    salt_parameters: SaltParameters,
}

impl std::fmt::Debug for Derivation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Derivation(***)")
    }
}

impl Derivation {
    /// Number of PBKDF2 iterations that this derivation takes; 4096 take a few milliseconds.
    #[must_use]
    pub const fn iterations(&self) -> u32 {
        self.salt_parameters.iterations
    }

    /// Runs the derivation; blocks for milliseconds. The result belongs to
    /// [`ClientLogin::derived`]: the verifier of the client's password with the salt of the user's
    /// account.
    #[must_use]
    pub fn run(self) -> ScramVerifier {
        ScramVerifier::of_password(
            &self.password,
            &self.salt_parameters.salt,
            self.salt_parameters.iterations,
        )
    }
}

/// The reason for which a client's login failed; `Display` is PostgreSQL's message for it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ClientLoginError {
    /// The password of this user is wrong, or there is no such user; the client is not told which.
    #[error("password authentication failed for user \"{0}\"")]
    WrongPassword(Box<str>),
    /// The client's message is not the one that was asked for. For example a SASLResponse where a
    /// PasswordMessage was due.
    #[error("unexpected authentication message")]
    UnexpectedAnswer,
    /// The SCRAM exchange failed for a reason other than a wrong password. It is malformed, asks
    /// for an unsupported feature, or fails channel binding; never [`ScramError::WrongProof`].
    #[error("{0}")]
    Scram(ScramError),
}

impl ClientLoginError {
    fn scram(user: &str, error: ScramError) -> Self {
        match error {
            ScramError::WrongProof => Self::WrongPassword(user.into()),
            other => Self::Scram(other),
        }
    }

    /// SQLSTATE of the FATAL ErrorResponse, as PostgreSQL chooses it: 28P01 for a wrong password,
    /// 28000 for channel binding, 0A000 for unsupported SCRAM features, and 08P01 for malformed
    /// messages.
    #[must_use]
    pub const fn sqlstate(&self) -> &'static str {
        match self {
            Self::WrongPassword(_) => "28P01",
            Self::Scram(ScramError::ChannelBinding(_)) => "28000",
            Self::Scram(ScramError::Unsupported(_)) => "0A000",
            Self::UnexpectedAnswer
            | Self::Scram(ScramError::Malformed(_) | ScramError::WrongProof) => "08P01",
        }
    }
}

#[cfg(test)]
mod tests;
