//! The API server: how it is reached, and answers of bounded size.

use std::error::Error;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http_body_util::{BodyExt, Limited};
use hyper::Response;
use hyper::header::{ACCEPT, CONTENT_TYPE};
use kube::client::{AuthError, Body};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde::Deserialize;
use serde_json::Value;
use zeroize::Zeroizing;

use crate::store::error::StoreError;

/// The largest answer that is read. A Secret of 1 MiB is a third more as base64; the rest is room
/// for its labels and annotations (256 KiB at most) and for who has managed which field.
const MAX_ANSWER: usize = 2 << 20;
/// Time limit of connecting: a host that does not answer is given up before the call's limit, so
/// that the error says so.
const CONNECT: Duration = Duration::from_secs(2);

/// The API server with its current client, which is made anew after a failure: certificates and
/// tokens are read again then. The token of a service account is read again each minute as well
/// (by kube), for Kubernetes renews it.
pub(super) struct ApiServer {
    reach: Reach,
    location: Box<str>,
    client: Mutex<Option<Client>>,
}

#[derive(Debug)]
enum Reach {
    InCluster,
    Kubeconfig(PathBuf),
}

/// A call of the API.
#[derive(Debug)]
pub(super) struct Request {
    method: &'static str,
    path: String,
    body: Option<String>,
    accept: &'static str,
}

/// An answer of the API server; its body is wiped when dropped.
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) body: Zeroizing<Vec<u8>>,
}

impl ApiServer {
    /// Checks how the API server is reached, without asking it: the file `kubeconfig`, or a pod's
    /// environment and service account. Returns the namespace of the context or the pod as well.
    /// Errors begin with `location`.
    pub(super) fn new(
        kubeconfig: Option<&Path>,
        location: &str,
    ) -> Result<(Self, String), StoreError> {
        let (reach, namespace) = match kubeconfig {
            Some(path) => {
                let read = Kubeconfig::read_from(path);
                let read = read.map_err(|error| {
                    let cause = format!("kubeconfig {}: {}", path.display(), root(&error));
                    StoreError::unusable(location, cause)
                })?;
                (Reach::Kubeconfig(path.to_owned()), namespace_of(&read))
            }
            None => {
                let config = Config::incluster().map_err(|error| {
                    let cause = format!(
                        "this is no pod with a service account ({error}): name a kubeconfig"
                    );
                    StoreError::unusable(location, cause)
                })?;
                (Reach::InCluster, config.default_namespace)
            }
        };
        Ok((Self { reach, location: location.into(), client: Mutex::default() }, namespace))
    }

    /// The same with another place in words for errors.
    pub(super) fn at(self, location: &str) -> Self {
        Self { location: location.into(), ..self }
    }

    /// Makes a call and reads the whole answer, whatever its status.
    pub(super) async fn ask(&self, request: &Request) -> Result<Reply, StoreError> {
        let response = self.send(request).await?;
        self.read(response).await
    }

    /// Reads the rest of an answer.
    pub(super) async fn read(&self, response: Response<Body>) -> Result<Reply, StoreError> {
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
        let body = body.map_err(|error| match error.is::<http_body_util::LengthLimitError>() {
            true => StoreError::TooLarge { location: self.location.clone(), limit: MAX_ANSWER },
            false => self.away(&*error),
        })?;
        Ok(Reply { status, body: Zeroizing::new(body.to_bytes().into()) })
    }

    /// Makes a call, and returns the answer with its body still to be read.
    pub(super) async fn send(&self, request: &Request) -> Result<Response<Body>, StoreError> {
        let client = self.client().await?;
        let made = hyper::Request::builder()
            .method(request.method)
            .uri(&request.path)
            .header(ACCEPT, request.accept)
            .header(CONTENT_TYPE, "application/json")
            .body(Body::from(request.body.clone().unwrap_or_default().into_bytes()))
            .map_err(|_| StoreError::unusable(&self.location, "its name makes no URL"))?;
        let sent = client.send(made).await;
        if sent.as_ref().map_or(true, |response| response.status() == 401) {
            *self.lock() = None;
        }
        sent.map_err(|error| self.away(&error))
    }

