//! A blocking client that sends any bytes and reads messages. Every read has a time limit, so
//! that a proxy that keeps silent fails a test and does not hang it.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use crate::message::Message;
use crate::pipeline::Pipeline;
use crate::reply::Reply;
use crate::until::SOON;

/// The code of an SSLRequest.
pub const SSL_REQUEST: u32 = 80_877_103;
/// The code of a GSSENCRequest.
pub const GSSENC_REQUEST: u32 = 80_877_104;
/// The code of a CancelRequest.
pub const CANCEL_REQUEST: u32 = 80_877_102;
/// Protocol 3.0.
pub const PROTOCOL_3_0: u32 = 0x0003_0000;
/// Protocol 3.2.
pub const PROTOCOL_3_2: u32 = 0x0003_0002;

/// Who logs in, and how.
#[derive(Debug, Clone)]
pub struct Login {
    /// The protocol version asked for.
    pub version: u32,
    /// The startup parameters, `user` and `database` first.
    pub parameters: Vec<(String, String)>,
    /// What is answered to any request for a password.
    pub password: String,
}

impl Login {
    /// `user` on `database` with protocol 3.0.
    #[must_use]
    pub fn new(user: &str, database: &str, password: &str) -> Self {
        let parameters = vec![("user".into(), user.into()), ("database".into(), database.into())];
        Self { version: PROTOCOL_3_0, parameters, password: password.into() }
    }

    /// The same with one more startup parameter.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.parameters.push((name.into(), value.into()));
        self
    }

    /// The startup packet.
    #[must_use]
    pub fn packet(&self) -> Vec<u8> {
        let mut body = Vec::new();
        for (name, value) in &self.parameters {
            body.extend(name.as_bytes());
            body.push(0);
            body.extend(value.as_bytes());
            body.push(0);
        }
        body.push(0);
        startup_packet(self.version, &body)
    }
}

/// A packet without tag: length, `code`, `body`.
///
/// # Panics
/// When the body is longer than a length word can say.
#[must_use]
pub fn startup_packet(code: u32, body: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(body.len() + 8).expect("a length").to_be_bytes().to_vec();
    bytes.extend(code.to_be_bytes());
    bytes.extend(body);
    bytes
}

/// One client connection.
pub struct WireClient {
    stream: Stream,
    /// The last ParameterStatus of each name.
    pub parameters: BTreeMap<String, String>,
    /// The body of BackendKeyData: four bytes of id, then the key.
    pub key: Vec<u8>,
    /// What came during login, in order.
    pub greeting: Vec<Message>,
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl WireClient {
    /// Connects to a TCP port of 127.0.0.1 and sends nothing.
    ///
    /// # Panics
    /// When the connection is refused.
    #[must_use]
    pub fn tcp(port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).expect("a listening port");
        stream.set_nodelay(true).expect("TCP_NODELAY");
        Self::over(Stream::Tcp(stream))
    }

    /// Connects to a Unix socket and sends nothing.
    ///
    /// # Panics
    /// When the connection is refused.
    #[must_use]
    pub fn unix(path: &Path) -> Self {
        Self::over(Stream::Unix(UnixStream::connect(path).expect("a listening socket")))
    }

    /// Does a TLS handshake at once over this connection.
    ///
    /// # Errors
    /// When the handshake fails.
    ///
    /// # Panics
    /// When this connection is not plain TCP.
    pub fn tls(self, config: Arc<ClientConfig>) -> io::Result<Self> {
        let Stream::Tcp(mut stream) = self.stream else { panic!("TLS over plain TCP only") };
        let name = ServerName::try_from("localhost").expect("a name");
        let mut tls = ClientConnection::new(config, name).map_err(io::Error::other)?;
        while tls.is_handshaking() {
            tls.complete_io(&mut stream)?;
        }
        Ok(Self::over(Stream::Tls(Box::new(StreamOwned::new(tls, stream)))))
    }

    fn over(stream: Stream) -> Self {
        let mut client = Self { stream, parameters: BTreeMap::new(), key: Vec::new(), greeting: Vec::new() };
        client.set_timeout(SOON);
        client
    }

