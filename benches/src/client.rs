//! The client that measures: log in, ask, read and forget, leave.
//!
//! It is not the tests' `WireClient`, because what it costs counts as the pooler's. That one
//! stretches the password in every login, reads each message with two system calls and keeps all of
//! them; this one stretches once for a salt (`scram.rs`), reads whole answers at once and looks at
//! no more of them than it needs. What is not measured uses `WireClient`.

use crate::postgres::{DATABASE, password};
use crate::scram::{self, Secret};
use crate::{During, Error, Result};
use pgimbal_tests::{Message, Reply};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Time limit of a read: no answer of a scenario takes this long, and a stuck server must fail the
/// run.
const PATIENCE: Duration = Duration::from_secs(60);
/// Size of the read buffer in bytes: holds all messages of a login and of a small answer.
const READ_BUFFER: usize = 2048;

/// The address, role and password with which clients log in.
#[derive(Debug)]
pub struct Endpoint {
    /// The address of the server or pooler.
    pub address: SocketAddr,
    role: String,
    /// `options` of the startup packet, empty for none.
    options: String,
    secret: Secret,
    logins: AtomicU64,
}

impl Endpoint {
    /// Makes the endpoint at `port` of 127.0.0.1 for `role`, with the role's first password.
    #[must_use]
    pub fn new(port: u16, role: &str) -> Self {
        Self {
            address: (Ipv4Addr::LOCALHOST, port).into(),
            role: role.to_owned(),
            options: String::new(),
            secret: Secret::new(&password(role)),
            logins: AtomicU64::new(0),
        }
    }

    /// The same endpoint with another password.
    #[must_use]
    pub fn with_password(self, password: &str) -> Self {
        Self { secret: Secret::new(password), ..self }
    }

    /// The same endpoint with startup options such as `-c name=value`.
    #[must_use]
    pub fn with_options(self, options: &str) -> Self {
        Self { options: options.to_owned(), ..self }
    }

    /// Connects and logs in, by trust or SCRAM, whichever the server asks for.
    ///
    /// # Errors
    /// When the connection fails or the server refuses.
    pub fn log_in(&self) -> Result<Client> {
        let stream = TcpStream::connect(self.address).during("connecting")?;
        stream.set_nodelay(true).during("connecting")?;
        stream.set_read_timeout(Some(PATIENCE)).during("connecting")?;
        let mut client = Client { stream: BufReader::with_capacity(READ_BUFFER, stream) };
        let mut startup = vec![0, 0, 0, 0, 0, 3, 0, 0];
        let options = ["options", &self.options];
        let options = if self.options.is_empty() { &[][..] } else { &options };
        for text in ["user", &self.role, "database", DATABASE].iter().chain(options) {
            startup.extend_from_slice(text.as_bytes());
            startup.push(0);
        }
        startup.push(0);
        let length = u32::try_from(startup.len()).unwrap_or(u32::MAX);
        startup[..4].copy_from_slice(&length.to_be_bytes());
        client.stream.get_mut().write_all(&startup).during("sending a startup packet")?;
        self.authenticate(&mut client)?;
        Ok(client)
    }

    fn authenticate(&self, client: &mut Client) -> Result<()> {
        let nonce = format!("pgimbalbench{:012x}", self.logins.fetch_add(1, Ordering::Relaxed));
        let mut body = Vec::with_capacity(512);
        loop {
            match (client.message(&mut body)?, body.as_slice()) {
                (b'Z', _) => return Ok(()),
                (b'R', [0, 0, 0, 10, ..]) => {
                    let first = scram::client_first(&nonce);
                    let mut answer = b"SCRAM-SHA-256\0".to_vec();
                    answer
                        .extend_from_slice(&u32::try_from(first.len()).unwrap_or(0).to_be_bytes());
                    answer.extend_from_slice(first.as_bytes());
                    client.send(b'p', &answer)?;
                }
                (b'R', [0, 0, 0, 11, first @ ..]) => {
                    let first = String::from_utf8_lossy(first);
                    let answer = self.secret.client_final(&nonce, &first);
                    let answer = answer
                        .ok_or_else(|| Error::Server(format!("strange SCRAM message {first}")))?;
                    client.send(b'p', answer.as_bytes())?;
                }
                (b'R', [0, 0, 0, 0 | 12, ..]) | (b'S' | b'K' | b'N', _) => {}
                (tag, _) => return Err(refusal(tag, &body)),
            }
        }
    }
}