    async fn client(&self) -> Result<Client, StoreError> {
        if let Some(client) = self.lock().clone() {
            return Ok(client);
        }
        let mut config = self.config().await?;
        // A call is made once; its caller repeats it.
        config.default_retry = false;
        config.connect_timeout = Some(CONNECT);
        let client = Client::try_from(config).map_err(|error| {
            StoreError::unusable(&self.location, format!("no client can be made: {}", root(&error)))
        })?;
        *self.lock() = Some(client.clone());
        Ok(client)
    }

    async fn config(&self) -> Result<Config, StoreError> {
        let unreadable = |error: &(dyn Error + 'static)| StoreError::Away {
            location: self.location.clone(),
            cause: format!("{}: {}", self.reach, root(error)).into(),
        };
        match &self.reach {
            Reach::InCluster => Config::incluster().map_err(|error| unreadable(&error)),
            Reach::Kubeconfig(path) => {
                let read = Kubeconfig::read_from(path).map_err(|error| unreadable(&error))?;
                Config::from_custom_kubeconfig(read, &KubeConfigOptions::default())
                    .await
                    .map_err(|error| unreadable(&error))
            }
        }
    }

    fn away(&self, error: &(dyn Error + 'static)) -> StoreError {
        let cause = match credentials_fault(error) {
            Some(fault) => fault,
            None => format!("the API server cannot be reached: {}", root(error)),
        };
        StoreError::Away { location: self.location.clone(), cause: cause.into() }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Client>> {
        self.client.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Request {
    /// `GET`.
    pub(super) const fn get(path: String) -> Self {
        Self { method: "GET", path, body: None, accept: "application/json" }
    }

    /// A watch, whose events have the metadata of objects and not the rest.
    pub(super) fn watch(path: String) -> Self {
        let accept = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
        Self { accept, ..Self::get(path) }
    }

    /// `POST`.
    pub(super) fn post(path: String, body: &Value) -> Self {
        Self { method: "POST", body: Some(body.to_string()), ..Self::get(path) }
    }

    /// `PUT`.
    pub(super) fn put(path: String, body: &Value) -> Self {
        Self { method: "PUT", body: Some(body.to_string()), ..Self::get(path) }
    }
}

impl Reply {
    /// The API server's own words for a refusal, shortened to one line. They name fields and never
    /// the data of a Secret.
    pub(super) fn complaint(&self) -> String {
        /// Its usual texts fit; a page of a proxy in between need not.
        const LONGEST: usize = 200;
        #[derive(Deserialize, Default)]
        #[serde(default)]
        struct Status {
            message: String,
        }
        let status: Status = serde_json::from_slice(&self.body).unwrap_or_default();
        let words: Vec<&str> = status.message.split_whitespace().collect();
        match words.is_empty() {
            true => "no reason is given".to_owned(),
            false => words.join(" ").chars().take(LONGEST).collect(),
        }
    }
}

impl fmt::Display for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InCluster => f.write_str("service account"),
            Self::Kubeconfig(path) => write!(f, "kubeconfig {}", path.display()),
        }
    }
}

impl fmt::Debug for ApiServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiServer").field("reach", &self.reach).finish_non_exhaustive()
    }
}

fn namespace_of(kubeconfig: &Kubeconfig) -> String {
    let current = kubeconfig.current_context.as_deref();
    let context = kubeconfig.contexts.iter().find(|named| Some(&*named.name) == current);
    let namespace = context.and_then(|named| named.context.as_ref()?.namespace.clone());
    namespace.unwrap_or_else(|| "default".to_owned())
}

/// The text for credentials that could not be made ready. The error of a login program holds what
/// that program has written, perhaps a token, and is not repeated.
fn credentials_fault(error: &(dyn Error + 'static)) -> Option<String> {
    let mut at = Some(error);
    while let Some(found) = at {
        if let Some(fault) = found.downcast_ref::<AuthError>() {
            return Some(match fault {
                AuthError::ReadTokenFile(cause, path) => {
                    format!("the token file {}: {cause}", path.display())
                }
                _ => {
                    "its credentials cannot be made ready: the kubeconfig's login fails".to_owned()
                }
            });
        }
        at = found.source();
    }
    None
}

/// The text of the innermost cause.
fn root(error: &(dyn Error + 'static)) -> String {
    let mut at = error;
    while let Some(source) = at.source() {
        at = source;
    }
    at.to_string()
}
