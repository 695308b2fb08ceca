//! A minimal client of an API server, with one connection for each call.

use std::io;
use std::net::TcpStream;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use serde_json::Value;

use crate::until::SOON;
use crate::vault::api::exchange;

/// An HTTP API that takes and gives JSON, with one bearer token.
#[derive(Clone)]
pub struct Api {
    port: u16,
    tls: Option<Arc<ClientConfig>>,
    token: String,
}

impl Api {
    /// The API at `port` of 127.0.0.1 over TLS.
    #[must_use]
    pub fn new(port: u16, tls: Arc<ClientConfig>, token: &str) -> Self {
        Self { port, tls: Some(tls), token: token.to_owned() }
    }

    /// One without TLS and token: etcd's.
    #[must_use]
    pub fn plain(port: u16) -> Self {
        Self { port, tls: None, token: String::new() }
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
        let body = if body.is_null() { String::new() } else { body.to_string() };
        // etcd refuses a token that it did not make, also an empty one.
        let authorization = match &*self.token {
            "" => String::new(),
            token => format!("Authorization: Bearer {token}\r\n"),
        };
        let kind = if method == "PATCH" { "merge-patch+json" } else { "json" };
        // HTTP/1.0: the answer ends with the connection and never comes in chunks.
        let request = format!(
            "{method} {path} HTTP/1.0\r\nHost: localhost\r\nConnection: close\r\n\
             {authorization}Content-Type: application/{kind}\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut socket = TcpStream::connect(("127.0.0.1", self.port))?;
        socket.set_read_timeout(Some(SOON))?;
        let bytes = match &self.tls {
            None => exchange(&mut socket, &request)?,
            Some(tls) => {
                let name = ServerName::try_from("localhost").expect("a name");
                let session =
                    ClientConnection::new(Arc::clone(tls), name).map_err(io::Error::other)?;
                exchange(&mut StreamOwned::new(session, socket), &request)?
            }
        };
        let text = String::from_utf8_lossy(&bytes);
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = status.ok_or_else(|| io::Error::other(format!("no HTTP: {text}")))?;
        Ok((status, serde_json::from_str(body).unwrap_or(Value::Null)))
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
        let (status, answer) =
            self.call(method, path, body).unwrap_or_else(|error| panic!("{path}: {error}"));
        assert!((200..300).contains(&status), "{method} {path}: {status} {answer}");
        answer
    }
}