    /// Sets how long a read or a write may take.
    ///
    /// # Panics
    /// When the socket refuses.
    pub fn set_timeout(&mut self, limit: Duration) {
        match &self.stream {
            Stream::Tcp(stream) => stream.set_read_timeout(Some(limit)).and(stream.set_write_timeout(Some(limit))),
            Stream::Unix(stream) => stream.set_read_timeout(Some(limit)).and(stream.set_write_timeout(Some(limit))),
            Stream::Tls(stream) => stream.sock.set_read_timeout(Some(limit)),
        }
        .expect("a time limit");
    }

    /// Sends a startup packet and answers what is asked up to the first ReadyForQuery.
    ///
    /// # Errors
    /// The messages so far, the last of them an error or nothing after it when the connection
    /// was closed.
    pub fn log_in(&mut self, login: &Login) -> Result<(), Vec<Message>> {
        self.send(&login.packet());
        loop {
            let Ok(message) = self.try_read() else { return Err(std::mem::take(&mut self.greeting)) };
            self.greeting.push(message.clone());
            match message.tag {
                b'R' => self.answer(&message, login),
                b'K' => self.key = message.body,
                b'E' => return Err(std::mem::take(&mut self.greeting)),
                b'Z' => return Ok(()),
                _ => {}
            }
        }
    }

    fn answer(&mut self, request: &Message, login: &Login) {
        let user = login.parameters[0].1.as_bytes();
        match u32::from_be_bytes(request.body[..4].try_into().expect("four bytes")) {
            0 => {}
            3 => self.send_password(login.password.as_bytes()),
            5 => {
                let salt = request.body[4..8].try_into().expect("a salt");
                self.send_password(md5_hash(user, login.password.as_bytes(), salt).as_bytes());
            }
            10 => self.scram(&login.password),
            other => panic!("unknown authentication request {other}"),
        }
    }

    /// Sends a PasswordMessage with `text` and its zero.
    pub fn send_password(&mut self, text: &[u8]) {
        self.send(&Message::new(b'p', &[text, b"\0"].concat()).encode());
    }

    fn scram(&mut self, password: &str) {
        let mut scram = ScramSha256::new(password.as_bytes(), ChannelBinding::unsupported());
        let length = u32::try_from(scram.message().len()).expect("a length");
        let first = [SCRAM_SHA_256.as_bytes(), b"\0", &length.to_be_bytes(), scram.message()].concat();
        self.send(&Message::new(b'p', &first).encode());
        let Ok(server_first) = self.try_read() else { return };
        if server_first.tag != b'R' {
            self.greeting.push(server_first);
            return;
        }
        scram.update(&server_first.body[4..]).expect("a server-first message");
        self.send(&Message::new(b'p', scram.message()).encode());
        let Ok(last) = self.try_read() else { return };
        if last.tag == b'R' {
            scram.finish(&last.body[4..]).expect("the server's signature");
        }
        self.greeting.push(last);
    }

    /// Sends bytes as they are.
    ///
    /// # Panics
    /// When the connection is closed.
    pub fn send(&mut self, bytes: &[u8]) {
        self.try_send(bytes).expect("the connection takes bytes");
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// When the connection is closed.
    pub fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let stream = self.writer();
        stream.write_all(bytes)?;
        stream.flush()
    }

    /// The next message.
    ///
    /// # Errors
    /// The end of the connection, or nothing within the time limit.
    pub fn try_read(&mut self) -> io::Result<Message> {
        let mut header = [0; 5];
        self.read_bytes(&mut header)?;
        let length = u32::from_be_bytes(header[1..].try_into().expect("four bytes"));
        assert!((4..=0x4000_0000).contains(&length), "a length of {length} after {:?}", char::from(header[0]));
        let mut body = vec![0; length as usize - 4];
        self.read_bytes(&mut body)?;
        let message = Message { tag: header[0], body };
        if message.tag == b'S' {
            let pair = message.strings();
            self.parameters.insert(pair[0].clone(), pair[1].clone());
        }
        Ok(message)
    }

    /// The next message.
    ///
    /// # Panics
    /// When none comes.
    pub fn read(&mut self) -> Message {
        self.try_read().unwrap_or_else(|error| panic!("a message was expected: {error}"))
    }

