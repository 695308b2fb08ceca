//! The store of a deployment in Kubernetes: one Secret, replaced with its resourceVersion.
//!
//! The Secret is somebody else's too: the chart makes it, and its other keys, labels and fields
//! that this version does not know are written back as they were read. The rights are `get`,
//! `list`, `watch` and `update` on that one name, so pgimbal neither makes nor patches it.

use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::ByteString;
use pgimbal_config::Config;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use zeroize::Zeroizing;

use super::document::{MAX_DOCUMENT, Stored, Version, VersionOf, names_aside};
use super::error::StoreError;
use api_server::{ApiServer, Request};

mod api_server;
mod watch;

/// The key of the document in the Secret's data.
const KEY: &str = "document";
/// The rights that pgimbal needs on its Secret.
const VERBS: [&str; 4] = ["get", "list", "watch", "update"];
/// How often a document is set aside anew when somebody else writes meanwhile.
const ASIDE_TRIES: usize = 4;

/// A document in a Secret, and the task that watches it.
#[derive(Debug)]
pub(super) struct KubernetesStore {
    secret: Arc<Secret>,
    watch: AbortHandle,
}

/// The Secret, shared with the task that watches it.
#[derive(Debug)]
struct Secret {
    server: ApiServer,
    namespace: Box<str>,
    name: Box<str>,
    location: Box<str>,
    /// The resourceVersion that was read or written last, which is no news.
    seen: Mutex<Box<str>>,
    changed: Notify,
}

impl KubernetesStore {
    /// The Secret that the configuration names. Starts its watch; within a tokio runtime.
    pub(super) fn new(config: &Config) -> Result<Self, StoreError> {
        let store = &config.store;
        let unnamed = format!("secret {}", store.secret);
        let (server, namespace) = ApiServer::new(store.kubeconfig.as_deref(), &unnamed)?;
        let namespace = store.namespace.clone().unwrap_or(namespace);
        let location: Box<str> = format!("secret {namespace}/{}", store.secret).into();
        let secret = Arc::new(Secret {
            server: server.at(&location),
            namespace: namespace.into(),
            name: store.secret.clone().into(),
            location,
            seen: Mutex::default(),
            changed: Notify::new(),
        });
        let watch = tokio::spawn(watch::run(Arc::clone(&secret))).abort_handle();
        Ok(Self { secret, watch })
    }

    /// Its place in words.
    pub(super) fn location(&self) -> &str {
        &self.secret.location
    }

    /// Reads the Secret; one without the key is empty.
    pub(super) async fn read(&self) -> Result<Stored, StoreError> {
        let object = self.secret.get().await?;
        let version = self.secret.version(&object)?;
        let bytes = self.secret.bytes(&object, KEY)?.unwrap_or_default();
        if bytes.len() > MAX_DOCUMENT {
            return Err(self.secret.too_large());
        }
        Ok(Stored::new(bytes, VersionOf::Text(version)))
    }

    /// Replaces the document if the Secret is at this version; its other keys stay.
    pub(super) async fn replace(&self, bytes: &[u8], at: &Version) -> Result<Version, StoreError> {
        let object = self.secret.get().await?;
        if at.0 != VersionOf::Text(self.secret.version(&object)?) {
            return Err(StoreError::Conflict { location: self.secret.location.clone() });
        }
        let version = self.secret.put(object, KEY, bytes).await?;
        Ok(Version(VersionOf::Text(version)))
    }

    /// Keeps a document under another key of the Secret.
    pub(super) async fn set_aside(&self, bytes: &[u8]) -> Result<String, StoreError> {
        let mut outcome = Err(StoreError::all_taken(self.location()));
        for _ in 0..ASIDE_TRIES {
            outcome = self.secret.set_aside(bytes).await;
            if !matches!(outcome, Err(StoreError::Conflict { .. })) {
                break;
            }
        }
        outcome
    }

    /// Returns once the watch has seen a version that was neither read nor written here.
    pub(super) async fn changed(&self) {
        self.secret.changed.notified().await;
    }

    /// Asks which of the rights are missing.
    pub(super) async fn check_rights(&self) -> Result<(), StoreError> {
        let mut missing = Vec::new();
        for verb in VERBS {
            if !self.secret.may(verb).await? {
                missing.push(verb);
            }
        }
        match missing.is_empty() {
            true => Ok(()),
            false => Err(self.secret.forbidden(&missing.join(", "))),
        }
    }
}

impl Drop for KubernetesStore {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

impl Secret {
    async fn get(&self) -> Result<Value, StoreError> {
        self.ask(&Request::get(self.path()), "get").await
    }

    /// Writes `object` with `bytes` under `key`, and returns its new version.
    async fn put(
        &self,
        mut object: Value,
        key: &str,
        bytes: &[u8],
    ) -> Result<Box<str>, StoreError> {
        let encoded = serde_json::to_value(ByteString(bytes.to_vec()));
        let encoded = encoded.map_err(|_| self.malformed())?;
        let object_fields = object.as_object_mut().ok_or_else(|| self.malformed())?;
        let data = object_fields.entry("data").or_insert(Value::Null);
        if data.is_null() {
            *data = json!({});
        }
        data.as_object_mut().ok_or_else(|| self.malformed())?.insert(key.to_owned(), encoded);
        let path = format!("{}?fieldManager=pgimbal", self.path());
        let written = self.ask(&Request::put(path, &object), "update").await?;
        self.version(&written)
    }

