//! The answers of a source of passwords for one role, and the errors in place of an answer.
//!
//! This module owns their form; the texts come from the sources.

use std::time::{Duration, SystemTime};

use pgimbal_config::Secret;
use thiserror::Error;

/// Longest password in bytes that can be sent to a server: PostgreSQL's `PG_MAX_AUTH_TOKEN_LENGTH`
/// is 65535 bytes with the terminator. [`SourcePassword::new`] refuses a longer one as
/// [`SourceError::Unusable`].
pub const MAX_PASSWORD: usize = 65_534;

/// A password of one role, with what its source knows about its rotation. `Debug` masks the
/// password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourcePassword {
    /// The user that the password belongs to (Vault's `username`); `None` when the source does not
    /// say.
    pub username: Option<Box<str>>,
    /// The password: 1 to [`MAX_PASSWORD`] bytes without a NUL.
    pub password: Secret,
    /// Time of the last rotation by the source's clock (Vault's `last_vault_rotation`); `None` when
    /// the source does not say. Together with the password it identifies a generation.
    pub rotated_at: Option<SystemTime>,
    /// Time until the next rotation as the source expects it (Vault's `ttl`, in seconds); `None`
    /// when the source does not say. It may be wrong.
    pub ttl: Option<Duration>,
    /// Time between two rotations (Vault's `rotation_period`); `None` when it is not fixed or the
    /// source does not say.
    pub rotation_period: Option<Duration>,
}

impl SourcePassword {
    /// Makes an answer that has a password only. `location` says where it was found, for the
    /// error.
    ///
    /// # Errors
    /// [`SourceError::Unusable`] when the password is empty, has a NUL byte or is longer than
    /// [`MAX_PASSWORD`].
    pub fn new(location: &str, password: Secret) -> Result<Self, SourceError> {
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
        Err(SourceError::Unusable { location: location.into(), cause })
    }
}

