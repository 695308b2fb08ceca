//! Passwords of static roles of Vault's and OpenBao's database secrets engine, and documents in its
//! KV engine.
//!
//! One client for each Vault: one pool of connections, one token, one pause after failures,
//! whatever the number of roles. It knows no generations: it asks when it is asked.
//!
//! # What is vaultrs', and what is not
//!
//! vaultrs and rustify make each request: its URL, headers, token and namespace
//! ([`vaultrs::api::EndpointMiddleware`], `address.rs`), and method and path of every call without
//! a secret (`endpoint.rs`). They cannot express the rest, as of vaultrs 0.8:
//!
//! - **The KV engine** (`kv.rs`). It has no check-and-set above 2^32, and its answers hold the
//!   document in values that are not wiped.
//! - **Answers** (`reply.rs`). Its response types demand fields that Vault leaves out: the
//!   `rotation_period` of a role with a schedule, and, with OpenBao, `last_vault_rotation`. They
//!   derive Debug with the password in it, and hold it in a `String` that is not wiped.
//! - **Logins.** Its requests derive Debug with the secret in it, and hold it in a `String` that is
//!   not wiped. The one of AppRole demands a `secret_id`, which a role may not have.
//! - **Execution** (`address.rs`). Its functions and `Client::execute` read an answer of any length
//!   and lose its headers, `Retry-After` among them. Their errors hold the whole answer, with the
//!   password, and derive Debug. The HTTP client that it makes follows redirects, with the token.
//! - **`login()` and renewal.** It sets the token of one client for good. Here one token is shared
//!   by several addresses, renewed while its life still grows, and replaced once on a 403
//!   (`login.rs`, `token.rs`).

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use pgimbal_config::{Secret, VaultConfig};
use serde::de::DeserializeOwned;
use tokio::sync::{Mutex, Semaphore};

use self::addresses::Addresses;
use self::backoff::SharedBackoff;
use self::endpoint::Call;
use self::login::Login;
use self::reply::{Reply, RoleData, TokenData};
use self::token::Token;
use super::{BoxFuture, Source};
use crate::{SourceError, SourcePassword};

mod address;
mod addresses;
mod backoff;
mod endpoint;
mod health;
mod kv;
mod login;
mod reply;
mod tls;
mod token;
mod verdict;

pub use self::health::Health;
pub use self::kv::{KvContent, KvDocument, KvSecret};

/// Limit of requests to one Vault at a time. Vault answers in about a millisecond, so that a
/// thousand roles are read in well under a second; more requests would open as many connections.
const MAX_REQUESTS: usize = 8;

/// The client of one Vault, shared by all of its roles: one pool of connections, one token, and one
/// pause after failures. At most 8 requests run at a time.
pub struct VaultClient {
    name: Box<str>,
    mount: Box<str>,
    addresses: Addresses,
    requests: Semaphore,
    backoff: SharedBackoff,
    login: Login,
    /// Held during a login, so that there is one at a time.
    token: Mutex<Option<Arc<Token>>>,
    serial: AtomicU64,
}

impl VaultClient {
    /// Reads the certificate files and the key; connects to nothing yet. `name` is the Vault's name
    /// in the configuration. The certificates are read again when TLS fails and the files have
    /// changed.
    ///
    /// # Errors
    /// [`SourceError`] when a file or an address cannot be used.
    pub fn new(name: &str, config: &VaultConfig) -> Result<Self, SourceError> {
        Ok(Self {
            name: name.into(),
            mount: config.mount.trim_matches('/').into(),
            addresses: Addresses::new(name, config)?,
            requests: Semaphore::new(MAX_REQUESTS),
            backoff: SharedBackoff::default(),
            login: Login::new(name, config)?,
            token: Mutex::new(None),
            serial: AtomicU64::new(0),
        })
    }

    /// Reads the credentials of a static role: `GET /v1/:mount/static-creds/:role`. Logs in first
    /// when there is no valid token. A 403 is tried once more with another token, if that may help.
    /// While a pause after a failure lasts (up to 1 s, or `Retry-After`), the last error is
    /// returned at once.
    ///
    /// # Errors
    /// [`SourceError`] by cause: the Vault, its token, the policy or the role.
    pub async fn read(&self, role: &str) -> Result<SourcePassword, SourceError> {
        let location = format!("vault {}, role {role}", self.name);
        if !is_role_name(role) {
            return Err(self.unknown_role(&location));
        }
        let call = Call::static_credentials(&self.mount, role);
        let reply = self.authorized(&call, &location).await?;
        match reply.status {
            200..=299 => {
                let data = reply.envelope::<RoleData>(&location)?.data;
                data.unwrap_or_default().into_answer(&location)
            }
            status => Err(self.refused(status, &reply, &location)),
        }
    }

    /// Asks each address for its health, `GET /v1/sys/health`, which needs no token. One [`Health`]
    /// for each address, in the order of the configuration, asked one after another. A failure is
    /// in [`Health::fault`]; no pause after failures is begun or kept.
    pub async fn health(&self) -> Vec<Health> {
        self.addresses.each(Health::of).await
    }

