//! A minimal client of an API server, with one connection for each call.

use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use serde_json::Value;

use crate::http::{JsonApi, succeeded};

/// An HTTP API that takes and gives JSON, with one bearer token.
#[derive(Clone)]
pub struct Api {
    server: JsonApi,
    token: String,
}

impl Api {
    /// The API at `port` of 127.0.0.1 over TLS.
    #[must_use]
    pub fn new(port: u16, tls: Arc<ClientConfig>, token: &str) -> Self {
        Self { server: JsonApi { port, tls: Some(tls) }, token: token.to_owned() }
    }

    /// One without TLS and token: etcd's.
    #[must_use]
    pub fn plain(port: u16) -> Self {
        Self { server: JsonApi { port, tls: None }, token: String::new() }
    }

    /// The same API with another token.
    #[must_use]
    pub fn with_token(&self, token: &str) -> Self {
        Self { token: token.to_owned(), ..self.clone() }
    }

    /// Sends a request. Returns the status and the body, which is `null` when it is not JSON. A
    /// PATCH is a merge patch.
    ///
    /// # Errors
    /// The error of the connection, and an error when the answer is not HTTP.
    pub fn call(&self, method: &str, path: &str, body: &Value) -> io::Result<(u16, Value)> {
        self.server.call(method, path, &self.headers(method), body)
    }

    /// Reads `path` without end, as a watch is answered. The answer begins with its head. Reading
    /// for longer than `wait` in vain is an error of the kind `WouldBlock` or `TimedOut`, after
    /// which reading goes on.
    ///
    /// # Errors
    /// The error of the connection.
    pub fn stream(&self, path: &str, wait: Duration) -> io::Result<Box<dyn Read + Send>> {
        self.server.stream(path, &self.headers("GET"), wait)
    }

    fn headers(&self, method: &str) -> String {
        // etcd refuses a token that it did not make, also an empty one.
        let authorization = match &*self.token {
            "" => String::new(),
            token => format!("Authorization: Bearer {token}\r\n"),
        };
        let kind = if method == "PATCH" { "merge-patch+json" } else { "json" };
        format!("{authorization}Content-Type: application/{kind}\r\n")
    }

    /// Reads `path`.
    ///
    /// # Panics
    /// When the status is not 2xx.
    #[must_use]
    pub fn read(&self, path: &str) -> Value {
        self.succeed("GET", path, &Value::Null)
    }

    /// Posts `body` to `path` and returns the answer.
    ///
    /// # Panics
    /// When the status is not 2xx.
    pub fn create(&self, path: &str, body: &Value) -> Value {
        self.succeed("POST", path, body)
    }

    /// Merges `patch` into what is at `path`.
    ///
    /// # Panics
    /// When the status is not 2xx.
    pub fn patch(&self, path: &str, patch: &Value) {
        self.succeed("PATCH", path, patch);
    }

    /// Deletes what is at `path`.
    ///
    /// # Panics
    /// When the status is not 2xx.
    pub fn delete(&self, path: &str) {
        self.succeed("DELETE", path, &Value::Null);
    }

    fn succeed(&self, method: &str, path: &str, body: &Value) -> Value {
        succeeded(method, path, self.call(method, path, body))
    }
}
