//! A minimal client of Vault's HTTP API, with one connection for each call.

use std::io;
use std::sync::Arc;

use rustls::ClientConfig;
use serde_json::Value;

use crate::http::{JsonApi, succeeded};

/// Vault's HTTP API with one token.
#[derive(Clone)]
pub struct Api {
    server: JsonApi,
    token: String,
}

impl Api {
    /// The API at `port` of 127.0.0.1, without a token; over TLS if `tls` is given.
    #[must_use]
    pub fn new(port: u16, tls: Option<Arc<ClientConfig>>) -> Self {
        Self { server: JsonApi { port, tls }, token: String::new() }
    }

    /// Its token.
    pub(super) fn token(&self) -> &str {
        &self.token
    }

    /// The same API with another token.
    #[must_use]
    pub fn with_token(&self, token: &str) -> Self {
        Self { token: token.to_owned(), ..self.clone() }
    }

    /// Sends a request to `/v1/` and `path`. Returns the status and the body, which is `null` when
    /// it is not JSON.
    ///
    /// # Errors
    /// The error of the connection, and an error when the answer is not HTTP.
    pub fn call(&self, method: &str, path: &str, body: &Value) -> io::Result<(u16, Value)> {
        let header = format!("X-Vault-Token: {}\r\n", self.token);
        self.server.call(method, &format!("/v1/{path}"), &header, body)
    }

    /// Reads `path` (GET) and returns the body.
    ///
    /// # Panics
    /// When the status is not 2xx.
    #[must_use]
    pub fn read(&self, path: &str) -> Value {
        succeeded("GET", path, self.call("GET", path, &Value::Null))
    }

    /// Writes `body` to `path` (POST) and returns the answer's body.
    ///
    /// # Panics
    /// When the status is not 2xx.
    pub fn write(&self, path: &str, body: &Value) -> Value {
        succeeded("POST", path, self.call("POST", path, body))
    }
}
