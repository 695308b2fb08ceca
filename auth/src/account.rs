//! Accounts: how one user is asked for a password, and which passwords are accepted.
//!
//! A user may have several passwords: the generations of a password that rotates, and one that is
//! accepted beside them (`accept_also`). A key derivation, which costs milliseconds, is done once
//! for each password and never for each login.

use pgimbal_config::{AuthType, PasswordForm, Secret};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::md5::Md5Hash;
use crate::verifier::{DEFAULT_ITERATIONS, SaltKey, SaltParameters, ScramVerifier};

/// The accepted passwords of one user, prepared for one authentication method. `ClientLogin` checks
/// a client's answer by it. A reload or a new generation makes another account.
#[derive(Debug)]
pub struct Account {
    /// How the user is asked, with what its answers are checked by.
    pub(crate) proof: Proof,
}

/// The accepted passwords in the form that one authentication method needs.
#[derive(Debug)]
pub(crate) enum Proof {
    Trust,
    /// Passwords in clear text or as verifiers; keys are derived with these parameters.
    Password(SaltParameters, Vec<(MatchedPassword, LoginKeys)>),
    Md5(Vec<(MatchedPassword, Md5Hash)>),
    /// The verifiers, all with the salt and iterations of the first field, which the client is
    /// shown.
    Scram(Box<ScramVerifier>, Vec<(MatchedPassword, ScramVerifier)>),
}

/// The password of a user that a client has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MatchedPassword {
    /// Number of the password's generation, as SHOW CREDENTIALS lists it; 0 for a password that
    /// does not rotate.
    pub generation: u32,
    /// Rank of the password among those that the user may show.
    pub rank: PasswordRank,
}

/// The rank of a password among those that a user may show; a label of the metrics of logins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PasswordRank {
    /// The newest generation, or the user's only password. A password of `users.*.password` has
    /// this rank.
    Newest,
    /// The generation before the newest.
    Previous,
    /// A generation before the previous one, still within the grace (`grace_generations`,
    /// `grace_age`).
    Older,
    /// The password of `accept_also`, which is accepted beside all generations. Its generation
    /// number is 0.
    Extra,
}

impl PasswordRank {
    /// Every rank, the newest first; counts of logins are kept in this order.
    pub const ALL: [Self; 4] = [Self::Newest, Self::Previous, Self::Older, Self::Extra];

    /// The rank of a generation that `newer` generations follow: 0 for the newest. 1 gives
    /// [`Self::Previous`], 2 and more [`Self::Older`]; never [`Self::Extra`].
    #[must_use]
    pub const fn after(newer: usize) -> Self {
        match newer {
            0 => Self::Newest,
            1 => Self::Previous,
            _ => Self::Older,
        }
    }

    /// The value of the metric label `generation`: `newest`, `previous`, `older` or `also`. `also`
    /// stands for [`Self::Extra`].
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Newest => "newest",
            Self::Previous => "previous",
            Self::Older => "older",
            Self::Extra => "also",
        }
    }
}

/// The keys by which logins with one password are checked. They do not reveal the password, but
/// allow guesses at it. They are a SHA-256 digest of the password, an MD5 hash and a SCRAM
/// verifier, of which any may be missing, and are wiped when dropped.
#[derive(Clone, Debug)]
pub struct LoginKeys {
    /// The SHA-256 of the password, so that comparing takes the same time for every length.
    digest: Option<Zeroizing<[u8; 32]>>,
    md5: Option<Md5Hash>,
    scram: Option<ScramVerifier>,
}

/// A stored password that the authentication method can never accept. A password of the
/// configuration then fails the start or reload; one from another source fails when its keys are
/// derived.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum UnusableSecret {
    /// The text begins like a verifier (`SCRAM-SHA-256$`) and is none.
    #[error("the password begins with SCRAM-SHA-256$ but is no verifier")]
    Malformed,
    /// The text is an MD5 hash, and SCRAM needs the password or its verifier. [`Account::new`]
    /// returns it when clients are asked for SCRAM; [`LoginKeys::derive`] never does.
    #[error("an md5 hash cannot be used with auth_type scram-sha-256")]
    Md5ForScram,
}

