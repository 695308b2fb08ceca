//! The login at Vault: one token for all roles, and one login at a time.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use pgimbal_config::{Secret, VaultConfig, VaultLogin};

use super::VaultClient;
use super::address::is_header_text;
use super::endpoint::Call;
use super::reply::{AuthData, Reply, TokenData, malformed};
use super::token::{Lease, Token, TokenAction};
use crate::SourceError;
use crate::source::file::read_secret;

/// The login method with what it needs. Files are read at every login.
pub(super) enum Login {
    Token(Secret),
    TokenFile(PathBuf),
    AppRole { mount: String, role_id: String, secret_id: SecretId },
    Kubernetes { mount: String, role: String, jwt_file: PathBuf },
}

/// The secret id of an AppRole.
pub(super) enum SecretId {
    /// The role wants none.
    None,
    Inline(Secret),
    File(PathBuf),
}

impl Login {
    /// Reads the login method of the configuration; files are checked at the first login only.
    pub(super) fn new(name: &str, vault: &VaultConfig) -> Result<Self, SourceError> {
        let missing = |key: &str| malformed(&format!("vaults.{name}.{key}"), "it is not set");
        let mount = |usual: &str| vault.login_mount.clone().unwrap_or_else(|| usual.to_owned());
        Ok(match vault.login {
            VaultLogin::Token => Self::Token(vault.token.clone().ok_or_else(|| missing("token"))?),
            VaultLogin::TokenFile => {
                Self::TokenFile(vault.token_file.clone().ok_or_else(|| missing("token_file"))?)
            }
            VaultLogin::AppRole => Self::AppRole {
                mount: mount("approle"),
                role_id: vault.role_id.clone().ok_or_else(|| missing("role_id"))?,
                secret_id: match (&vault.secret_id, &vault.secret_id_file) {
                    (Some(secret), _) => SecretId::Inline(secret.clone()),
                    (None, Some(file)) => SecretId::File(file.clone()),
                    (None, None) => SecretId::None,
                },
            },
            VaultLogin::Kubernetes => Self::Kubernetes {
                mount: mount("kubernetes"),
                role: vault.kubernetes_role.clone().ok_or_else(|| missing("kubernetes_role"))?,
                jwt_file: vault.kubernetes_jwt_file.clone(),
            },
        })
    }

    const fn method(&self) -> &'static str {
        match self {
            Self::Token(_) | Self::TokenFile(_) => "token",
            Self::AppRole { .. } => "approle",
            Self::Kubernetes { .. } => "kubernetes",
        }
    }
}

impl VaultClient {
    /// The token to use now, after whatever it needs first.
    pub(super) async fn token(&self) -> Result<Arc<Token>, SourceError> {
        let mut slot = self.token.lock().await;
        // Whoever waited for a login that failed need not try one of its own.
        self.backoff.check(Instant::now())?;
        let Some(token) = slot.clone() else { return self.log_in(&mut slot).await };
        let outcome = match token.next_action(Instant::now()) {
            TokenAction::Good => return Ok(token),
            TokenAction::Renew => self.renew(&mut slot, &token).await,
            TokenAction::Replace => self.log_in(&mut slot).await,
        };
        let now = Instant::now();
        match outcome {
            Err(error) if !token.has_ended(now) => {
                tracing::warn!(
                    vault = %self.name, %error,
                    "Vault's token could not be renewed; the current one still works"
                );
                Ok(replace(&mut slot, &token, |token| token.postpone(now)))
            }
            outcome => outcome,
        }
    }

    /// A token to try after `refused` got 403; `None` when another one would have no more rights.
    pub(super) async fn instead_of(
        &self,
        refused: &Token,
    ) -> Result<Option<Arc<Token>>, SourceError> {
        let mut slot = self.token.lock().await;
        if let Some(current) = slot.as_ref().filter(|token| token.serial != refused.serial) {
            return Ok(Some(Arc::clone(current)));
        }
        self.backoff.check(Instant::now())?;
        let lookup = self.ask(&Call::lookup_self(), Some(&refused.secret)).await?;
        let is_alive = lookup.status != 403;
        if is_alive && refused.is_young(Instant::now()) {
            return Ok(None);
        }
        match &self.login {
            Login::Token(_) if is_alive => return Ok(None),
            Login::Token(_) => {}
            Login::TokenFile(path) => {
                let same = read_token(path)?.expose() == refused.secret.expose();
                if same && is_alive {
                    return Ok(None);
                }
                if !same {
                    return self.log_in(&mut slot).await.map(Some);
                }
            }
            Login::AppRole { .. } | Login::Kubernetes { .. } => {
                let fresh = self.log_in(&mut slot).await?;
                drop(slot);
                if is_alive {
                    // It would otherwise live to its end for nobody.
                    let _ = self.ask(&Call::revoke_self(), Some(&refused.secret)).await;
                }
                return Ok(Some(fresh));
            }
        }
        *slot = None;
        Err(self.all_roles_fail(SourceError::TokenRefused { location: self.location() }))
    }

