//! A minimal client of Vault's HTTP API, with one connection for each call.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use serde_json::Value;

use crate::until::SOON;

/// Vault's HTTP API with one token.
#[derive(Clone)]
pub struct Api {
    port: u16,
    tls: Option<Arc<ClientConfig>>,
    token: String,
}

impl Api {
    /// The API at `port` of 127.0.0.1, without a token; over TLS if `tls` is given.
    #[must_use]
    pub fn new(port: u16, tls: Option<Arc<ClientConfig>>) -> Self {
        Self { port, tls, token: String::new() }
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
        let body = if body.is_null() { String::new() } else { body.to_string() };
        // HTTP/1.0: the answer ends with the connection and never comes in chunks.
        let request = format!(
            "{method} /v1/{path} HTTP/1.0\r\nHost: localhost\r\nConnection: close\r\nX-Vault-Token: {}\r\n\
             Content-Length: {}\r\n\r\n{body}",
            self.token,
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

    /// Reads `path` (GET) and returns the body.
    ///
    /// # Panics
    /// When the status is not 2xx.
    #[must_use]
    pub fn read(&self, path: &str) -> Value {
        self.succeed("GET", path, &Value::Null)
    }

    /// Writes `body` to `path` (POST) and returns the answer's body.
    ///
    /// # Panics
    /// When the status is not 2xx.
    pub fn write(&self, path: &str, body: &Value) -> Value {
        self.succeed("POST", path, body)
    }

    fn succeed(&self, method: &str, path: &str, body: &Value) -> Value {
        let (status, answer) =
            self.call(method, path, body).unwrap_or_else(|error| panic!("{path}: {error}"));
        assert!((200..300).contains(&status), "{method} {path}: {status} {answer}");
        answer
    }
}

/// Writes `request` and reads to the end.
pub(crate) fn exchange(stream: &mut (impl Read + Write), request: &str) -> io::Result<Vec<u8>> {
    stream.write_all(request.as_bytes())?;
    stream.flush()?;
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        // Go's servers end a TLS connection without saying so once they have answered.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof && !bytes.is_empty() => {}
        other => drop(other?),
    }
    Ok(bytes)
}
