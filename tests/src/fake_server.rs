//! A scripted server, for what no PostgreSQL does on demand: odd bytes, delays, half messages,
//! refusals, and an end at any byte.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::message::Message;
use crate::startup::{CANCEL_REQUEST, GSSENC_REQUEST, SSL_REQUEST};
use crate::until::SOON;

/// A listening server that runs its script for each connection, in a thread of its own.
pub struct FakeServer {
    /// The server's port on 127.0.0.1.
    pub port: u16,
    connections: Arc<AtomicUsize>,
}

/// The server's side of one connection, which is closed when the script returns.
pub struct ServerSide {
    stream: TcpStream,
    /// Number of the connection, counted from 0.
    pub number: usize,
    /// Whether the connection turned out to be a CancelRequest.
    pub cancel: bool,
}

/// The result of a script's step; the error is the end of the connection.
pub type Scripted = io::Result<()>;

impl FakeServer {
    /// Starts a server that runs `script` for each connection.
    ///
    /// # Panics
    /// When no port is free.
    #[must_use]
    pub fn start(script: impl Fn(&mut ServerSide) -> Scripted + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let port = listener.local_addr().expect("its address").port();
        let connections = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&connections);
        let script = Arc::new(script);
        // The thread ends with the test process: nothing here needs an orderly end.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let script = Arc::clone(&script);
                let number = counter.fetch_add(1, Ordering::SeqCst);
                std::thread::spawn(move || {
                    let _ = stream.set_nodelay(true);
                    let _ = stream.set_read_timeout(Some(SOON * 4));
                    let _ = script(&mut ServerSide { stream, number, cancel: false });
                });
            }
        });
        Self { port, connections }
    }

    /// Starts a server that accepts every login and answers each simple query with one text row,
    /// whose value is `answer` of the query's text.
    #[must_use]
    pub fn answering(answer: impl Fn(&str) -> String + Send + Sync + 'static) -> Self {
        Self::start(move |server| {
            server.accept()?;
            loop {
                let message = server.read()?;
                match message.tag {
                    b'Q' => server.send(&row_reply(&answer(&message.strings()[0])))?,
                    b'X' => return Ok(()),
                    b'S' => server.ready(b'I')?,
                    _ => {}
                }
            }
        })
    }

    /// Number of connections accepted, those of CancelRequests included.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

impl ServerSide {
    /// Reads the startup packet, refuses TLS and GSSAPI before it, and returns its body after the
    /// version.
    ///
    /// # Errors
    /// The end of the connection. A CancelRequest is an error too, which ends the script.
    pub fn startup(&mut self) -> io::Result<Vec<u8>> {
        loop {
            let mut head = [0; 8];
            self.stream.read_exact(&mut head)?;
            let length = u32::from_be_bytes(head[..4].try_into().expect("four bytes")) as usize;
            let code = u32::from_be_bytes(head[4..].try_into().expect("four bytes"));
            let mut body = vec![0; length - 8];
            self.stream.read_exact(&mut body)?;
            match code {
                SSL_REQUEST | GSSENC_REQUEST => self.send(b"N")?,
                CANCEL_REQUEST => {
                    self.cancel = true;
                    return Err(io::Error::other("a CancelRequest"));
                }
                _ => return Ok(body),
            }
        }
    }

    /// Reads an SSLRequest without answering it.
    ///
    /// # Errors
    /// The end of the connection.
    pub fn read_ssl_request(&mut self) -> Scripted {
        self.stream.read_exact(&mut [0; 8])
    }

    /// Accepts the login without a password, and sends the messages up to ReadyForQuery.
    ///
    /// # Errors
    /// The end of the connection, or a CancelRequest.
    pub fn accept(&mut self) -> Scripted {
        self.startup()?;
        self.welcome()
    }