/// The reason for which a source gave no password. `location` is an address, a path or a variable,
/// with the role where there is one. No variant ever holds a secret. After a failed fetch the known
/// passwords stay in use.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SourceError {
    /// No connection to Vault could be made, or it broke.
    #[error("{location}: cannot be reached: {cause}")]
    Unreachable {
        /// The Vault and its address.
        location: Box<str>,
        /// The operating system's or HTTP client's reason.
        cause: Box<str>,
    },
    /// Vault did not answer in time.
    #[error("{location}: no answer within {} ms", timeout.as_millis())]
    TimedOut {
        /// The Vault and its address.
        location: Box<str>,
        /// The time limit of a request, the Vault's option `timeout`.
        timeout: Duration,
    },
    /// Vault is sealed and serves nothing until it is unsealed. The health status of the address is
    /// 503, or the address answered 503 and its health is not known.
    #[error("{location}: Vault is sealed; unseal it")]
    Sealed {
        /// The Vault and its address.
        location: Box<str>,
    },
    /// The Vault is a standby that does not forward requests (its health status is 429). A redirect
    /// (status 300 to 399) counts as well: pgimbal follows none.
    #[error("{location}: Vault is a standby and does not forward; name its leader as well")]
    Standby {
        /// The Vault and its address.
        location: Box<str>,
    },
    /// The Vault is a disaster recovery secondary (status 472).
    #[error(
        "{location}: Vault is a disaster recovery secondary, which serves nothing; name its primary"
    )]
    RecoverySecondary {
        /// The Vault and its address.
        location: Box<str>,
    },
    /// The Vault is a performance standby that could neither serve nor forward the request (status
    /// 473).
    #[error("{location}: Vault is a performance standby and cannot reach its leader")]
    PerformanceStandby {
        /// The Vault and its address.
        location: Box<str>,
    },
    /// Vault has never been initialised (status 501).
    #[error("{location}: Vault is not initialised; run `vault operator init`")]
    Uninitialised {
        /// The Vault and its address.
        location: Box<str>,
    },
    /// A rate limit quota of Vault is used up (status 429).
    #[error("{location}: Vault's rate limit quota is used up; raise it or poll less often")]
    RateLimited {
        /// The Vault and its address.
        location: Box<str>,
        /// The time that Vault asks to wait (header `Retry-After`); `None` when it names none.
        retry_after: Option<Duration>,
    },
    /// Vault answered with an error status that has no variant of its own. Mostly it is 400, 412,
    /// or a 5xx of Vault or of a gateway before it.
    #[error("{location}: Vault answers {status}: {cause}")]
    ServerFault {
        /// The Vault, with its address or the role.
        location: Box<str>,
        /// The HTTP status of the answer.
        status: u16,
        /// The first entry of the answer's `errors`, shortened to one line.
        cause: Box<str>,
    },
    /// Vault refused pgimbal's login.
    #[error("{location}: Vault refuses the {method} login: {cause}")]
    LoginRefused {
        /// The Vault.
        location: Box<str>,
        /// The login method: `approle`, `kubernetes` or `token`.
        method: &'static str,
        /// The first entry of the answer's `errors`, shortened to one line.
        cause: Box<str>,
    },
    /// The configured token is no longer valid (status 403), and there is no login that could
    /// replace it.
    #[error("{location}: Vault refuses the token (403): it has expired or was revoked")]
    TokenRefused {
        /// The Vault.
        location: Box<str>,
    },
    /// The token is valid, but its policies do not allow this path (status 403).
    #[error("{location}: permission denied (403); add to the policy of pgimbal's token: {policy}")]
    PermissionDenied {
        /// The Vault and the role.
        location: Box<str>,
        /// The text to add to the token's policy.
        policy: Box<str>,
    },
    /// The mount has no static role of this name.
    #[error("{location}: Vault has no static role of this name; `vault list {mount}/static-roles`")]
    UnknownRole {
        /// The Vault and the role.
        location: Box<str>,
        /// The mount path that was asked, the option `mount`.
        mount: Box<str>,
    },
    /// Nothing is mounted at the path, or something other than a database secrets engine (status
    /// 404 or 405).
    #[error("{location}: no database secrets engine is mounted at \"{mount}\"; set `mount`")]
    WrongMount {
        /// The Vault and the role.
        location: Box<str>,
        /// The mount path that was asked, the option `mount`.
        mount: Box<str>,
    },
    /// The TLS handshake with Vault failed. It is never replaced by plain text.
    #[error("{location}: TLS failed: {cause}")]
    Tls {
        /// The Vault and its address, or a certificate file.
        location: Box<str>,
        /// The error of rustls, with the next step where there is one.
        cause: Box<str>,
    },
    /// The answer or file does not have the form that it must have.
    #[error("{location}: the answer cannot be used: {cause}")]
    Malformed {
        /// The Vault, or the file's path.
        location: Box<str>,
        /// What is wrong, without any of the text.
        cause: Box<str>,
    },
    /// The answer or file is larger than any that holds a password.
    #[error("{location}: larger than {limit} bytes, which no password needs")]
    TooLarge {
        /// The Vault and its address, or the file's path.
        location: Box<str>,
        /// The largest size that is read, in bytes.
        limit: usize,
    },
    /// The password is one that can never be sent to PostgreSQL.
    #[error("{location}: the password cannot be used: {cause}")]
    Unusable {
        /// The role, file, variable or option of the password.
        location: Box<str>,
        /// Why it cannot be sent: it is empty, has a NUL byte or is too long.
        cause: &'static str,
    },
    /// The file does not exist.
    #[error("{location}: there is no such file")]
    MissingFile {
        /// The file's path, or a directory and the names that were looked for in it.
        location: Box<str>,
    },
    /// The file exists and cannot be read.
    #[error("{location}: cannot be read: {cause}")]
    Unreadable {
        /// The file's path.
        location: Box<str>,
        /// The operating system's reason.
        cause: Box<str>,
    },
    /// The file seems to be incomplete because it is being written.
    #[error("{location}: half-written: {cause}")]
    HalfWritten {
        /// The file's path.
        location: Box<str>,
        /// What is missing or has changed.
        cause: &'static str,
    },
    /// The environment variable is not set in pgimbal's environment.
    #[error("{location}: the environment variable is not set; set it and restart")]
    MissingVariable {
        /// The variable's name after a `$`.
        location: Box<str>,
    },
}

impl SourceError {
    /// Whether the error may end without anybody's action, so that the log need not call for an
    /// operator yet. An unreachable, sealed, standby or rate-limited Vault, a timeout, any
    /// [`Self::ServerFault`], and a missing or half-written file are; every other variant is not.
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

    /// The error's kind as the value of a metric label, one of a closed set. Each variant has its
    /// own word: its name in snake case, but `timeout` for [`Self::TimedOut`]. A fetch that
    /// succeeds has the label `ok` instead.
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

    /// The Vault policy that is missing, as text to copy; `None` for every error but
    /// [`Self::PermissionDenied`]. It is shown to the operator beside the error, in the log and by
    /// `pgimbal check`.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::PermissionDenied { policy, .. } => Some(policy.to_string()),
            _ => None,
        }
    }

    /// The time for which the source asks to be left alone; `None` when it names none. Only
    /// [`Self::RateLimited`] can have one (header `Retry-After`, whole seconds).
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
        SourcePassword::new("vault main, role app", Secret::new(password))
            .expect_err("an unusable one")
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
            let answer =
                SourcePassword::new("p", Secret::from(password)).expect("a usable password");
            assert_eq!(answer.password.expose(), password);
            assert!(!format!("{answer:?}").contains(password));
        }
    }

    #[test]
    fn a_missing_policy_is_said_in_the_error_and_in_the_hint() {
        let policy = "path \"database/static-creds/app\" { capabilities = [\"read\"] }";
        let error = SourceError::PermissionDenied { location: "v".into(), policy: policy.into() };
        assert!(error.to_string().contains(policy));
        assert_eq!(error.hint().as_deref(), Some(policy));
        assert_eq!(SourceError::Sealed { location: "v".into() }.hint(), None);
    }
}