    /// The next message but ParameterStatus and NoticeResponse, which must have `tag`.
    ///
    /// # Panics
    /// When it is another.
    pub fn expect(&mut self, tag: u8) -> Message {
        loop {
            let message = self.read();
            if tag == message.tag {
                return message;
            }
            assert!(matches!(message.tag, b'S' | b'N'), "{:?} expected, got {message:?}", char::from(tag));
        }
    }

    /// Exactly as many bytes as fit `buffer`, without framing.
    ///
    /// # Errors
    /// The end of the connection, or nothing within the time limit.
    pub fn read_bytes(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        match &mut self.stream {
            Stream::Tcp(stream) => stream.read_exact(buffer),
            Stream::Unix(stream) => stream.read_exact(buffer),
            Stream::Tls(stream) => stream.read_exact(buffer),
        }
    }

    /// Everything up to and with the next ReadyForQuery.
    pub fn read_reply(&mut self) -> Reply {
        let mut messages = Vec::new();
        loop {
            messages.push(self.read());
            if messages.last().is_some_and(|message| message.tag == b'Z') {
                return Reply { messages };
            }
        }
    }

    /// The messages before the connection ends.
    ///
    /// # Panics
    /// When it does not end within the time limit.
    pub fn read_to_end(&mut self) -> Vec<Message> {
        let mut messages = Vec::new();
        loop {
            match self.try_read() {
                Ok(message) => messages.push(message),
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    panic!("the connection stays open after {messages:?}")
                }
                Err(_) => return messages,
            }
        }
    }

    /// Whether nothing at all arrives within `span`.
    ///
    /// # Panics
    /// When the connection ends.
    pub fn is_silent_for(&mut self, span: Duration) -> bool {
        self.set_timeout(span);
        let answer = self.try_read();
        self.set_timeout(SOON);
        match answer {
            Ok(_) => false,
            Err(error) => {
                let waiting = matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut);
                assert!(waiting, "the connection ended: {error}");
                true
            }
        }
    }

    /// Sends `pipeline` and reads up to the next ReadyForQuery.
    pub fn run(&mut self, pipeline: &Pipeline) -> Reply {
        self.send(pipeline.bytes());
        self.read_reply()
    }

    /// Runs a simple query.
    pub fn query(&mut self, sql: &str) -> Reply {
        self.run(&Pipeline::new().query(sql))
    }

    /// Runs a simple query that must succeed.
    pub fn ok(&mut self, sql: &str) -> Reply {
        let reply = self.query(sql);
        reply.no_error();
        reply
    }

    /// Runs a simple query and returns the first column of its only row.
    pub fn value(&mut self, sql: &str) -> String {
        self.query(sql).value()
    }

    /// The process id of the PostgreSQL backend that answers now.
    pub fn backend(&mut self) -> String {
        self.value("select pg_backend_pid()")
    }

    /// Sends Terminate and closes.
    pub fn terminate(mut self) {
        let _ = self.try_send(&Message::new(b'X', &[]).encode());
    }

    /// Closes without a word, with a reset if `reset`.
    pub fn vanish(self, reset: bool) {
        if let Stream::Tcp(stream) = &self.stream {
            let socket = socket2::SockRef::from(stream);
            let linger = reset.then_some(Duration::ZERO);
            socket.set_linger(linger).expect("SO_LINGER");
        }
    }

    /// Says that nothing more will be sent, and still reads.
    ///
    /// # Panics
    /// When the socket refuses.
    pub fn half_close(&mut self) {
        match &self.stream {
            Stream::Tcp(stream) => stream.shutdown(Shutdown::Write).expect("shutdown"),
            Stream::Unix(stream) => stream.shutdown(Shutdown::Write).expect("shutdown"),
            Stream::Tls(_) => panic!("a half close of TLS"),
        }
    }

    /// A second handle of a plain TCP connection, for a thread that writes while another reads.
    ///
    /// # Panics
    /// When this is not plain TCP.
    #[must_use]
    pub fn second_handle(&self) -> TcpStream {
        let Stream::Tcp(stream) = &self.stream else { panic!("a second handle of TCP only") };
        stream.try_clone().expect("a second handle")
    }

    fn writer(&mut self) -> &mut dyn Write {
        match &mut self.stream {
            Stream::Tcp(stream) => stream,
            Stream::Unix(stream) => stream,
            Stream::Tls(stream) => stream,
        }
    }
}
