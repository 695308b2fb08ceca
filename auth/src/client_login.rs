//! What a client is asked, and whether its answer is right.
//!
//! A user who does not exist is asked the same and fails in the same way, with the same work.

use pgimbal_config::{AuthType, PasswordForm, Secret};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::md5::Md5Hash;
use crate::scram::server::{Offer, ScramServer};
use crate::scram::{NONCE_LEN, ScramError};
use crate::verifier::{DEFAULT_ITERATIONS, SaltKey, ScramVerifier};
use crate::{Blame, Channel};

/// What one user is asked and which answers are right; made once for each configuration, because
/// a SCRAM verifier costs milliseconds.
#[derive(Debug)]
pub struct Account {
    proof: Proof,
}

#[derive(Debug)]
enum Proof {
    Trust,
    Password(Vec<Accepted>),
    Md5(Vec<Md5Hash>),
    /// All with the salt and iterations of the first, which is the one that is shown.
    Scram(Vec<ScramVerifier>),
}

/// Something that a password in clear text is compared with.
#[derive(Debug)]
enum Accepted {
    /// The SHA-256 of the password, so that comparing takes the same time for every length.
    Plain(Zeroizing<[u8; 32]>),
    Md5(Md5Hash),
    Scram(ScramVerifier),
}

/// A password that a method can never accept, found when the configuration is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum UnusableSecret {
    /// It has a verifier's prefix and not its form.
    #[error("the password begins with SCRAM-SHA-256$ but is no verifier")]
    Malformed,
    /// SCRAM needs the password or its verifier.
    #[error("an md5 hash cannot be used with auth_type scram-sha-256")]
    Md5ForScram,
}

impl Account {
    /// An account that accepts any of `secrets`, the newest first. With `md5`, a user whose newest
    /// secret is a SCRAM verifier is asked for SCRAM, as in PostgreSQL.
    ///
    /// # Errors
    /// [`UnusableSecret`] when a secret and the method do not fit.
    pub fn new(
        auth_type: AuthType,
        user: &str,
        secrets: &[&Secret],
        salts: &SaltKey,
    ) -> Result<Self, UnusableSecret> {
        let newest = secrets.first().map(|secret| PasswordForm::of(secret));
        let proof = match auth_type {
            AuthType::Trust => Proof::Trust,
            AuthType::Password => Proof::Password(
                secrets.iter().map(|secret| Accepted::of(secret)).collect::<Result<_, _>>()?,
            ),
            AuthType::Md5 if newest != Some(PasswordForm::Scram) => {
                Proof::Md5(secrets.iter().filter_map(|secret| md5_of(secret, user)).collect())
            }
            AuthType::Md5 | AuthType::ScramSha256 => Proof::Scram(scram_of(user, secrets, salts)?),
        };
        Ok(Self { proof })
    }
}

impl Accepted {
    fn of(secret: &Secret) -> Result<Self, UnusableSecret> {
        let text = secret.expose();
        Ok(match PasswordForm::of(secret) {
            PasswordForm::Plain => Self::Plain(Zeroizing::new(Sha256::digest(text).into())),
            PasswordForm::Md5 => Self::Md5(Md5Hash::parse(text).ok_or(UnusableSecret::Malformed)?),
            PasswordForm::Scram => {
                Self::Scram(ScramVerifier::parse(text).map_err(|_| UnusableSecret::Malformed)?)
            }
        })
    }

    fn matches(&self, password: &[u8], digest: &[u8; 32], user: &[u8]) -> bool {
        match self {
            Self::Plain(expected) => expected.ct_eq(digest).into(),
            Self::Md5(hash) => hash.accepts_password(password, user),
            Self::Scram(verifier) => verifier.accepts_password(password),
        }
    }
}

fn md5_of(secret: &Secret, user: &str) -> Option<Md5Hash> {
    match PasswordForm::of(secret) {
        PasswordForm::Plain => Some(Md5Hash::of(secret.expose().as_bytes(), user.as_bytes())),
        PasswordForm::Md5 => Md5Hash::parse(secret.expose()),
        PasswordForm::Scram => None,
    }
}

/// Verifiers that share a salt: a plain password gets that of the newest verifier, a verifier with
/// another salt cannot be asked for in the same exchange and is left out.
fn scram_of(
    user: &str,
    secrets: &[&Secret],
    salts: &SaltKey,
) -> Result<Vec<ScramVerifier>, UnusableSecret> {
    let (mut salt, mut iterations) = (Box::from(salts.salt(user.as_bytes())), DEFAULT_ITERATIONS);
    let mut verifiers = Vec::new();
    for (index, secret) in secrets.iter().enumerate() {
        let verifier = match PasswordForm::of(secret) {
            PasswordForm::Plain => {
                ScramVerifier::of_password(secret.expose().as_bytes(), &salt, iterations)
            }
            PasswordForm::Md5 => return Err(UnusableSecret::Md5ForScram),
            PasswordForm::Scram => {
                ScramVerifier::parse(secret.expose()).map_err(|_| UnusableSecret::Malformed)?
            }
        };
        if index == 0 {
            (salt, iterations) = (verifier.salt.clone(), verifier.iterations);
        }
        if verifier.salt == salt && verifier.iterations == iterations {
            verifiers.push(verifier);
        }
    }
    Ok(verifiers)
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
    /// The client is who it says. Over SCRAM it must be sent this last message first.
    Accepted(Option<String>),
}

/// One client's login, waiting for an answer.
#[derive(Debug)]
pub struct ClientLogin<'a> {
    user: &'a str,
    channel: Channel<'a>,
    state: State<'a>,
}

