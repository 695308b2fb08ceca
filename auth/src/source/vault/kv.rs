//! A document in a secret of Vault's KV secrets engine, version 2, written with check-and-set.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use super::VaultClient;
use super::endpoint::Call;
use super::reply::{Capabilities, Field, KvData, KvFields, Reply, malformed};
use crate::SourceError;

/// The rights that are needed on the secret.
const CAPABILITIES: [&str; 3] = ["create", "read", "update"];

/// A secret of a KV version 2 engine, whose one field `document` holds bytes as base64. The client
/// is shared; a call is made with its token and limits.
#[derive(Clone, Debug)]
pub struct KvSecret {
    client: Arc<VaultClient>,
    mount: Box<str>,
    path: Box<str>,
    location: Box<str>,
}

/// A document as Vault has it.
pub struct KvDocument {
    /// The version for check-and-set: the secret's newest, deleted and destroyed ones included; 0
    /// where there is no secret yet.
    pub version: u64,
    /// The newest version.
    pub content: KvContent,
}

/// What the newest version of a secret holds.
pub enum KvContent {
    /// Nothing: there is no version, it is deleted or destroyed, or it has no fields.
    Empty,
    /// The bytes of the field `document`, wiped when dropped. A text that is no base64, which
    /// pgimbal has not written, is what it is.
    Document(Zeroizing<Vec<u8>>),
    /// Fields of somebody else's: others, without a `document`; or a `document` that is not a text.
    /// It must not be overwritten.
    Foreign,
}

impl KvSecret {
    /// The secret at `path` of the engine that is mounted at `mount`. Nothing is asked yet. Both
    /// are as `[store]` has them: names with slashes between them, and nothing that a URL changes.
    #[must_use]
    pub fn new(client: Arc<VaultClient>, mount: &str, path: &str) -> Self {
        let (mount, path) = (mount.trim_matches('/'), path.trim_matches('/'));
        let location = format!("vault {}, {mount}/{path}", client.name).into();
        Self { client, mount: mount.into(), path: path.into(), location }
    }

    /// The secret whose path is this one's with a `-` and `suffix`.
    #[must_use]
    pub fn beside(&self, suffix: &str) -> Self {
        let path = format!("{}-{suffix}", self.path);
        Self::new(Arc::clone(&self.client), &self.mount, &path)
    }

    /// Its place in words: `vault NAME, MOUNT/PATH`.
    #[must_use]
    pub fn location(&self) -> &str {
        &self.location
    }

    /// Reads the newest version: `GET /v1/:mount/data/:path`. Of a deleted secret Vault answers 404
    /// with the version in the body.
    ///
    /// # Errors
    /// [`SourceError`] by cause: the Vault, its token, the policy or the mount.
    pub async fn read(&self) -> Result<KvDocument, SourceError> {
        let reply = self.ask(&Call::kv_read(&self.mount, &self.path)).await?;
        let is_missing = reply.status == 404 && !reply.complaint(&[]).contains("no handler");
        if !matches!(reply.status, 200..=299) && !is_missing {
            return Err(self.refused(&reply));
        }
        // A 404 of a secret that never was has no data.
        let data = reply.envelope::<KvData>(&self.location)?.data.unwrap_or_default();
        let content = match data.data.unwrap_or_default() {
            KvFields { document: Field::Text(text), .. } => {
                KvContent::Document(decoded(text.expose()))
            }
            KvFields { document: Field::Absent, has_others: false } => KvContent::Empty,
            _ => KvContent::Foreign,
        };
        let version = data.metadata.version.count().unwrap_or_default();
        if version == 0 && reply.status != 404 {
            return Err(self.wrong_mount());
        }
        Ok(KvDocument { version, content })
    }

