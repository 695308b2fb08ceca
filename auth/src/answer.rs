//! What a source of passwords said of a role, or why it said nothing.
//!
//! Owns the words for both; where the words come from is the sources' business.

use std::time::{Duration, SystemTime};

use pgimbal_config::Secret;
use thiserror::Error;

/// A longer password cannot be sent to a server: PostgreSQL's PG_MAX_AUTH_TOKEN_LENGTH is 65535
/// bytes, with the terminator.
pub const MAX_PASSWORD: usize = 65_534;

/// What a source said of one role. `Debug` masks the password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The user that the password belongs to, where the source says.
    pub username: Option<Box<str>>,
    /// The password. Never empty, never with a NUL, never too long to be sent.
    pub password: Secret,
    /// When it was made. Together with the password it says which generation this is.
    pub rotated_at: Option<SystemTime>,
    /// How long until the next rotation, as the source expects; it may be wrong.
    pub ttl: Option<Duration>,
    /// The time between two rotations, where it is fixed.
    pub rotation_period: Option<Duration>,
}

impl Answer {
    /// An answer that says nothing but a password.
    ///
    /// # Errors
    /// [`SourceError::Unusable`] when PostgreSQL could never be sent this password. `place` is
    /// where it was found.
    pub fn new(place: &str, password: Secret) -> Result<Self, SourceError> {
        let text = password.expose();
        let cause = if text.is_empty() {
            "it is empty"
        } else if text.contains('\0') {
            "it contains a NUL byte"
        } else if text.len() > MAX_PASSWORD {
            "it is longer than 65534 bytes"
        } else {
            return Ok(Self {
                username: None,
                password,
                rotated_at: None,
                ttl: None,
                rotation_period: None,
            });
        };
        Err(SourceError::Unusable { place: place.into(), cause })
    }
}

/// Why a source said nothing. `place` is an address, a path or a variable, with the role where
/// there is one; no variant ever holds a secret.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SourceError {
    /// No connection to Vault, or it broke.
    #[error("{place}: cannot be reached: {cause}")]
    Unreachable {
        /// Where.
        place: Box<str>,
        /// What the system says.
        cause: Box<str>,
    },
    /// Vault was asked and did not answer in time.
    #[error("{place}: no answer within {} ms", timeout.as_millis())]
    TimedOut {
        /// Where.
        place: Box<str>,
        /// How long it was waited for.
        timeout: Duration,
    },
    /// Vault is sealed (503).
    #[error("{place}: Vault is sealed; unseal it")]
    Sealed {
        /// Where.
        place: Box<str>,
    },
    /// This Vault is a standby that does not forward (its health answers 429).
    #[error("{place}: Vault is a standby and does not forward; name its leader as well")]
    Standby {
        /// Where.
        place: Box<str>,
    },
    /// This Vault is a disaster recovery secondary (472).
    #[error(
        "{place}: Vault is a disaster recovery secondary, which serves nothing; name its primary"
    )]
    RecoverySecondary {
        /// Where.
        place: Box<str>,
    },
    /// This Vault is a performance standby that could not serve or forward (473).
    #[error("{place}: Vault is a performance standby and cannot reach its leader")]
    PerformanceStandby {
        /// Where.
        place: Box<str>,
    },
    /// Vault has never been initialised (501).
    #[error("{place}: Vault is not initialised; run `vault operator init`")]
    Uninitialised {
        /// Where.
        place: Box<str>,
    },
    /// A quota of Vault's is used up (429).
    #[error("{place}: Vault's rate limit quota is used up; raise it or poll less often")]
    RateLimited {
        /// Where.
        place: Box<str>,
        /// When Vault wants to be asked again.
        retry_after: Option<Duration>,
    },
    /// Vault failed in another way that is its own.
    #[error("{place}: Vault answers {status}: {cause}")]
    ServerFault {
        /// Where.
        place: Box<str>,
        /// The HTTP status.
        status: u16,
        /// What Vault says.
        cause: Box<str>,
    },
    /// The login to Vault was refused.
    #[error("{place}: Vault refuses the {method} login: {cause}")]
    LoginRefused {
        /// Where.
        place: Box<str>,
        /// `approle`, `kubernetes` or `token`.
        method: &'static str,
        /// What Vault says.
        cause: Box<str>,
    },
    /// The configured token is dead, and there is nothing to log in with again.
    #[error("{place}: Vault refuses the token (403): it has expired or was revoked")]
    TokenRefused {
        /// Where.
        place: Box<str>,
    },
    /// The token is good and its policies do not allow this path.
    #[error("{place}: permission denied (403); add to the policy of pgimbal's token: {policy}")]
    PermissionDenied {
        /// Where.
        place: Box<str>,
        /// The text to add to the policy.
        policy: Box<str>,
    },
    /// The mount has no such role.
    #[error("{place}: Vault has no static role of this name; `vault list {mount}/static-roles`")]
    UnknownRole {
        /// Where.
        place: Box<str>,
        /// The mount that was asked.
        mount: Box<str>,
    },
    /// Nothing is mounted there, or not a database engine.
    #[error("{place}: no database secrets engine is mounted at \"{mount}\"; set `mount`")]
    WrongMount {
        /// Where.
        place: Box<str>,
        /// The mount that was asked.
        mount: Box<str>,
    },
    /// TLS did not come about. It is never given up for plain text.
    #[error("{place}: TLS failed: {cause}")]
    Tls {
        /// Where.
        place: Box<str>,
        /// What rustls says.
        cause: Box<str>,
    },
    /// The answer is not what the API promises.
    #[error("{place}: the answer cannot be used: {cause}")]
    Malformed {
        /// Where.
        place: Box<str>,
        /// What is wrong, without the answer's text.
        cause: Box<str>,
    },
    /// What was found is larger than any password.
    #[error("{place}: larger than {limit} bytes, which no password needs")]
    TooLarge {
        /// Where.
        place: Box<str>,
        /// The most that is read.
        limit: usize,
    },
    /// The password is one that PostgreSQL could never be sent.
    #[error("{place}: the password cannot be used: {cause}")]
    Unusable {
        /// Where.
        place: Box<str>,
        /// Why.
        cause: &'static str,
    },
    /// There is no such file.
    #[error("{place}: there is no such file")]
    MissingFile {
        /// Its path, or those that were looked for.
        place: Box<str>,
    },
    /// The file cannot be read.
    #[error("{place}: cannot be read: {cause}")]
    Unreadable {
        /// Its path.
        place: Box<str>,
        /// What the system says.
        cause: Box<str>,
    },
    /// The file seems to be in the middle of being written.
    #[error("{place}: half-written: {cause}")]
    HalfWritten {
        /// Its path.
        place: Box<str>,
        /// What is missing.
        cause: &'static str,
    },
    /// The environment variable is not set.
    #[error("{place}: the environment variable is not set; set it and restart")]
    MissingVariable {
        /// Its name.
        place: Box<str>,
    },
}