/// A client that is logged in. It has a read limit of 60 s.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    /// Runs one simple query, discards its answer in reads of 256 KiB, and returns the answer's
    /// size in bytes.
    ///
    /// # Errors
    /// On the server's ErrorResponse, or when the connection ends.
    pub fn discard(&mut self, text: &str) -> Result<u64> {
        let mut query = text.as_bytes().to_vec();
        query.push(0);
        self.send(b'Q', &query)?;
        let mut discarder = Discarder::default();
        // A load that reads in small pieces would measure itself.
        let mut buffer = vec![0; 256 * 1024];
        loop {
            // A read larger than its own empty buffer goes past `BufReader`.
            let count = self.stream.read(&mut buffer).during("reading an answer")?;
            if count == 0 {
                return Err(Error::Server("the connection ended inside an answer".into()));
            }
            if discarder.take(&buffer[..count])? {
                return Ok(discarder.bytes);
            }
        }
    }

    /// Runs one simple query and returns the first column of its first row as text; `None` when
    /// there is no row or it is NULL.
    ///
    /// # Errors
    /// On the server's ErrorResponse, or when the connection ends.
    pub fn value(&mut self, text: &str) -> Result<Option<String>> {
        let mut query = text.as_bytes().to_vec();
        query.push(0);
        self.send(b'Q', &query)?;
        let (mut body, mut value) = (Vec::new(), None);
        loop {
            match self.message(&mut body)? {
                b'Z' => return Ok(value),
                b'D' if value.is_none() && body.len() > 6 => {
                    value = Some(String::from_utf8_lossy(&body[6..]).into_owned());
                }
                b'E' => return Err(refusal(b'E', &body)),
                _ => {}
            }
        }
    }

    /// Runs one simple query and returns its whole answer, which may be an ErrorResponse.
    ///
    /// # Errors
    /// When the connection ends, or the server says that it will.
    pub fn query(&mut self, text: &str) -> Result<Reply> {
        let mut query = text.as_bytes().to_vec();
        query.push(0);
        self.send(b'Q', &query)?;
        let mut messages = Vec::new();
        loop {
            let mut body = Vec::new();
            let tag = self.message(&mut body)?;
            let message = Message { tag, body };
            if tag == b'E' && message.error().severity != "ERROR" {
                return Err(refusal(b'E', &message.body));
            }
            messages.push(message);
            if tag == b'Z' {
                return Ok(Reply { messages });
            }
        }
    }

    /// Reads messages up to the next notification, and returns its payload.
    ///
    /// # Errors
    /// On the server's ErrorResponse, or when the connection ends.
    pub fn notification(&mut self) -> Result<String> {
        let mut body = Vec::new();
        loop {
            match self.message(&mut body)? {
                b'A' => {
                    let mut texts = body[4..].split(|byte| *byte == 0).skip(1);
                    let payload = texts.next().unwrap_or_default();
                    return Ok(String::from_utf8_lossy(payload).into_owned());
                }
                b'E' => return Err(refusal(b'E', &body)),
                _ => {}
            }
        }
    }

    /// Prepares `text` as the named statement `name` (Parse, Sync), and waits for the answer.
    ///
    /// # Errors
    /// On the server's ErrorResponse, or when the connection ends.
    pub fn prepare(&mut self, name: &str, text: &str) -> Result<()> {
        let mut message = Vec::new();
        // No parameter types.
        frame(&mut message, b'P', format!("{name}\0{text}\0\0\0").as_bytes());
        frame(&mut message, b'S', b"");
        self.stream.get_mut().write_all(&message).during("sending a statement")?;
        self.until_ready()
    }

    /// Runs the named statement `name`, which takes no parameter, with Bind, Execute and Sync in
    /// one write, and waits for the answer.
    ///
    /// # Errors
    /// On the server's ErrorResponse, or when the connection ends.
    pub fn execute(&mut self, name: &str) -> Result<()> {
        let mut message = Vec::new();
        // The unnamed portal; no formats, no parameters, no formats of results.
        frame(&mut message, b'B', format!("\0{name}\0\0\0\0\0\0\0").as_bytes());
        frame(&mut message, b'E', &[0; 5]);
        frame(&mut message, b'S', b"");
        self.stream.get_mut().write_all(&message).during("sending a statement")?;
        self.until_ready()
    }

    fn until_ready(&mut self) -> Result<()> {
        let mut body = Vec::new();
        loop {
            match self.message(&mut body)? {
                b'Z' => return Ok(()),
                b'E' => return Err(refusal(b'E', &body)),
                _ => {}
            }
        }
    }

    /// Sends Terminate, and waits until the server has closed the connection, so that the port is
    /// free again at once.
    ///
    /// # Errors
    /// When sending fails.
    pub fn close(mut self) -> Result<()> {
        self.send(b'X', b"")?;
        let _ = self.stream.fill_buf();
        Ok(())
    }

    fn send(&mut self, tag: u8, body: &[u8]) -> Result<()> {
        let mut message = Vec::new();
        frame(&mut message, tag, body);
        self.stream.get_mut().write_all(&message).during("sending a message")
    }

    /// Reads one message into `body` and returns its tag.
    fn message(&mut self, body: &mut Vec<u8>) -> Result<u8> {
        let mut header = [0; 5];
        self.stream.read_exact(&mut header).during("reading a message")?;
        let length = u32::from_be_bytes([header[1], header[2], header[3], header[4]]);
        body.resize(length.saturating_sub(4).min(1 << 20) as usize, 0);
        self.stream.read_exact(body).during("reading a message")?;
        Ok(header[0])
    }
}