    /// Writes a new version if the newest is still `version`, and returns it: `POST
    /// /v1/:mount/data/:path` with `cas`. `None` when another one was written meanwhile. The
    /// secret's other fields are not kept.
    ///
    /// # Errors
    /// [`SourceError`] as for [`Self::read`].
    pub async fn replace(&self, bytes: &[u8], version: u64) -> Result<Option<u64>, SourceError> {
        let text = Zeroizing::new(BASE64.encode(bytes));
        let reply = self.ask(&Call::kv_write(&self.mount, &self.path, version, &text)).await?;
        match reply.status {
            200..=299 => {
                // Version 1 of the engine answers nothing.
                let written = (!reply.body.is_empty())
                    .then(|| reply.envelope::<KvData>(&self.location))
                    .transpose()?;
                let written = written.and_then(|envelope| envelope.data?.version.count());
                written.ok_or_else(|| self.wrong_mount()).map(Some)
            }
            400 if reply.complaint(&[]).contains("check-and-set") => Ok(None),
            _ => Err(self.refused(&reply)),
        }
    }

    /// Asks Vault to keep `count` versions of the secret: `POST /v1/:mount/metadata/:path`.
    ///
    /// # Errors
    /// [`SourceError`] as for [`Self::read`]; the policy need not allow it.
    pub async fn keep_versions(&self, count: u32) -> Result<(), SourceError> {
        let reply = self.ask(&Call::kv_keep_versions(&self.mount, &self.path, count)).await?;
        match reply.status {
            200..=299 => Ok(()),
            _ => Err(self.refused(&reply)),
        }
    }

    /// Which of the needed capabilities the token lacks, `POST /v1/sys/capabilities-self`; none
    /// when it may not ask, which the policy `default` allows.
    ///
    /// # Errors
    /// [`SourceError`] when Vault or its login fails.
    pub async fn missing_capabilities(&self) -> Result<Vec<&'static str>, SourceError> {
        let path = format!("{}/data/{}", self.mount, self.path);
        let call = Call::capabilities_self(&path);
        let reply = match self.ask(&call).await {
            Err(SourceError::PermissionDenied { .. }) => return Ok(Vec::new()),
            asked => asked?,
        };
        if !matches!(reply.status, 200..=299) {
            return Err(self.refused(&reply));
        }
        let data = reply.envelope::<Capabilities>(&self.location)?.data.unwrap_or_default();
        let has = |wanted: &str| data.capabilities.iter().any(|c| c == wanted || c == "root");
        Ok(CAPABILITIES.into_iter().filter(|wanted| !has(wanted)).collect())
    }

    /// The text of a policy that allows everything that pgimbal does with the secret and those
    /// beside it.
    #[must_use]
    pub fn policy(&self) -> String {
        let Self { mount, path, .. } = self;
        let all = CAPABILITIES.map(|name| format!("\"{name}\"")).join(", ");
        format!(
            "path \"{mount}/data/{path}\" {{ capabilities = [{all}] }}\n\
             path \"{mount}/data/{path}-unreadable-*\" {{ capabilities = [{all}] }}\n\
             path \"{mount}/metadata/{path}\" {{ capabilities = [\"create\", \"update\"] }}\n"
        )
    }

    async fn ask<T: DeserializeOwned + Send + Sync>(
        &self,
        call: &Call<T>,
    ) -> Result<Reply, SourceError> {
        let asked = self.client.authorized(call, &self.location).await;
        asked.map_err(|error| match error {
            SourceError::PermissionDenied { location, .. } => {
                SourceError::PermissionDenied { location, policy: self.policy().into() }
            }
            other => other,
        })
    }

    fn refused(&self, reply: &Reply) -> SourceError {
        match reply.status {
            404 | 405 => self.wrong_mount(),
            status => {
                let (location, cause) = (self.location.clone(), reply.complaint(&[]));
                SourceError::ServerFault { location, status, cause }
            }
        }
    }

    fn wrong_mount(&self) -> SourceError {
        let cause = format!(
            "no KV secrets engine of version 2 is mounted at \"{}\"; set `vault_mount`, or `vault \
             secrets enable -path={} -version=2 kv`",
            self.mount, self.mount
        );
        malformed(&self.location, &cause)
    }
}

impl std::fmt::Debug for KvDocument {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KvDocument").field("version", &self.version).finish_non_exhaustive()
    }
}

fn decoded(text: &str) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(BASE64.decode(text).unwrap_or_else(|_| text.as_bytes().to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_base64_is_taken_as_it_is() {
        assert_eq!(**decoded("AAEC"), [0, 1, 2]);
        assert_eq!(**decoded("{\"written\": \"by hand\"}"), *b"{\"written\": \"by hand\"}");
    }
}