    /// Logs in if there is no valid token, and asks how long the token lives: `GET
    /// /v1/auth/token/lookup-self`. For `pgimbal check`.
    ///
    /// # Errors
    /// [`SourceError`] when the login or the token is refused, or the Vault does not answer.
    pub async fn token_status(&self) -> Result<TokenStatus, SourceError> {
        let _permit = self.requests.acquire().await;
        let token = self.token().await?;
        let reply = self.ask(&Call::lookup_self(), Some(&token.secret)).await?;
        match reply.status {
            200..=299 => {
                let data = reply.envelope::<TokenData>(&self.location())?.data.unwrap_or_default();
                Ok(TokenStatus::Good { ttl: data.ttl.seconds().filter(|ttl| !ttl.is_zero()) })
            }
            // Vault says so of a token that it does not know; a good one may lack the right to ask.
            403 if ["invalid token", "bad token"]
                .iter()
                .any(|words| reply.complaint(&[&token.secret]).contains(words)) =>
            {
                Err(SourceError::TokenRefused { location: self.location() })
            }
            _ => Ok(TokenStatus::Unknown),
        }
    }

    /// Makes a call with the token. On 403 it is made once more with another one, and then it is
    /// the policy's fault.
    async fn authorized<T: DeserializeOwned + Send + Sync>(
        &self,
        call: &Call<T>,
        location: &str,
    ) -> Result<Reply, SourceError> {
        let _permit = self.requests.acquire().await;
        let token = self.token().await?;
        let mut reply = self.ask(call, Some(&token.secret)).await?;
        if reply.status == 403
            && let Some(token) = self.instead_of(&token).await?
        {
            reply = self.ask(call, Some(&token.secret)).await?;
        }
        // Not each answer is a success: one login after another that is refused is none.
        self.backoff.succeeded();
        if reply.status == 403 {
            let policy = call.policy();
            return Err(SourceError::PermissionDenied { location: location.into(), policy });
        }
        Ok(reply)
    }

    /// Makes a call. A failure that would meet every role quiets all of them.
    async fn ask<T: DeserializeOwned + Send + Sync>(
        &self,
        call: &Call<T>,
        token: Option<&Secret>,
    ) -> Result<Reply, SourceError> {
        let outcome = self.addresses.ask(call, token).await;
        outcome.map_err(|error| match verdict::is_about_all_roles(&error) {
            true => self.all_roles_fail(error),
            false => error,
        })
    }

    /// Leaves Vault alone for a while.
    fn all_roles_fail(&self, error: SourceError) -> SourceError {
        self.backoff.failed(Instant::now(), &error, rand::random());
        error
    }

    fn refused(&self, status: u16, reply: &Reply, location: &str) -> SourceError {
        let complaint = reply.complaint(&[]);
        let mount = || self.mount.clone();
        match status {
            400 if complaint.contains("unknown role") => self.unknown_role(location),
            404 | 405 => SourceError::WrongMount { location: location.into(), mount: mount() },
            _ => SourceError::ServerFault { location: location.into(), status, cause: complaint },
        }
    }

    fn unknown_role(&self, location: &str) -> SourceError {
        SourceError::UnknownRole { location: location.into(), mount: self.mount.clone() }
    }

    fn location(&self) -> Box<str> {
        format!("vault {}", self.name).into()
    }
}

/// The state of pgimbal's token, as Vault answers `GET /v1/auth/token/lookup-self`, for `pgimbal
/// check`. A token that Vault calls invalid is an error of [`VaultClient::token_status`] instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenStatus {
    /// The token is valid (Vault answered with a status 2xx).
    Good {
        /// Time until the token expires; `None` when it never does.
        ttl: Option<Duration>,
    },
    /// Vault answered with any other status, mostly 403: the token may not look itself up. It may
    /// be valid nevertheless.
    Unknown,
}

impl fmt::Debug for VaultClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VaultClient").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A user's static role.
#[derive(Debug)]
pub(super) struct VaultSource {
    /// The client of the Vault.
    pub(super) client: Arc<VaultClient>,
    /// The name of the static role in Vault.
    pub(super) role: Box<str>,
}

impl Source for VaultSource {
    fn fetch(&self) -> BoxFuture<'_, Result<SourcePassword, SourceError>> {
        Box::pin(self.client.read(&self.role))
    }

    fn changes(&self) -> Option<tokio::sync::watch::Receiver<u64>> {
        None
    }

    fn kind(&self) -> &'static str {
        "vault"
    }

    fn location(&self) -> String {
        format!("vault {}, role {}", self.client.name, self.role)
    }
}

/// Vault's own rule for the names of roles. The name may come from a client, and it must not
/// become another path.
fn is_role_name(role: &str) -> bool {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    role.starts_with(is_word)
        && role.ends_with(is_word)
        && role.chars().all(|c| is_word(c) || matches!(c, '-' | '.' | '@'))
}

#[cfg(test)]
mod tests;