    async fn log_in(&self, slot: &mut Option<Arc<Token>>) -> Result<Arc<Token>, SourceError> {
        let (call, secret) = match &self.login {
            Login::Token(token) => return self.take(slot, token.clone()).await,
            Login::TokenFile(path) => return self.take(slot, self.local(read_token(path))?).await,
            Login::AppRole { mount, role_id, secret_id } => {
                let secret = match secret_id {
                    SecretId::None => None,
                    SecretId::Inline(secret) => Some(secret.clone()),
                    SecretId::File(path) => Some(self.local(read_token(path))?),
                };
                (Call::approle_login(mount, role_id, secret.as_ref()), secret)
            }
            Login::Kubernetes { mount, role, jwt_file } => {
                let jwt = self.local(read_token(jwt_file))?;
                (Call::kubernetes_login(mount, role, &jwt), Some(jwt))
            }
        };
        let reply = self.ask(&call, None).await?;
        let auth = self.local(self.auth(&reply, secret.as_ref()))?;
        let token = match auth.client_token.text() {
            Some(text) if is_header_text(text) => Secret::from(text),
            _ => {
                let error = malformed(&self.location(), "the login's answer holds no usable token");
                return Err(self.all_roles_fail(error));
            }
        };
        Ok(self.keep(slot, token, lease(&auth)))
    }

    /// Takes a token that is given, after asking how long it lives. One that may not even ask
    /// that may still be good for its roles.
    async fn take(
        &self,
        slot: &mut Option<Arc<Token>>,
        secret: Secret,
    ) -> Result<Arc<Token>, SourceError> {
        if !is_header_text(secret.expose()) {
            let error = malformed(&self.location(), "the token is empty or has odd characters");
            return Err(self.all_roles_fail(error));
        }
        let reply = self.ask(&Call::lookup_self(), Some(&secret)).await?;
        let data = match reply.status {
            200..=299 => reply.envelope::<TokenData>(&self.location())?.data.unwrap_or_default(),
            _ => TokenData::default(),
        };
        let renewable = data.renewable.flag().unwrap_or(false);
        Ok(self.keep(slot, secret, Lease { ttl: data.ttl.seconds(), renewable }))
    }

    async fn renew(
        &self,
        slot: &mut Option<Arc<Token>>,
        token: &Token,
    ) -> Result<Arc<Token>, SourceError> {
        let reply = self.ask(&Call::renew_self(), Some(&token.secret)).await?;
        let granted = match reply.status {
            200..=299 => self.auth(&reply, None).ok().map(|auth| lease(&auth)),
            _ => None,
        };
        let now = Instant::now();
        let mut grown = false;
        let renewed = replace(slot, token, |token| {
            grown = granted.is_some_and(|lease| token.renewed(lease, now));
        });
        match self.login {
            _ if grown => Ok(renewed),
            // The same token would be taken again.
            Login::Token(_) => Ok(replace(slot, token, Token::keep)),
            _ => self.log_in(slot).await,
        }
    }

    /// The outcome of a login or a renewal, in which `sent` was sent.
    fn auth(&self, reply: &Reply, sent: Option<&Secret>) -> Result<AuthData, SourceError> {
        match reply.status {
            200..=299 => {
                let envelope = reply.envelope::<TokenData>(&self.location())?;
                envelope
                    .auth
                    .ok_or_else(|| malformed(&self.location(), "the field auth is missing"))
            }
            status => {
                let mut cause = reply.complaint(sent.as_slice());
                if matches!(status, 403 | 404) {
                    // Vault does not tell a mount that is not there from a secret that is wrong.
                    cause = format!("{cause} ({status}); is `login_mount` right?").into();
                }
                let (location, method) = (self.location(), self.login.method());
                Err(SourceError::LoginRefused { location, method, cause })
            }
        }
    }

    fn keep(&self, slot: &mut Option<Arc<Token>>, secret: Secret, lease: Lease) -> Arc<Token> {
        let serial = self.serial.fetch_add(1, Ordering::Relaxed);
        let token = Arc::new(Token::new(secret, serial, lease, Instant::now()));
        *slot = Some(Arc::clone(&token));
        token
    }

    /// What concerns all roles quiets all of them.
    fn local<T>(&self, read: Result<T, SourceError>) -> Result<T, SourceError> {
        read.map_err(|error| self.all_roles_fail(error))
    }
}

/// A token, a secret id or a JWT: what is in the file without the space around it.
fn read_token(path: &Path) -> Result<Secret, SourceError> {
    read_secret(path).map(|text| Secret::from(text.expose().trim()))
}

fn lease(auth: &AuthData) -> Lease {
    Lease { ttl: auth.lease_duration.seconds(), renewable: auth.renewable.flag().unwrap_or(false) }
}

/// Puts a changed copy of `token` in its place.
fn replace(
    slot: &mut Option<Arc<Token>>,
    token: &Token,
    change: impl FnOnce(&mut Token),
) -> Arc<Token> {
    let mut copy = token.clone();
    change(&mut copy);
    let copy = Arc::new(copy);
    *slot = Some(Arc::clone(&copy));
    copy
}
