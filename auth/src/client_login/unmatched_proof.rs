//! A client's proof that fits no known password, kept until a newer password is known.

use zeroize::Zeroizing;

use super::{Accepted, Account, ClientLoginError};
use crate::account::{CleartextCost, MatchedPassword, Proof, clear_matches, md5_matches};
use crate::scram::ScramError;
use crate::scram::server::ScramServer;
use crate::verifier::{SaltParameters, ScramVerifier};

/// A client's proof that fits none of the passwords known when it arrived. It can be checked again
/// by an account that has a newer password; the client is not asked again. Passwords are wiped when
/// it is dropped.
#[derive(Debug)]
pub struct UnmatchedProof {
    user: Box<str>,
    shown: Shown,
}

enum Shown {
    Password(SaltParameters, CleartextCost, Zeroizing<Vec<u8>>, Option<ScramVerifier>),
    Md5 { answer: Zeroizing<Vec<u8>>, salt: [u8; 4] },
    Scram { salted: Box<ScramVerifier>, server: Box<ScramServer>, proof: Vec<u8> },
}

impl std::fmt::Debug for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Password(..) => "Password(***)",
            Self::Md5 { .. } => "Md5(***)",
            Self::Scram { .. } => "Scram(***)",
        })
    }
}

impl UnmatchedProof {
    /// Keeps a password that was sent in clear text (PasswordMessage). `derived` is its verifier
    /// with `salt_parameters`, `None` when none was derived yet.
    pub(super) fn of_password(
        user: &str,
        salt_parameters: SaltParameters,
        cost: CleartextCost,
        password: &[u8],
        derived: Option<ScramVerifier>,
    ) -> Self {
        let password = Zeroizing::new(password.to_vec());
        Self { user: user.into(), shown: Shown::Password(salt_parameters, cost, password, derived) }
    }

    /// Keeps the answer to an MD5 challenge that was sent with `salt`.
    pub(super) fn of_md5(user: &str, answer: &[u8], salt: [u8; 4]) -> Self {
        let answer = Zeroizing::new(answer.to_vec());
        Self { user: user.into(), shown: Shown::Md5 { answer, salt } }
    }

    /// Keeps a SCRAM proof (SASLResponse); `salted` has the salt and iterations that the client was
    /// shown.
    pub(super) fn of_scram(
        user: &str,
        salted: Box<ScramVerifier>,
        server: Box<ScramServer>,
        proof: &[u8],
    ) -> Self {
        Self { user: user.into(), shown: Shown::Scram { salted, server, proof: proof.to_vec() } }
    }

    /// Checks the proof by the user's account as it is now, `None` when there is no such user, and
    /// ends the login. For a password in clear text that has no derived key yet it may block for a
    /// key derivation.
    ///
    /// # Errors
    /// [`ClientLoginError::WrongPassword`] when the proof still fits no password, and
    /// [`ClientLoginError::Scram`] when it is malformed.
    pub fn retry(self, account: Option<&Account>) -> Result<Accepted, ClientLoginError> {
        self.against(account)?.ok_or_else(|| self.error())
    }

    /// Checks the proof by `account` and keeps it for another check; `None` when it fits no
    /// password or is malformed. `account` is `None` when there is no such user. A SCRAM proof fits
    /// only while the account has the salt and iterations that the client was shown. It costs as
    /// much as [`Self::retry`].
    #[must_use]
    pub fn check(&self, account: Option<&Account>) -> Option<Accepted> {
        self.against(account).ok().flatten()
    }

    /// The error with which the login ends when no password fits:
    /// [`ClientLoginError::WrongPassword`]. It names the user and does not tell whether the user
    /// exists; nothing is checked.
    #[must_use]
    pub fn error(&self) -> ClientLoginError {
        ClientLoginError::WrongPassword(self.user.clone())
    }

    /// Checks the proof by `account`; `None` when it fits no password.
    ///
    /// # Errors
    /// [`ClientLoginError::Scram`] for a proof that is malformed.
    pub(super) fn against(
        &self,
        account: Option<&Account>,
    ) -> Result<Option<Accepted>, ClientLoginError> {
        let proof = account.map(|account| &account.proof);
        let matched = match &self.shown {
            Shown::Password(salt_parameters, cost, password, derived) => {
                let keys = match proof {
                    Some(Proof::Password(_, keys)) => keys.as_slice(),
                    _ => &[],
                };
                let derived = derived.as_ref();
                clear_matches(keys, salt_parameters, *cost, &self.user, password, derived)
            }
            Shown::Md5 { answer, salt } => {
                let hashes = match proof {
                    Some(Proof::Md5(hashes)) => hashes.as_slice(),
                    _ => &[],
                };
                md5_matches(hashes, answer, *salt)
            }
            Shown::Scram { salted, server, proof: shown } => {
                let known = match proof {
                    Some(Proof::Scram(shown, known)) if shown.has_same_salt(salted) => known,
                    _ => &Vec::new(),
                };
                return self.against_verifiers(salted, server, shown, known);
            }
        };
        Ok(matched.map(|matched| Accepted { message: None, matched: Some(matched) }))
    }

    fn against_verifiers(
        &self,
        salted: &ScramVerifier,
        server: &ScramServer,
        proof: &[u8],
        known: &[(MatchedPassword, ScramVerifier)],
    ) -> Result<Option<Accepted>, ClientLoginError> {
        // Somebody unknown costs a check too.
        let result = match known {
            [] => server.finish(proof, [salted]).and(Err(ScramError::WrongProof)),
            known => server.finish(proof, known.iter().map(|(_, verifier)| verifier)),
        };
        match result {
            Ok(accepted) => Ok(Some(Accepted {
                message: Some(accepted.message),
                matched: known.get(accepted.matched).map(|(matched, _)| *matched),
            })),
            Err(ScramError::WrongProof) => Ok(None),
            Err(other) => Err(ClientLoginError::Scram(other)),
        }
    }
}
