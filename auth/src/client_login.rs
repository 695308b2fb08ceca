//! What a client is asked, and whether its answer is right.
//!
//! A user who does not exist is asked the same and fails in the same way, with the same work.

mod mismatch;

use pgimbal_config::AuthType;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::account::{ClearWork, Proof, wants_derivation};
use crate::scram::server::{Offer, ScramServer};
use crate::scram::{NONCE_LEN, ScramError};
use crate::verifier::{DEFAULT_ITERATIONS, SaltKey, Salting, ScramVerifier};
use crate::{Channel, ErrorSource};

pub use self::mismatch::Mismatch;
pub use crate::account::{Account, Matched};

/// How clients are asked for their passwords.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Method {
    /// What they must prove.
    pub auth_type: AuthType,
    /// What a password in clear costs, whoever it is for.
    pub clear_work: ClearWork,
}

/// Random bytes for one login.
#[derive(Clone, Copy)]
pub struct Fresh {
    /// Our half of a SCRAM nonce.
    pub nonce: [u8; NONCE_LEN],
    /// The salt of an MD5 challenge.
    pub md5_salt: [u8; 4],
}

/// What to ask a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Its password in clear; an [`Answer::Password`] must follow.
    Cleartext,
    /// Its password hashed with this salt; an [`Answer::Password`] must follow.
    Md5([u8; 4]),
    /// One of these mechanisms; an [`Answer::SaslInitial`] must follow.
    Sasl(Offer),
    /// The SASL challenge; an [`Answer::SaslResponse`] must follow.
    SaslContinue(String),
}

/// What a client answered.
#[derive(Clone, Copy)]
pub enum Answer<'a> {
    /// PasswordMessage, without its terminator.
    Password(&'a [u8]),
    /// SASLInitialResponse.
    SaslInitial {
        /// The mechanism that it chose.
        mechanism: &'a [u8],
        /// Its first message.
        response: &'a [u8],
    },
    /// SASLResponse.
    SaslResponse(&'a [u8]),
}

/// How a login goes on.
#[derive(Debug)]
pub enum Step<'a> {
    /// With a question.
    Ask(ClientLogin<'a>, Ask),
    /// The client is who it says.
    Accepted(Accepted),
    /// What it has shown fits none of the passwords that are known. It may still fit one that is
    /// learned in time.
    Mismatch(Mismatch),
}

/// A login that succeeded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// What the client must be sent first, over SCRAM.
    pub message: Option<String>,
    /// Which password it has shown; `None` when it was asked for none.
    pub matched: Option<Matched>,
}

/// One client's login, waiting for an answer. It holds no account: an answer is checked by the one
/// that is in force when it comes, and passwords may have been revoked since the question.
#[derive(Debug)]
pub struct ClientLogin<'a> {
    user: &'a str,
    channel: Channel<'a>,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Waits for the password; the salting is what a derived key is made with, which may be at
    /// hand.
    Password(Salting, ClearWork, Option<ScramVerifier>),
    Md5([u8; 4]),
    /// Waits for the mechanism and the first message. The verifier is one with the salt and
    /// iterations to show.
    ScramChoice(Box<ScramVerifier>, [u8; NONCE_LEN]),
    /// Waits for the proof.
    ScramProof(Box<ScramVerifier>, Box<ScramServer>),
}

