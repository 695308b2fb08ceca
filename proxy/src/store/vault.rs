//! The store in Vault or OpenBao: a secret of a KV version 2 engine, written with check-and-set.
//!
//! The client is the store's own, with a token of its own: a Vault that is slow for the document
//! does not hold up passwords.

use std::sync::{Arc, Mutex, PoisonError};

use pgimbal_auth::SourceError;
use pgimbal_auth::source::{KvContent, KvSecret, VaultClient};
use pgimbal_config::{Config, VaultConfig};

use super::document::{
    LIMIT, MAX_DOCUMENT, MAX_DOCUMENT_IN_VAULT, Stored, Version, VersionOf, names_aside,
};
use super::error::StoreError;

/// How many versions Vault keeps of a secret that pgimbal has made: the newest, and the one before
/// for an operator. The engine's default is 10.
const VERSIONS: u32 = 2;

/// What is said of a path at which somebody else's secret is.
const FOREIGN: &str = "the secret there is not pgimbal's: it has fields, and no text in the field \
    `document`; it is left as it is, and nothing is stored: set `vault_path` to a path that nobody \
    else uses, or delete the secret";

/// A document in a KV secret.
#[derive(Debug)]
pub(super) struct VaultStore {
    location: Box<str>,
    current: Mutex<Current>,
}

#[derive(Debug)]
struct Current {
    secret: KvSecret,
    /// The options from which the client was made.
    config: VaultConfig,
}

impl VaultStore {
    /// The secret that the configuration names. Nothing is asked yet.
    pub(super) fn new(config: &Config) -> Result<Self, StoreError> {
        let current = Current::new(config)?;
        let location = current.secret.location().into();
        Ok(Self { location, current: Mutex::new(current) })
    }

