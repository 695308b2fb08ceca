//! A blocking client that sends any bytes and reads messages. Every read has a time limit, so that
//! a silent proxy fails a test instead of hanging it.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use crate::message::Message;
use crate::pipeline::Pipeline;
use crate::reply::Reply;
use crate::startup::{CANCEL_REQUEST, startup_packet};
use crate::until::SOON;

/// Sends a CancelRequest with `key` (process id and secret key) to `port`, and waits until the
/// connection is closed.
///
/// # Panics
/// When nothing listens.
pub fn cancel(port: u16, key: &[u8]) {
    let mut connection = WireClient::tcp(port);
    connection.send(&startup_packet(CANCEL_REQUEST, key));
    connection.read_to_end();
}

/// A client connection over TCP, a Unix socket or TLS.
pub struct WireClient {
    stream: Stream,
    /// The last value of each ParameterStatus.
    pub parameters: BTreeMap<String, String>,
    /// The body of BackendKeyData: 4 bytes of process id, then the secret key; empty before the
    /// login.
    pub key: Vec<u8>,
    /// The messages of the login in order.
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
        Self::try_tcp(port).expect("a listening port")
    }

    /// Connects to a TCP port of 127.0.0.1 and sends nothing.
    ///
    /// # Errors
    /// When the connection is refused.
    ///
    /// # Panics
    /// Never: a connection takes its options.
    pub fn try_tcp(port: u16) -> io::Result<Self> {
        TcpStream::connect(("127.0.0.1", port)).map(Self::of)
    }

    /// Wraps a TCP connection that was made elsewhere.
    ///
    /// # Panics
    /// When the socket is not connected.
    #[must_use]
    pub fn of(stream: TcpStream) -> Self {
        stream.set_nodelay(true).expect("TCP_NODELAY");
        Self::over(Stream::Tcp(stream))
    }

    /// Connects to a Unix socket and sends nothing.
    ///
    /// # Panics
    /// When the connection is refused.
    #[must_use]
    pub fn unix(path: &Path) -> Self {
        Self::try_unix(path).expect("a listening socket")
    }

    /// Connects to a Unix socket and sends nothing.
    ///
    /// # Errors
    /// When the connection is refused.
    pub fn try_unix(path: &Path) -> io::Result<Self> {
        UnixStream::connect(path).map(|stream| Self::over(Stream::Unix(stream)))
    }

    /// Runs a TLS handshake over this connection, without an SSLRequest.
    ///
    /// # Errors
    /// The error of the handshake.
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
        let mut client =
            Self { stream, parameters: BTreeMap::new(), key: Vec::new(), greeting: Vec::new() };
        client.set_timeout(SOON);
        client
    }

    /// Sets the time limit of each read and write; over TLS of each read only.
    ///
    /// # Panics
    /// When the socket refuses.
    pub fn set_timeout(&mut self, limit: Duration) {
        match &self.stream {
            Stream::Tcp(stream) => {
                stream.set_read_timeout(Some(limit)).and(stream.set_write_timeout(Some(limit)))
            }
            Stream::Unix(stream) => {
                stream.set_read_timeout(Some(limit)).and(stream.set_write_timeout(Some(limit)))
            }
            Stream::Tls(stream) => stream.sock.set_read_timeout(Some(limit)),
        }
        .expect("a time limit");
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

    /// Reads the next message.
    ///
    /// # Errors
    /// The end of the connection, or its time limit.
    pub fn try_read(&mut self) -> io::Result<Message> {
        let mut header = [0; 5];
        self.read_bytes(&mut header)?;
        let length = u32::from_be_bytes(header[1..].try_into().expect("four bytes"));
        assert!(
            (4..=0x4000_0000).contains(&length),
            "a length of {length} after {:?}",
            char::from(header[0])
        );
        let mut body = vec![0; length as usize - 4];
        self.read_bytes(&mut body)?;
        let message = Message { tag: header[0], body };
        if message.tag == b'S' {
            let pair = message.strings();
            self.parameters.insert(pair[0].clone(), pair[1].clone());
        }
        Ok(message)
    }

    /// Reads the next message.
    ///
    /// # Panics
    /// When no message arrives within the time limit.
    pub fn read(&mut self) -> Message {
        self.try_read().unwrap_or_else(|error| panic!("a message was expected: {error}"))
    }

    /// Reads the next message other than ParameterStatus and NoticeResponse, which must have the
    /// tag `tag`.
    ///
    /// # Panics
    /// When the message has another tag.
    pub fn expect(&mut self, tag: u8) -> Message {
        loop {
            let message = self.read();
            if tag == message.tag {
                return message;
            }
            assert!(
                matches!(message.tag, b'S' | b'N'),
                "{:?} expected, got {message:?}",
                char::from(tag)
            );
        }
    }

    /// Reads exactly as many bytes as `buffer` holds, without framing.
    ///
    /// # Errors
    /// The end of the connection, or its time limit.
    pub fn read_bytes(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        match &mut self.stream {
            Stream::Tcp(stream) => stream.read_exact(buffer),
            Stream::Unix(stream) => stream.read_exact(buffer),
            Stream::Tls(stream) => stream.read_exact(buffer),
        }
    }

    /// Everything up to and with the next ReadyForQuery.
    ///
    /// # Panics
    /// When the connection ends before it, or nothing comes within the time limit.
    pub fn read_reply(&mut self) -> Reply {
        self.try_read_reply().unwrap_or_else(|error| panic!("a whole reply was expected: {error}"))
    }

    fn try_read_reply(&mut self) -> io::Result<Reply> {
        let mut messages = Vec::new();
        loop {
            messages.push(self.try_read()?);
            if messages.last().is_some_and(|message| message.tag == b'Z') {
                return Ok(Reply { messages });
            }
        }
    }

    /// Sends a CancelRequest with this client's key to `port`, and waits until that connection is
    /// closed.
    ///
    /// # Panics
    /// When nothing listens.
    pub fn cancel(&self, port: u16) {
        cancel(port, &self.key);
    }

    /// Runs a query and asserts that its reply is the next thing to arrive, so that nothing was
    /// sent unasked before.
    ///
    /// # Panics
    /// When something else arrives first.
    pub fn expect_nothing_before_the_next_reply(&mut self) {
        let reply = self.query("select 'the next'");
        let tags = reply.messages.iter().map(|message| message.tag).filter(|tag| *tag != b'S');
        assert_eq!(tags.map(char::from).collect::<String>(), "TDCZ", "{reply:?}");
        assert_eq!(reply.value(), "the next");
    }

    /// Whether no byte has arrived by now. This proves something only when it is known by other
    /// means that everything was sent that could be.
    ///
    /// # Panics
    /// When the socket refuses, or over TLS.
    #[must_use]
    pub fn has_no_input(&self) -> bool {
        let socket = match &self.stream {
            Stream::Tcp(stream) => socket2::SockRef::from(stream),
            Stream::Unix(stream) => socket2::SockRef::from(stream),
            Stream::Tls(_) => panic!("TLS has bytes of its own"),
        };
        socket.set_nonblocking(true).expect("a socket");
        let seen = socket.peek(&mut [std::mem::MaybeUninit::uninit()]);
        socket.set_nonblocking(false).expect("a socket");
        seen.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Whether no byte arrives within `span`. It is for tests of the time itself: silence for a
    /// while proves nothing about later.
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
                let waiting =
                    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut);
                assert!(waiting, "the connection ended: {error}");
                true
            }
        }
    }

    /// Sends `pipeline`, and reads up to the next ReadyForQuery.
    pub fn run(&mut self, pipeline: &Pipeline) -> Reply {
        self.send(pipeline.bytes());
        self.read_reply()
    }

    /// Runs a simple query and returns its reply.
    pub fn query(&mut self, sql: &str) -> Reply {
        self.run(&Pipeline::new().query(sql))
    }

    /// Runs a simple query.
    ///
    /// # Errors
    /// The end of the connection, or nothing within the time limit.
    pub fn try_query(&mut self, sql: &str) -> io::Result<Reply> {
        self.try_send(Pipeline::new().query(sql).bytes())?;
        self.try_read_reply()
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

    /// Sends a simple query without waiting for its reply.
    pub fn start_query(&mut self, sql: &str) {
        self.send(Pipeline::new().query(sql).bytes());
    }

    /// The process id of the PostgreSQL backend that serves this client now.
    pub fn backend(&mut self) -> String {
        self.value("select pg_backend_pid()")
    }

    /// Sends Terminate and closes the connection.
    pub fn terminate(mut self) {
        let _ = self.try_send(&Message::new(b'X', &[]).encode());
    }

    /// Closes the connection without a Terminate, with a TCP reset if `reset`.
    pub fn disconnect(self, reset: bool) {
        if let Stream::Tcp(stream) = &self.stream {
            let socket = socket2::SockRef::from(stream);
            let linger = reset.then_some(Duration::ZERO);
            socket.set_linger(linger).expect("SO_LINGER");
        }
    }

    /// Closes the sending direction; replies can still be read.
    ///
    /// # Panics
    /// When the socket refuses, or over TLS.
    pub fn half_close(&mut self) {
        match &self.stream {
            Stream::Tcp(stream) => stream.shutdown(Shutdown::Write).expect("shutdown"),
            Stream::Unix(stream) => stream.shutdown(Shutdown::Write).expect("shutdown"),
            Stream::Tls(_) => panic!("a half close of TLS"),
        }
    }

    /// The port at this end of a plain TCP connection, by which the other one knows it.
    ///
    /// # Panics
    /// When this is not plain TCP.
    #[must_use]
    pub fn local_port(&self) -> u16 {
        let Stream::Tcp(stream) = &self.stream else { panic!("ports of TCP only") };
        stream.local_addr().expect("an address").port()
    }

    /// A second handle of a plain TCP connection, for a thread that writes while another reads.
    ///
    /// # Panics
    /// When this connection is not plain TCP.
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

    /// The messages before the connection ends.
    ///
    /// # Panics
    /// When it does not end within the time limit.
    pub fn read_to_end(&mut self) -> Vec<Message> {
        let mut messages = Vec::new();
        loop {
            match self.try_read() {
                Ok(message) => messages.push(message),
                Err(error) if is_timeout(&error) => {
                    panic!("the connection stays open after {messages:?}")
                }
                Err(_) => return messages,
            }
        }
    }

    /// The messages up to the first ReadyForQuery or the end of the connection.
    ///
    /// # Panics
    /// When neither comes within the time limit.
    pub fn read_to_end_or_ready(&mut self) -> Vec<Message> {
        let mut messages = Vec::new();
        loop {
            match self.try_read() {
                Ok(message) => messages.push(message),
                Err(error) if is_timeout(&error) => panic!("nothing more after {messages:?}"),
                Err(_) => return messages,
            }
            if messages.last().is_some_and(|message| message.tag == b'Z') {
                return messages;
            }
        }
    }

    /// The bytes up to what looks like an idle ReadyForQuery, or the end of the connection.
    ///
    /// # Panics
    /// When neither comes within the time limit.
    pub fn read_raw_to_end_or_ready(&mut self) -> Vec<u8> {
        self.read_raw_until(|bytes| bytes.ends_with(b"Z\0\0\0\x05I"))
    }

    /// The bytes before the connection ends, whatever they are.
    ///
    /// # Panics
    /// When it does not end within the time limit.
    pub fn read_raw_to_end(&mut self) -> Vec<u8> {
        self.read_raw_until(|_| false)
    }

    fn read_raw_until(&mut self, is_enough: impl Fn(&[u8]) -> bool) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut byte = [0];
        while !is_enough(&bytes) {
            match self.read_bytes(&mut byte) {
                Ok(()) => bytes.extend(byte),
                Err(error) if is_timeout(&error) => {
                    panic!("the connection stays open after {}", bytes.escape_ascii())
                }
                Err(_) => break,
            }
        }
        bytes
    }

    /// Reads up to ReadyForQuery without keeping a row and returns how many bytes of DataRow
    /// and CopyData bodies came, and the other messages.
    ///
    /// # Panics
    /// When the connection ends or stalls.
    pub fn count_reply(&mut self) -> (u64, Reply) {
        let mut count = 0;
        let mut messages = Vec::new();
        let mut chunk = vec![0; 1 << 16];
        loop {
            let mut header = [0; 5];
            self.read_bytes(&mut header).expect("a header");
            let mut left =
                u32::from_be_bytes(header[1..].try_into().expect("four bytes")) as usize - 4;
            let row = matches!(header[0], b'D' | b'd');
            let mut body = Vec::new();
            while left > 0 {
                let part = left.min(chunk.len());
                self.read_bytes(&mut chunk[..part]).expect("a body");
                if row {
                    count += part as u64;
                } else {
                    body.extend(&chunk[..part]);
                }
                left -= part;
            }
            if !row {
                messages.push(Message { tag: header[0], body });
            }
            if header[0] == b'Z' {
                return (count, Reply { messages });
            }
        }
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}