impl Account {
    /// Makes an account that accepts any of `secrets`, the newest first, and `also`. With an empty
    /// list no password is accepted. With `AuthType::Md5`, a user whose newest secret is a SCRAM
    /// verifier is asked for SCRAM, as in PostgreSQL. SCRAM leaves out a verifier with another salt
    /// or iterations than the first one's; MD5 leaves out verifiers. Each clear password costs a
    /// PBKDF2 derivation for SCRAM.
    ///
    /// # Errors
    /// [`UnusableSecret`] when a secret and the authentication method do not fit.
    pub fn new(
        auth_type: AuthType,
        user: &str,
        secrets: &[&Secret],
        also: Option<&Secret>,
        salts: &SaltKey,
    ) -> Result<Self, UnusableSecret> {
        let ranked = |(index, secret)| (PasswordRank::after(index), secret);
        let all: Vec<(MatchedPassword, &Secret)> = secrets
            .iter()
            .copied()
            .enumerate()
            .map(ranked)
            .chain(also.map(|secret| (PasswordRank::Extra, secret)))
            .map(|(rank, secret)| (MatchedPassword { generation: 0, rank }, secret))
            .collect();
        let newest = secrets.first().map(|secret| PasswordForm::of(secret));
        let salt_parameters =
            SaltParameters::of_user(user, all.iter().map(|(_, secret)| *secret), salts)?;
        let proof = match auth_type {
            AuthType::Trust => Proof::Trust,
            AuthType::Password => {
                let keys =
                    all.iter().map(|(matched, secret)| Ok((*matched, LoginKeys::of(secret)?)));
                Proof::Password(salt_parameters, keys.collect::<Result<_, UnusableSecret>>()?)
            }
            AuthType::Md5 if newest != Some(PasswordForm::Scram) => {
                let hash = |(matched, secret): &(MatchedPassword, &Secret)| {
                    Some((*matched, md5_of(secret, user)?))
                };
                Proof::Md5(all.iter().filter_map(hash).collect())
            }
            AuthType::Md5 | AuthType::ScramSha256 => {
                let mut accepted = Vec::new();
                for (matched, secret) in &all {
                    let verifier = scram_of(secret, &salt_parameters)?;
                    // One with another salt cannot be asked for in the same exchange.
                    if salt_parameters.fits(&verifier) {
                        accepted.push((*matched, verifier));
                    }
                }
                Proof::Scram(Box::new(ScramVerifier::unmatchable(&salt_parameters)), accepted)
            }
        };
        Ok(Self { proof })
    }

    /// Makes an account from keys that were derived before, as for a password that rotates. All
    /// were derived with the salt and iterations of `salt_parameters`, which a client is shown in
    /// SCRAM. Keys without an MD5 hash are left out for `AuthType::Md5`, those without a verifier
    /// of this salt and these iterations for `AuthType::ScramSha256`. If none is left, no password
    /// is accepted. `AuthType::Trust` asks for none and ignores the keys.
    #[must_use]
    pub fn of_keys(
        auth_type: AuthType,
        salt_parameters: SaltParameters,
        keys: impl IntoIterator<Item = (MatchedPassword, LoginKeys)>,
    ) -> Self {
        let keys = keys.into_iter();
        let proof = match auth_type {
            AuthType::Trust => Proof::Trust,
            AuthType::Password => Proof::Password(salt_parameters, keys.collect()),
            AuthType::Md5 => {
                Proof::Md5(keys.filter_map(|(matched, keys)| Some((matched, keys.md5?))).collect())
            }
            AuthType::ScramSha256 => {
                let fitting = |(matched, keys): (MatchedPassword, LoginKeys)| {
                    Some((matched, keys.scram.filter(|verifier| salt_parameters.fits(verifier))?))
                };
                let accepted = keys.filter_map(fitting).collect();
                Proof::Scram(Box::new(ScramVerifier::unmatchable(&salt_parameters)), accepted)
            }
        };
        Self { proof }
    }
}