impl<'a> ClientLogin<'a> {
    /// Begins the login of `user`, whose account is `None` when there is no such user; it is then
    /// asked what the method asks and refused in the end. With `trust` nothing is asked, and the
    /// server says what it does not know.
    #[must_use]
    pub fn begin(
        method: Method,
        user: &'a str,
        account: Option<&Account>,
        channel: Channel<'a>,
        salts: &SaltKey,
        fresh: Fresh,
    ) -> Step<'a> {
        // Made for every user, so that it takes no time of its own for those who do not exist.
        let mock = Box::new(salts.mock_verifier(user.as_bytes()));
        let state = match (account.map(|account| &account.proof), method.auth_type) {
            (Some(Proof::Trust), _) | (None, AuthType::Trust) => {
                return Step::Accepted(Accepted { message: None, matched: None });
            }
            (Some(Proof::Password(salting, _)), _) => {
                State::Password(salting.clone(), method.clear_work, None)
            }
            (None, AuthType::Password) => {
                let salting = Salting { salt: mock.salt.clone(), iterations: DEFAULT_ITERATIONS };
                State::Password(salting, method.clear_work, None)
            }
            (Some(Proof::Md5(_)), _) | (None, AuthType::Md5) => State::Md5(fresh.md5_salt),
            (Some(Proof::Scram(shown, _)), _) => State::ScramChoice(shown.clone(), fresh.nonce),
            (None, AuthType::ScramSha256) => State::ScramChoice(mock, fresh.nonce),
        };
        let ask = match &state {
            State::Password(..) => Ask::Cleartext,
            State::Md5(salt) => Ask::Md5(*salt),
            State::ScramChoice(..) | State::ScramProof(..) => Ask::Sasl(Offer::over(channel)),
        };
        Step::Ask(Self { user, channel, state }, ask)
    }

    /// What is to be derived from the password that came before it is checked by `account`; `None`
    /// when that takes no derivation. It costs milliseconds, so it should be run where it is in
    /// nobody's way; its result goes to [`Self::derived`].
    #[must_use]
    pub fn derivation(&self, password: &[u8], account: Option<&Account>) -> Option<Derivation> {
        let State::Password(salting, work, None) = &self.state else { return None };
        let keys = match account.map(|account| &account.proof) {
            Some(Proof::Password(_, keys)) => keys.as_slice(),
            _ => &[],
        };
        wants_derivation(keys, *work).then(|| Derivation {
            password: Zeroizing::new(password.to_vec()),
            salting: salting.clone(),
        })
    }

    /// The same login with what was derived from the password that is checked next.
    #[must_use]
    pub fn derived(mut self, verifier: ScramVerifier) -> Self {
        if let State::Password(_, _, derived) = &mut self.state {
            *derived = Some(verifier);
        }
        self
    }

    /// Checks an answer by the user's account as it is now.
    ///
    /// # Errors
    /// [`ClientLoginError`] when the answer is not one. A wrong password is no error yet.
    pub fn answer(
        self,
        answer: Answer<'_>,
        account: Option<&Account>,
    ) -> Result<Step<'a>, ClientLoginError> {
        let Self { user, channel, state } = self;
        let mismatch = match (state, answer) {
            (State::Password(salting, work, derived), Answer::Password(password)) => {
                Mismatch::of_password(user, salting, work, password, derived)
            }
            (State::Md5(salt), Answer::Password(answer)) => Mismatch::of_md5(user, answer, salt),
            (State::ScramChoice(shown, nonce), Answer::SaslInitial { mechanism, response }) => {
                let (server, challenge) =
                    ScramServer::begin(channel, mechanism, response, &shown, nonce)
                        .map_err(|err| ClientLoginError::scram(user, err))?;
                let state = State::ScramProof(shown, Box::new(server));
                let login = Self { user, channel, state };
                return Ok(Step::Ask(login, Ask::SaslContinue(challenge)));
            }
            (State::ScramProof(shown, server), Answer::SaslResponse(response)) => {
                Mismatch::of_scram(user, shown, server, response)
            }
            _ => return Err(ClientLoginError::UnexpectedAnswer),
        };
        Ok(match mismatch.against(account)? {
            Some(accepted) => Step::Accepted(accepted),
            None => Step::Mismatch(mismatch),
        })
    }
}

/// A key to be derived from a password that a client has said.
pub struct Derivation {
    password: Zeroizing<Vec<u8>>,
    salting: Salting,
}

impl std::fmt::Debug for Derivation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Derivation(***)")
    }
}

impl Derivation {
    /// How many rounds it takes.
    #[must_use]
    pub const fn iterations(&self) -> u32 {
        self.salting.iterations
    }

    /// Derives it.
    #[must_use]
    pub fn run(self) -> ScramVerifier {
        ScramVerifier::of_password(&self.password, &self.salting.salt, self.salting.iterations)
    }
}

/// A login that failed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ClientLoginError {
    /// The password is wrong, or there is no such user; which of them is nobody's business.
    #[error("password authentication failed for user \"{0}\"")]
    WrongPassword(Box<str>),
    /// The message that came is not the one that was asked for.
    #[error("unexpected authentication message")]
    UnexpectedAnswer,
    /// The SCRAM exchange broke.
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

    /// SQLSTATE of the FATAL that the client gets; PostgreSQL's own choices.
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

    /// What the client is told.
    #[must_use]
    pub fn client_text(&self) -> String {
        self.to_string()
    }

    /// Whose fault it is.
    #[must_use]
    pub const fn blame(&self) -> ErrorSource {
        ErrorSource::Client
    }
}

#[cfg(test)]
mod tests;