    /// Sends AuthenticationOk, the usual ParameterStatus messages, BackendKeyData and
    /// ReadyForQuery.
    ///
    /// # Errors
    /// The end of the connection.
    pub fn welcome(&mut self) -> Scripted {
        let mut bytes = Message::new(b'R', &0_u32.to_be_bytes()).encode();
        let parameters = [
            ("server_version", "15.99"),
            ("server_encoding", "UTF8"),
            ("client_encoding", "UTF8"),
            ("standard_conforming_strings", "on"),
            ("DateStyle", "ISO, MDY"),
            ("TimeZone", "UTC"),
            ("integer_datetimes", "on"),
        ];
        for (name, value) in parameters {
            bytes.extend(Message::new(b'S', format!("{name}\0{value}\0").as_bytes()).encode());
        }
        let number = u32::try_from(self.number).expect("a small number");
        let key = [&(1000 + number).to_be_bytes()[..], &number.to_be_bytes()].concat();
        bytes.extend(Message::new(b'K', &key).encode());
        bytes.extend(Message::new(b'Z', b"I").encode());
        self.send(&bytes)
    }

    /// Reads the next message.
    ///
    /// # Errors
    /// The end of the connection, or its time limit.
    pub fn read(&mut self) -> io::Result<Message> {
        let mut header = [0; 5];
        self.stream.read_exact(&mut header)?;
        let length = u32::from_be_bytes(header[1..].try_into().expect("four bytes"));
        let mut body = vec![0; length as usize - 4];
        self.stream.read_exact(&mut body)?;
        Ok(Message { tag: header[0], body })
    }

    /// Reads up to the next Query and returns its text; other messages are skipped.
    ///
    /// # Errors
    /// The end of the connection, or a Terminate.
    pub fn read_query(&mut self) -> io::Result<String> {
        loop {
            let message = self.read()?;
            match message.tag {
                b'Q' => return Ok(message.strings()[0].clone()),
                b'X' => return Err(io::Error::other("Terminate")),
                _ => {}
            }
        }
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// The end of the connection.
    pub fn send(&mut self, bytes: &[u8]) -> Scripted {
        self.stream.write_all(bytes)
    }

    /// Sends an ErrorResponse with this severity, SQLSTATE and message.
    ///
    /// # Errors
    /// The end of the connection.
    pub fn error(&mut self, severity: &str, code: &str, text: &str) -> Scripted {
        self.send(&error(severity, code, text))
    }

    /// Sends ReadyForQuery with the transaction status `I`, `T` or `E`.
    ///
    /// # Errors
    /// The end of the connection.
    pub fn ready(&mut self, status: u8) -> Scripted {
        self.send(&Message::new(b'Z', &[status]).encode())
    }

    /// Sends the reply to a query that returns one text row, up to ReadyForQuery.
    ///
    /// # Errors
    /// The end of the connection.
    pub fn answer(&mut self, value: &str) -> Scripted {
        self.send(&row_reply(value))
    }

    /// Reads and drops bytes until the client closes the connection.
    pub fn wait_for_end(&mut self) {
        let _ = io::copy(&mut self.stream, &mut io::sink());
    }

    /// Closes the connection at once.
    pub fn close(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

/// The bytes of an ErrorResponse with both severities.
#[must_use]
pub fn error(severity: &str, code: &str, text: &str) -> Vec<u8> {
    Message::new(b'E', format!("S{severity}\0V{severity}\0C{code}\0M{text}\0\0").as_bytes())
        .encode()
}

/// The bytes of a RowDescription, a DataRow, a CommandComplete and a ReadyForQuery for one text
/// value.
///
/// # Panics
/// When the value is longer than 4 GiB.
#[must_use]
pub fn row_reply(value: &str) -> Vec<u8> {
    let mut description = vec![0, 1];
    description.extend(b"value\0");
    description.extend([0, 0, 0, 0, 0, 0, 0, 0, 0, 25, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0]);
    let mut row = vec![0, 1];
    row.extend(u32::try_from(value.len()).expect("a length").to_be_bytes());
    row.extend(value.as_bytes());
    [
        Message::new(b'T', &description).encode(),
        Message::new(b'D', &row).encode(),
        Message::new(b'C', b"SELECT 1\0").encode(),
        Message::new(b'Z', b"I").encode(),
    ]
    .concat()
}