impl LoginKeys {
    /// Derives the keys of `secret` for every authentication method. A password in clear costs one
    /// PBKDF2 derivation with the iterations of `salt_parameters`; a verifier or a hash costs none
    /// and serves only its own methods.
    ///
    /// # Errors
    /// [`UnusableSecret::Malformed`] for a text that begins like a verifier and is none.
    pub fn derive(
        user: &str,
        secret: &Secret,
        salt_parameters: &SaltParameters,
    ) -> Result<Self, UnusableSecret> {
        let mut keys = Self::of(secret)?;
        if PasswordForm::of(secret) == PasswordForm::Plain {
            keys.md5 = md5_of(secret, user);
            keys.scram = Some(scram_of(secret, salt_parameters)?);
        }
        Ok(keys)
    }

    /// The keys of a password of which only the verifier is known, as in the history file. They
    /// accept SCRAM and a clear password, which costs a derivation, but no MD5 answer.
    #[must_use]
    pub const fn of_verifier(verifier: ScramVerifier) -> Self {
        Self { digest: None, md5: None, scram: Some(verifier) }
    }

    /// The SCRAM verifier; `None` when none was derived, or only an MD5 hash is known.
    #[must_use]
    pub const fn verifier(&self) -> Option<&ScramVerifier> {
        self.scram.as_ref()
    }

    /// The keys that need no derivation.
    fn of(secret: &Secret) -> Result<Self, UnusableSecret> {
        let text = secret.expose();
        let mut keys = Self { digest: None, md5: None, scram: None };
        match PasswordForm::of(secret) {
            PasswordForm::Plain => {
                keys.digest = Some(Zeroizing::new(Sha256::digest(text).into()));
            }
            PasswordForm::Md5 => {
                keys.md5 = Some(Md5Hash::parse(text).ok_or(UnusableSecret::Malformed)?);
            }
            PasswordForm::Scram => keys.scram = Some(parse(secret)?),
        }
        Ok(keys)
    }

    /// Whether a clear password is this one. `derived` is its verifier with the account's salt and
    /// iterations, where one was made.
    fn accepts(&self, clear: &Clear<'_>, derived: Option<&ScramVerifier>) -> bool {
        if let Some(digest) = &self.digest {
            return digest.ct_eq(&*clear.digest).into();
        }
        match (&self.scram, &self.md5) {
            (Some(own), _) => match derived.filter(|made| own.has_same_salt(made)) {
                Some(made) => own.has_keys_of(made),
                None => own.accepts_password(clear.password),
            },
            (None, Some(hash)) => hash.accepts_password(clear.password, clear.user.as_bytes()),
            (None, None) => false,
        }
    }

    fn wants_derivation(&self) -> bool {
        self.digest.is_none() && self.scram.is_some()
    }
}

/// A password as a client said it.
struct Clear<'a> {
    user: &'a str,
    password: &'a [u8],
    digest: Zeroizing<[u8; 32]>,
}

/// The least work of checking a password in clear text, done for unknown users too, so that time
/// does not tell who exists. [`Self::Derivation`] is chosen when the password of any user comes
/// from Vault, a file or an environment variable. Whatever is chosen, an account of which only a
/// SCRAM verifier is known costs a derivation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CleartextCost {
    /// One SHA-256 digest: enough where all passwords are known in clear text.
    Digest,
    /// A digest and a PBKDF2 derivation: needed where some passwords are known by their verifiers
    /// only.
    Derivation,
}

/// Whether a password in clear is compared by what is derived from it.
pub(crate) fn wants_derivation(keys: &[(MatchedPassword, LoginKeys)], cost: CleartextCost) -> bool {
    cost == CleartextCost::Derivation || keys.iter().any(|(_, keys)| keys.wants_derivation())
}

