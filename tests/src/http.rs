//! Minimal HTTP clients, of pages and of APIs with JSON, and a reader of Prometheus pages.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use serde_json::Value;

use crate::until::SOON;

/// Sends `GET path` to 127.0.0.1 and returns the status code and the body.
///
/// # Panics
/// When nothing listens, or the answer is not HTTP.
#[must_use]
pub fn get(port: u16, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("a listening port");
    stream.set_read_timeout(Some(SOON)).expect("a time limit");
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("a request");
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).expect("an answer");
    let text = String::from_utf8_lossy(&bytes);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no HTTP: {text}"));
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
    (status, body.to_owned())
}

/// The sum of the samples of `name` in a Prometheus page whose labels contain all of `labels`, such
/// as `mode="transaction"`. `None` when there is no such sample.
///
/// # Panics
/// When a sample has no number.
#[must_use]
pub fn metric(page: &str, name: &str, labels: &[&str]) -> Option<f64> {
    let samples: Vec<f64> = page
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.rsplit_once(' '))
        .filter(|(series, _)| series.split('{').next() == Some(name))
        .filter(|(series, _)| labels.iter().all(|label| series.contains(label)))
        .map(|(_, value)| value.parse().expect("a number"))
        .collect();
    if samples.is_empty() { None } else { Some(samples.iter().sum()) }
}

/// An HTTP API of 127.0.0.1 that takes and gives JSON, with one connection for each call.
#[derive(Clone)]
pub(crate) struct JsonApi {
    /// Its TCP port.
    pub(crate) port: u16,
    /// The TLS that it speaks; `None` for none.
    pub(crate) tls: Option<Arc<ClientConfig>>,
}

impl JsonApi {
    /// Sends a request with `headers`, each with its `\r\n`. Returns the status and the body, which
    /// is `null` when it is not JSON.
    ///
    /// # Errors
    /// The error of the connection, and an error when the answer is not HTTP.
    pub(crate) fn call(
        &self,
        method: &str,
        path: &str,
        headers: &str,
        body: &Value,
    ) -> io::Result<(u16, Value)> {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let request = request(method, path, headers, &body);
        let bytes = match self.connect()? {
            Connection::Plain(mut socket) => exchange(&mut socket, &request)?,
            Connection::Tls(mut session) => exchange(&mut *session, &request)?,
        };
        let text = String::from_utf8_lossy(&bytes);
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = status.ok_or_else(|| io::Error::other(format!("no HTTP: {text}")))?;
        Ok((status, serde_json::from_str(body).unwrap_or(Value::Null)))
    }

    /// Sends a GET, and returns what comes back, from the head of the answer on. Reading for longer
    /// than `wait` in vain is an error of the kind `WouldBlock` or `TimedOut`, after which reading
    /// goes on.
    ///
    /// # Errors
    /// The error of the connection.
    pub(crate) fn stream(
        &self,
        path: &str,
        headers: &str,
        wait: Duration,
    ) -> io::Result<Box<dyn Read + Send>> {
        let request = request("GET", path, headers, "");
        match self.connect()? {
            Connection::Plain(mut socket) => {
                socket.write_all(request.as_bytes())?;
                socket.set_read_timeout(Some(wait))?;
                Ok(Box::new(socket))
            }
            Connection::Tls(mut session) => {
                session.write_all(request.as_bytes())?;
                session.flush()?;
                session.sock.set_read_timeout(Some(wait))?;
                Ok(session)
            }
        }
    }

    fn connect(&self) -> io::Result<Connection> {
        let socket = TcpStream::connect(("127.0.0.1", self.port))?;
        socket.set_read_timeout(Some(SOON))?;
        let Some(tls) = &self.tls else { return Ok(Connection::Plain(socket)) };
        let name = ServerName::try_from("localhost").expect("a name");
        let session = ClientConnection::new(Arc::clone(tls), name).map_err(io::Error::other)?;
        Ok(Connection::Tls(Box::new(StreamOwned::new(session, socket))))
    }
}

enum Connection {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

/// HTTP/1.0: the answer ends with the connection and never comes in chunks.
fn request(method: &str, path: &str, headers: &str, body: &str) -> String {
    format!(
        "{method} {path} HTTP/1.0\r\nHost: localhost\r\nConnection: close\r\n{headers}\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// The body of an answer to `method` of `path`.
///
/// # Panics
/// When there is no answer, or its status is not 2xx.
pub(crate) fn succeeded(method: &str, path: &str, answer: io::Result<(u16, Value)>) -> Value {
    let (status, body) = answer.unwrap_or_else(|error| panic!("{method} {path}: {error}"));
    assert!((200..300).contains(&status), "{method} {path}: {status} {body}");
    body
}

/// Writes `request` and reads to the end.
fn exchange(stream: &mut (impl Read + Write), request: &str) -> io::Result<Vec<u8>> {
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