    /// Makes another client if the options of the Vault have changed.
    pub(super) fn reload(&self, config: &Config) -> Result<(), StoreError> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if vault_of(config)?.1 != &current.config {
            *current = Current::new(config)?;
        }
        Ok(())
    }

    /// Its place in words.
    pub(super) fn location(&self) -> &str {
        &self.location
    }

    /// Reads the secret; one that is not there, or whose newest version is deleted, is empty. One
    /// that somebody else has written is an error, so that it is never replaced.
    pub(super) async fn read(&self) -> Result<Stored, StoreError> {
        let document = self.secret().read().await.map_err(|error| self.failed(&error))?;
        let bytes = match document.content {
            KvContent::Document(bytes) => bytes,
            KvContent::Empty => <_>::default(),
            KvContent::Foreign => return Err(StoreError::unusable(&self.location, FOREIGN)),
        };
        if bytes.len() > MAX_DOCUMENT {
            return Err(self.too_large());
        }
        Ok(Stored::new(bytes, VersionOf::Count(document.version)))
    }

    /// Writes a new version of the secret if its newest is this one.
    pub(super) async fn replace(&self, bytes: &[u8], at: &Version) -> Result<Version, StoreError> {
        let conflict = || StoreError::Conflict { location: self.location.clone() };
        let VersionOf::Count(at) = at.0 else { return Err(conflict()) };
        let secret = self.secret();
        let written = secret.replace(bytes, at).await.map_err(|error| self.failed(&error))?;
        let version = written.ok_or_else(conflict)?;
        if at == 0
            && let Err(error) = secret.keep_versions(VERSIONS).await
        {
            tracing::debug!(%error, "Vault keeps as many versions as its engine is set to");
        }
        Ok(Version(VersionOf::Count(version)))
    }

    /// Keeps a document in a secret beside it.
    pub(super) async fn set_aside(&self, bytes: &[u8]) -> Result<String, StoreError> {
        let secret = self.secret();
        for name in names_aside() {
            let beside = secret.beside(&name);
            let kept = beside.read().await.map_err(|error| self.failed(&error))?;
            let is_kept = match &kept.content {
                KvContent::Document(other) => **other == *bytes,
                KvContent::Foreign => false,
                KvContent::Empty => {
                    let written = beside.replace(bytes, kept.version).await;
                    // Of two replicas with the same document one is first.
                    written.map_err(|error| self.failed(&error))?.is_some()
                        || self.holds(&beside, bytes).await?
                }
            };
            if is_kept {
                return Ok(beside.location().to_owned());
            }
        }
        Err(StoreError::all_taken(&self.location))
    }

    /// Asks which of the rights are missing.
    pub(super) async fn check_rights(&self) -> Result<(), StoreError> {
        let secret = self.secret();
        let missing = secret.missing_capabilities().await.map_err(|error| self.failed(&error))?;
        match missing.is_empty() {
            true => Ok(()),
            false => Err(self.forbidden(&secret, &missing.join(", "))),
        }
    }

    async fn holds(&self, secret: &KvSecret, bytes: &[u8]) -> Result<bool, StoreError> {
        let kept = secret.read().await.map_err(|error| self.failed(&error))?;
        Ok(matches!(kept.content, KvContent::Document(kept) if *kept == *bytes))
    }

    fn secret(&self) -> KvSecret {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).secret.clone()
    }

    fn forbidden(&self, secret: &KvSecret, missing: &str) -> StoreError {
        StoreError::Forbidden {
            location: self.location.clone(),
            cause: format!("Vault's policy does not allow pgimbal's token to {missing} it").into(),
            hint: secret.policy().into(),
        }
    }

    /// What a failure of Vault's means for the store.
    fn failed(&self, error: &SourceError) -> StoreError {
        let location = self.location.clone();
        // The text begins with a place: this one, or an address, which is worth saying.
        let text = error.to_string();
        let own = text.strip_prefix(&*location).and_then(|rest| rest.strip_prefix(": "));
        let cause: Box<str> = own.unwrap_or(&text).into();
        match error {
            SourceError::PermissionDenied { .. } => {
                self.forbidden(&self.secret(), "read and write")
            }
            SourceError::ServerFault { status: 413, .. } | SourceError::TooLarge { .. } => {
                self.too_large()
            }
            SourceError::ServerFault { cause, .. }
                if ["too large", "exceeds allowed length"].iter().any(|c| cause.contains(c)) =>
            {
                self.too_large()
            }
            SourceError::LoginRefused { .. } | SourceError::TokenRefused { .. } => {
                StoreError::Forbidden { location, cause, hint: "".into() }
            }
            SourceError::ServerFault { status, .. } if *status < 429 && *status != 412 => {
                StoreError::Unusable { location, cause }
            }
            error if error.is_transient() => StoreError::Away { location, cause },
            // It may be mended at Vault, without anybody here.
            SourceError::RecoverySecondary { .. }
            | SourceError::Uninitialised { .. }
            | SourceError::Tls { .. } => StoreError::Away { location, cause },
            _ => StoreError::Unusable { location, cause },
        }
    }

    fn too_large(&self) -> StoreError {
        StoreError::TooLarge { location: self.location.clone(), limit: MAX_DOCUMENT_IN_VAULT }
    }
}

impl Current {
    fn new(config: &Config) -> Result<Self, StoreError> {
        let (name, vault) = vault_of(config)?;
        // Each address, and a login, must find time within the limit of a call.
        let shares = u32::try_from(vault.address.len()).unwrap_or(u32::MAX).saturating_add(1);
        let limited = VaultConfig { timeout: vault.timeout.min(LIMIT / shares), ..vault.clone() };
        let client = VaultClient::new(name, &limited)
            .map_err(|error| StoreError::unusable("store", error.to_string()))?;
        let store = &config.store;
        let secret = KvSecret::new(Arc::new(client), &store.vault_mount, &store.vault_path);
        Ok(Self { secret, config: vault.clone() })
    }
}

/// The entry of `[vaults]` that the store names, or the only one.
fn vault_of(config: &Config) -> Result<(&str, &VaultConfig), StoreError> {
    let mut vaults = config.vaults.iter();
    let found = match &config.store.vault {
        Some(wanted) => vaults.find(|(name, _)| *name == wanted),
        None => vaults.next(),
    };
    let found = found.map(|(name, vault)| (name.as_str(), vault));
    found.ok_or_else(|| StoreError::unusable("store", "its Vault is not configured"))
}