impl SourceError {
    /// Whether waiting may be all it takes, so that the log need not call for somebody yet.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. }
            | Self::TimedOut { .. }
            | Self::Sealed { .. }
            | Self::Standby { .. }
            | Self::PerformanceStandby { .. }
            | Self::RateLimited { .. }
            | Self::ServerFault { .. }
            | Self::HalfWritten { .. }
            | Self::MissingFile { .. } => true,
            Self::RecoverySecondary { .. }
            | Self::Uninitialised { .. }
            | Self::LoginRefused { .. }
            | Self::TokenRefused { .. }
            | Self::PermissionDenied { .. }
            | Self::UnknownRole { .. }
            | Self::WrongMount { .. }
            | Self::Tls { .. }
            | Self::Malformed { .. }
            | Self::TooLarge { .. }
            | Self::Unusable { .. }
            | Self::Unreadable { .. }
            | Self::MissingVariable { .. } => false,
        }
    }

    /// The cause as a metric's label; a closed set.
    #[must_use]
    pub const fn result_label(&self) -> &'static str {
        match self {
            Self::Unreachable { .. } => "unreachable",
            Self::TimedOut { .. } => "timeout",
            Self::Sealed { .. } => "sealed",
            Self::Standby { .. } => "standby",
            Self::RecoverySecondary { .. } => "recovery_secondary",
            Self::PerformanceStandby { .. } => "performance_standby",
            Self::Uninitialised { .. } => "uninitialised",
            Self::RateLimited { .. } => "rate_limited",
            Self::ServerFault { .. } => "server_fault",
            Self::LoginRefused { .. } => "login_refused",
            Self::TokenRefused { .. } => "token_refused",
            Self::PermissionDenied { .. } => "permission_denied",
            Self::UnknownRole { .. } => "unknown_role",
            Self::WrongMount { .. } => "wrong_mount",
            Self::Tls { .. } => "tls",
            Self::Malformed { .. } => "malformed",
            Self::TooLarge { .. } => "too_large",
            Self::Unusable { .. } => "unusable",
            Self::MissingFile { .. } => "missing_file",
            Self::Unreadable { .. } => "unreadable",
            Self::HalfWritten { .. } => "half_written",
            Self::MissingVariable { .. } => "missing_variable",
        }
    }

    /// What to put where, as text to copy: the policy that is missing.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::PermissionDenied { policy, .. } => Some(policy.to_string()),
            _ => None,
        }
    }

    /// How long the source asks to be left alone.
    #[must_use]
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateLimited { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unusable(password: String) -> SourceError {
        Answer::new("vault main, role app", Secret::new(password)).expect_err("an unusable one")
    }

    #[test]
    fn a_password_that_cannot_be_sent_is_refused_without_being_shown() {
        let long = "x".repeat(MAX_PASSWORD + 1);
        for (password, cause) in [("", "empty"), ("hunter\0two", "NUL"), (&long, "longer")] {
            let error = unusable(password.to_owned());
            let text = format!("{error} {error:?}");
            assert!(text.contains(cause) && text.contains("role app"), "{text}");
            assert!(!text.contains("hunter") && !text.contains("xx"), "{text}");
            assert_eq!((error.result_label(), error.is_transient()), ("unusable", false));
        }
    }

    #[test]
    fn odd_passwords_are_taken_as_they_are() {
        for password in ["a'b\"c\\d", "two\nlines\n", " spaced ", &"k".repeat(10_240)] {
            let answer = Answer::new("p", Secret::from(password)).expect("a usable password");
            assert_eq!(answer.password.expose(), password);
            assert!(!format!("{answer:?}").contains(password));
        }
    }

    #[test]
    fn a_missing_policy_is_said_in_the_error_and_in_the_hint() {
        let policy = "path \"database/static-creds/app\" { capabilities = [\"read\"] }";
        let error = SourceError::PermissionDenied { place: "v".into(), policy: policy.into() };
        assert!(error.to_string().contains(policy));
        assert_eq!(error.hint().as_deref(), Some(policy));
        assert_eq!(SourceError::Sealed { place: "v".into() }.hint(), None);
    }
}