#[derive(Debug)]
enum State<'a> {
    Password(&'a [Accepted]),
    Md5(&'a [Md5Hash], [u8; 4]),
    /// Waits for the mechanism and the first message.
    ScramChoice(ScramParty<'a>, [u8; NONCE_LEN]),
    /// Waits for the proof.
    ScramProof(ScramParty<'a>, Box<ScramServer>),
}

/// Whom SCRAM is spoken with.
#[derive(Debug)]
enum ScramParty<'a> {
    Known(&'a [ScramVerifier]),
    /// A user that does not exist or has no password: nothing it proves is right.
    Unknown(Box<ScramVerifier>),
}

impl ScramParty<'_> {
    fn shown(&self) -> &ScramVerifier {
        match self {
            Self::Known(verifiers) => &verifiers[0],
            Self::Unknown(mock) => mock,
        }
    }
}

impl<'a> ClientLogin<'a> {
    /// Begins the login of `user`, whose account is `None` when there is no such user; it is then
    /// asked what `auth_type` asks and refused in the end. With `trust` nothing is asked, and the
    /// server says what it does not know.
    #[must_use]
    pub fn begin(
        auth_type: AuthType,
        user: &'a str,
        account: Option<&'a Account>,
        channel: Channel<'a>,
        salts: &SaltKey,
        fresh: Fresh,
    ) -> Step<'a> {
        // Made for every user, so that it takes no time of its own for those who do not exist.
        let mock = Box::new(salts.mock_verifier(user.as_bytes()));
        let state = match (account.map(|account| &account.proof), auth_type) {
            (Some(Proof::Trust), _) | (None, AuthType::Trust) => return Step::Accepted(None),
            (Some(Proof::Password(accepted)), _) => State::Password(accepted),
            (None, AuthType::Password) => State::Password(&[]),
            (Some(Proof::Md5(hashes)), _) => State::Md5(hashes, fresh.md5_salt),
            (None, AuthType::Md5) => State::Md5(&[], fresh.md5_salt),
            (Some(Proof::Scram(verifiers)), _) if !verifiers.is_empty() => {
                State::ScramChoice(ScramParty::Known(verifiers), fresh.nonce)
            }
            (Some(Proof::Scram(_)), _) | (None, AuthType::ScramSha256) => {
                State::ScramChoice(ScramParty::Unknown(mock), fresh.nonce)
            }
        };
        let ask = match &state {
            State::Password(_) => Ask::Cleartext,
            State::Md5(_, salt) => Ask::Md5(*salt),
            State::ScramChoice(..) | State::ScramProof(..) => Ask::Sasl(Offer::over(channel)),
        };
        Step::Ask(Self { user, channel, state }, ask)
    }

    /// Judges an answer.
    ///
    /// # Errors
    /// [`ClientLoginError`] when the login has failed.
    pub fn answer(self, answer: Answer<'_>) -> Result<Step<'a>, ClientLoginError> {
        let Self { user, channel, state } = self;
        match (state, answer) {
            (State::Password(accepted), Answer::Password(password)) => {
                judge(user, password_matches(accepted, password, user))
            }
            (State::Md5(hashes, salt), Answer::Password(answer)) => {
                judge(user, md5_matches(hashes, answer, salt))
            }
            (State::ScramChoice(party, nonce), Answer::SaslInitial { mechanism, response }) => {
                let (server, challenge) =
                    ScramServer::begin(channel, mechanism, response, party.shown(), nonce)
                        .map_err(|err| ClientLoginError::scram(user, err))?;
                let state = State::ScramProof(party, Box::new(server));
                Ok(Step::Ask(Self { user, channel, state }, Ask::SaslContinue(challenge)))
            }
            (State::ScramProof(party, server), Answer::SaslResponse(response)) => {
                let verifiers: Vec<&ScramVerifier> = match &party {
                    ScramParty::Known(verifiers) => verifiers.iter().collect(),
                    ScramParty::Unknown(mock) => vec![&**mock],
                };
                let accepted = server
                    .finish(response, &verifiers)
                    .map_err(|err| ClientLoginError::scram(user, err))?;
                match party {
                    ScramParty::Known(_) => Ok(Step::Accepted(Some(accepted.message))),
                    ScramParty::Unknown(_) => Err(ClientLoginError::WrongPassword(user.into())),
                }
            }
            _ => Err(ClientLoginError::UnexpectedAnswer),
        }
    }
}

fn judge<'a>(user: &str, matches: bool) -> Result<Step<'a>, ClientLoginError> {
    if matches {
        Ok(Step::Accepted(None))
    } else {
        Err(ClientLoginError::WrongPassword(user.into()))
    }
}

/// Tries all, so that time does not tell which one matched; somebody unknown costs one comparison
/// too.
fn password_matches(accepted: &[Accepted], password: &[u8], user: &str) -> bool {
    let digest: Zeroizing<[u8; 32]> = Zeroizing::new(Sha256::digest(password).into());
    let nobody: bool = digest.ct_eq(&[0; 32]).into();
    let matches = |one: &Accepted| one.matches(password, &digest, user.as_bytes());
    // PostgreSQL refuses an empty password whatever is stored.
    let matched = accepted.iter().fold(nobody, |found, one| found | matches(one));
    matched && !password.is_empty()
}

fn md5_matches(hashes: &[Md5Hash], answer: &[u8], salt: [u8; 4]) -> bool {
    if hashes.is_empty() {
        let _ = Md5Hash::of(b"", b"").accepts(answer, salt);
        return false;
    }
    hashes.iter().fold(false, |found, hash| found | hash.accepts(answer, salt))
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
    pub const fn blame(&self) -> Blame {
        Blame::Client
    }
}

#[cfg(test)]
mod tests;