/// Counts an answer's bytes without keeping them.
#[derive(Debug, Default)]
struct Discarder {
    bytes: u64,
    header: Vec<u8>,
    rest_of_body: usize,
}

impl Discarder {
    /// Whether ReadyForQuery has come.
    fn take(&mut self, mut bytes: &[u8]) -> Result<bool> {
        self.bytes += bytes.len() as u64;
        while !bytes.is_empty() {
            let skipped = self.rest_of_body.min(bytes.len());
            self.rest_of_body -= skipped;
            bytes = &bytes[skipped..];
            while self.header.len() < 5
                && let Some((first, rest)) = bytes.split_first()
            {
                self.header.push(*first);
                bytes = rest;
            }
            if let [tag, length @ ..] = self.header.as_slice()
                && let Ok(length) = <[u8; 4]>::try_from(length)
            {
                match tag {
                    b'Z' => return Ok(true),
                    b'E' => return Err(refusal(b'E', bytes)),
                    _ => {
                        self.rest_of_body = (u32::from_be_bytes(length) as usize).saturating_sub(4)
                    }
                }
                self.header.clear();
            }
        }
        Ok(false)
    }
}

/// Appends a message.
fn frame(out: &mut Vec<u8>, tag: u8, body: &[u8]) {
    out.push(tag);
    out.extend_from_slice(&u32::try_from(body.len() + 4).unwrap_or(u32::MAX).to_be_bytes());
    out.extend_from_slice(body);
}

/// What an unwelcome message says, for people.
fn refusal(tag: u8, body: &[u8]) -> Error {
    let text = String::from_utf8_lossy(body).replace('\0', " ");
    Error::Server(format!("{} {}", char::from(tag), text.trim()))
}
