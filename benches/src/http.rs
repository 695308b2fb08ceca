//! Just enough HTTP to ask servers on this machine: one connection for each request.

use crate::{During, Error, Result};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// No answer takes this long.
const PATIENCE: Duration = Duration::from_secs(20);

/// A server's HTTP API on 127.0.0.1, with a token of Vault's if it is one.
#[derive(Clone)]
pub struct Api {
    port: u16,
    token: String,
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Api({})", self.port)
    }
}

impl Api {
    /// The API at `port`.
    #[must_use]
    pub fn new(port: u16, token: &str) -> Self {
        Self { port, token: token.to_owned() }
    }

    /// Sends a request and returns the status and the body as it is.
    ///
    /// # Errors
    /// When nobody answers in HTTP.
    pub fn request(&self, method: &str, path: &str, body: &str) -> Result<(u16, String)> {
        // HTTP/1.0: the answer ends with the connection and never comes in chunks.
        let request = format!(
            "{method} {path} HTTP/1.0\r\nHost: localhost\r\nX-Vault-Token: {}\r\n\
             Content-Length: {}\r\n\r\n{body}",
            self.token,
            body.len()
        );
        let what = || format!("asking for {path}");
        let mut socket = TcpStream::connect(("127.0.0.1", self.port)).during(what())?;
        socket.set_read_timeout(Some(PATIENCE)).during(what())?;
        socket.write_all(request.as_bytes()).during(what())?;
        let mut bytes = Vec::new();
        socket.read_to_end(&mut bytes).during(what())?;
        let text = String::from_utf8_lossy(&bytes);
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = status.ok_or_else(|| Error::Program(format!("{path}: no HTTP answer")))?;
        Ok((status, body.to_owned()))
    }

    /// Sends JSON to a path of Vault's API and returns the JSON of its answer.
    ///
    /// # Errors
    /// When Vault refuses.
    pub fn vault(&self, method: &str, path: &str, body: &Value) -> Result<Value> {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let (status, answer) = self.request(method, &format!("/v1/{path}"), &body)?;
        let answer = serde_json::from_str(&answer).unwrap_or(Value::Null);
        if (200..300).contains(&status) {
            return Ok(answer);
        }
        Err(Error::Program(format!("Vault: {method} {path}: {status} {}", answer["errors"])))
    }
}