/// Finds the password that a client has sent in clear text; `derived` is what was derived from it
/// with `salt_parameters` before. All passwords are tried, so that time does not tell which one
/// matched, and an unknown user costs as much.
pub(crate) fn clear_matches(
    keys: &[(MatchedPassword, LoginKeys)],
    salt_parameters: &SaltParameters,
    cost: CleartextCost,
    user: &str,
    password: &[u8],
    derived: Option<&ScramVerifier>,
) -> Option<MatchedPassword> {
    let clear = Clear { user, password, digest: Zeroizing::new(Sha256::digest(password).into()) };
    let own = (derived.is_none() && wants_derivation(keys, cost)).then(|| {
        ScramVerifier::of_password(password, &salt_parameters.salt, salt_parameters.iterations)
    });
    let derived = derived.or(own.as_ref());
    let mut found = None;
    for (matched, keys) in keys {
        let accepts = keys.accepts(&clear, derived);
        found = found.or(accepts.then_some(*matched));
    }
    // PostgreSQL refuses an empty password whatever is stored.
    found.filter(|_| !password.is_empty())
}

/// Finds the password that an answer to an MD5 challenge proves.
pub(crate) fn md5_matches(
    hashes: &[(MatchedPassword, Md5Hash)],
    answer: &[u8],
    salt: [u8; 4],
) -> Option<MatchedPassword> {
    if hashes.is_empty() {
        let _ = Md5Hash::of(b"", b"").accepts(answer, salt);
    }
    let mut found = None;
    for (matched, hash) in hashes {
        let accepts = hash.accepts(answer, salt);
        found = found.or(accepts.then_some(*matched));
    }
    found
}

impl SaltParameters {
    /// The salt that `salts` gives a user, with [`DEFAULT_ITERATIONS`]. The same user and key
    /// always give the same salt; the user need not exist.
    #[must_use]
    pub fn of_key(user: &str, salts: &SaltKey) -> Self {
        Self { salt: salts.salt(user.as_bytes()).into(), iterations: DEFAULT_ITERATIONS }
    }

    /// The salt and iterations of a user: those of the first verifier among `secrets`, because
    /// SCRAM shows them to the client, or else those that `salts` gives. Of several verifiers only
    /// the first counts; MD5 hashes and clear passwords do not.
    ///
    /// # Errors
    /// [`UnusableSecret::Malformed`] for a text that begins like a verifier and is none.
    pub fn of_user<'s>(
        user: &str,
        secrets: impl IntoIterator<Item = &'s Secret>,
        salts: &SaltKey,
    ) -> Result<Self, UnusableSecret> {
        let given =
            secrets.into_iter().find(|secret| PasswordForm::of(secret) == PasswordForm::Scram);
        Ok(match given {
            Some(secret) => parse(secret)?.salt_parameters(),
            None => Self::of_key(user, salts),
        })
    }
}

fn parse(secret: &Secret) -> Result<ScramVerifier, UnusableSecret> {
    ScramVerifier::parse(secret.expose()).map_err(|_| UnusableSecret::Malformed)
}

fn md5_of(secret: &Secret, user: &str) -> Option<Md5Hash> {
    match PasswordForm::of(secret) {
        PasswordForm::Plain => Some(Md5Hash::of(secret.expose().as_bytes(), user.as_bytes())),
        PasswordForm::Md5 => Md5Hash::parse(secret.expose()),
        PasswordForm::Scram => None,
    }
}

fn scram_of(
    secret: &Secret,
    salt_parameters: &SaltParameters,
) -> Result<ScramVerifier, UnusableSecret> {
    match PasswordForm::of(secret) {
        PasswordForm::Plain => {
            let password = secret.expose().as_bytes();
            Ok(ScramVerifier::of_password(
                password,
                &salt_parameters.salt,
                salt_parameters.iterations,
            ))
        }
        PasswordForm::Md5 => Err(UnusableSecret::Md5ForScram),
        PasswordForm::Scram => parse(secret),
    }
}