    async fn set_aside(&self, bytes: &[u8]) -> Result<String, StoreError> {
        let object = self.get().await?;
        for name in names_aside() {
            match self.bytes(&object, &name)? {
                Some(kept) if *kept == *bytes => {}
                Some(_) => continue,
                None => {
                    let put = self.put(object, &name, bytes).await;
                    put.map_err(|error| match error {
                        StoreError::TooLarge { location, .. } => {
                            StoreError::NoRoom { location, cause: self.how_to_make_room() }
                        }
                        other => other,
                    })?;
                }
            }
            return Ok(format!("key {name} of {}", self.location));
        }
        Err(StoreError::all_taken(&self.location))
    }

    fn how_to_make_room(&self) -> Box<str> {
        let Self { namespace, name, .. } = self;
        format!(
            "a Secret holds 1 MiB in all; keep its key {KEY} elsewhere (kubectl get secret {name} \
             -n {namespace} -o yaml), and remove the key"
        )
        .into()
    }

    /// Whether this process may do `verb` with the Secret, which the API server tells everybody.
    async fn may(&self, verb: &str) -> Result<bool, StoreError> {
        let review = json!({
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": { "resourceAttributes": {
                "namespace": self.namespace, "verb": verb, "resource": "secrets",
                "name": self.name,
            } },
        });
        let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews".to_owned();
        let answer = self.ask(&Request::post(path, &review), verb).await?;
        Ok(answer["status"]["allowed"].as_bool().unwrap_or(false))
    }

    /// Makes a call; everything but a success is an error. `verb` is the right that it needs.
    async fn ask(&self, request: &Request, verb: &str) -> Result<Value, StoreError> {
        let reply = self.server.ask(request).await?;
        if matches!(reply.status, 200..=299) {
            // The error's own text may quote the answer.
            return serde_json::from_slice(&reply.body).map_err(|_| self.malformed());
        }
        Err(self.refused(reply.status, &reply.complaint(), verb))
    }

    /// The error for an answer of this HTTP status. `complaint` is the API server's own text.
    fn refused(&self, status: u16, complaint: &str, verb: &str) -> StoreError {
        let location = self.location.clone();
        let cause = format!("the API server answers {status}: {complaint}");
        match status {
            401 => StoreError::Forbidden {
                location,
                cause: "the API server does not accept the service account's token (401)".into(),
                hint: "".into(),
            },
            403 => self.forbidden(verb),
            404 => self.missing(),
            409 => StoreError::Conflict { location },
            413 => self.too_large(),
            422 if complaint.contains("Too long") => self.too_large(),
            408 | 429 | 500..=599 => StoreError::Away { location, cause: cause.into() },
            _ => StoreError::unusable(&location, cause),
        }
    }

    fn forbidden(&self, verbs: &str) -> StoreError {
        let Self { namespace, name, .. } = self;
        let hint = format!(
            "apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata: {{name: {name}, \
             namespace: {namespace}}}\nrules:\n- apiGroups: [\"\"]\n  resources: [secrets]\n  \
             resourceNames: [{name}]\n  verbs: [{}]\n",
            VERBS.join(", ")
        );
        StoreError::Forbidden {
            location: self.location.clone(),
            cause: format!(
                "RBAC does not allow pgimbal's service account to {verbs} it; bind it to a Role \
                 with these rules"
            )
            .into(),
            hint: hint.into(),
        }
    }

    fn missing(&self) -> StoreError {
        let Self { namespace, name, .. } = self;
        StoreError::Missing {
            location: self.location.clone(),
            cause: "there is no such Secret; make it, empty: pgimbal may not".into(),
            hint: format!("kubectl create secret generic {name} --namespace {namespace}\n").into(),
        }
    }

    fn too_large(&self) -> StoreError {
        StoreError::TooLarge { location: self.location.clone(), limit: MAX_DOCUMENT }
    }

    fn malformed(&self) -> StoreError {
        StoreError::unusable(&self.location, "the API server's answer is no Secret")
    }

    /// The object's version, which is then known here.
    fn version(&self, object: &Value) -> Result<Box<str>, StoreError> {
        let version: Box<str> = object["metadata"]["resourceVersion"]
            .as_str()
            .filter(|version| !version.is_empty())
            .ok_or_else(|| self.malformed())?
            .into();
        self.lock_seen().clone_from(&version);
        Ok(version)
    }

    /// The bytes under `key` of the object's data; `None` when there is no such key.
    fn bytes(&self, object: &Value, key: &str) -> Result<Option<Zeroizing<Vec<u8>>>, StoreError> {
        match &object["data"][key] {
            Value::Null => Ok(None),
            encoded => serde_json::from_value(encoded.clone())
                .map(|ByteString(bytes)| Some(Zeroizing::new(bytes)))
                .map_err(|_| self.malformed()),
        }
    }

    /// Notes a version that the watch has seen, and whether it is news.
    fn note(&self, version: &str) {
        let mut seen = self.lock_seen();
        if **seen != *version {
            *seen = version.into();
            self.changed.notify_one();
        }
    }

    fn lock_seen(&self) -> std::sync::MutexGuard<'_, Box<str>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self) -> String {
        format!("{}/{}", self.folder(), self.name)
    }

    fn folder(&self) -> String {
        format!("/api/v1/namespaces/{}/secrets", self.namespace)
    }
}
