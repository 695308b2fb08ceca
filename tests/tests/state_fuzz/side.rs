//! One of the two sessions: what it was sent, and what it has to answer for it.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use pgimbal_tests::{Login, Message, WireClient};

use super::script::Msg;

/// A message that awaits its answer, and what it ends with.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Expected {
    /// One message with one of these tags.
    Tags(&'static [u8]),
    /// ReadyForQuery of a simple query, which an error in the segment before skips.
    Query,
    /// ReadyForQuery of a Sync.
    Sync,
}

/// A session and the bytes that were read ahead.
pub(super) struct Side {
    stream: TcpStream,
    read: Vec<u8>,
    start: usize,
    expected: Vec<Expected>,
    skipping: bool,
    is_open: bool,
    /// Notifications that nobody has taken yet.
    heard: Vec<String>,
    /// The transaction status of the last ReadyForQuery.
    pub(super) status: char,
    /// The last ParameterStatus of each name.
    pub(super) parameters: BTreeMap<String, String>,
    plain: bool,
}

impl Side {
    /// Logs in, or says how that was refused. A side that is silent for `patience` is stuck.
    pub(super) fn log_in(
        port: u16,
        login: &Login,
        patience: Duration,
    ) -> Result<Self, Vec<String>> {
        let mut client = WireClient::tcp(port);
        client.log_in(login).map_err(|told| {
            told.iter().filter(|told| told.tag == b'E').filter_map(shown).collect::<Vec<_>>()
        })?;
        let stream = client.second_handle();
        stream.set_read_timeout(Some(patience)).expect("a time limit");
        let parameters = std::mem::take(&mut client.parameters);
        Ok(Self {
            stream,
            read: Vec::new(),
            start: 0,
            expected: Vec::new(),
            skipping: false,
            is_open: false,
            heard: Vec::new(),
            status: 'I',
            parameters,
            plain: login.parameters.len() == 2,
        })
    }

    /// Nothing is expected and no transaction is open.
    pub(super) fn is_idle(&self) -> bool {
        self.expected.is_empty() && !self.skipping && self.status == 'I'
    }

    /// Whether it logged in without parameters of its own, so that DISCARD ALL makes it new.
    pub(super) fn is_plain(&self) -> bool {
        self.plain
    }

    /// Whether a Sync or a Query is missing before it can be idle.
    pub(super) fn is_in_a_segment(&self) -> bool {
        self.skipping || !self.expected.is_empty()
    }

    /// Whether messages were sent whose Sync was not.
    pub(super) fn has_an_open_segment(&self) -> bool {
        self.is_open
    }

    /// Writes `messages` at once.
    pub(super) fn send(&mut self, messages: &[Msg]) {
        let mut bytes = Vec::new();
        for message in messages {
            bytes.extend(message.encode());
            self.is_open = !matches!(message, Msg::Query(_) | Msg::Sync);
            self.expected.extend(expected(message));
        }
        // A connection that has ended says so when it is read.
        let _ = self.stream.write_all(&bytes);
    }

    /// Everything that is expected, and a word on what did not come.
    pub(super) fn answers(&mut self) -> Vec<String> {
        let mut told = Vec::new();
        for expected in std::mem::take(&mut self.expected) {
            if self.skipping && expected != Expected::Sync {
                continue;
            }
            if let Err(end) = self.answer(expected, &mut told) {
                told.push(end);
                self.status = '?';
                break;
            }
        }
        told
    }

    /// Takes the notifications that have come, which are to be `count` at least: the connection
    /// that pgimbal's clients share tells of them a little later than PostgreSQL does. In order,
    /// since those of two connections may come in any. To be called when nothing else is expected.
    pub(super) fn take_heard(&mut self, count: usize) -> Vec<String> {
        while self.heard.len() < count {
            match self.message() {
                Ok(message) => self.heard.extend(shown(&message)),
                Err(end) => {
                    self.heard.push(end);
                    break;
                }
            }
        }
        self.heard.sort();
        std::mem::take(&mut self.heard)
    }

    /// How many notifications have come.
    pub(super) fn heard(&self) -> usize {
        self.heard.len()
    }

    fn answer(&mut self, expected: Expected, told: &mut Vec<String>) -> Result<(), String> {
        if expected == Expected::Sync {
            self.skipping = false;
        }
        loop {
            let message = self.message()?;
            match message.tag {
                b'S' => {
                    let mut pair = message.strings().into_iter();
                    self.parameters
                        .insert(pair.next().unwrap_or_default(), pair.next().unwrap_or_default());
                    continue;
                }
                b'A' => {
                    self.heard.extend(shown(&message));
                    continue;
                }
                b'Z' => self.status = message.status(),
                _ => {}
            }
            told.extend(shown(&message));
            match expected {
                Expected::Tags(_) if message.tag == b'Z' => {
                    return Err("(an early ready)".to_owned());
                }
                Expected::Tags(_) if message.tag == b'E' => {
                    self.skipping = true;
                    return Ok(());
                }
                Expected::Tags(tags) if tags.contains(&message.tag) => return Ok(()),
                Expected::Query | Expected::Sync if message.tag == b'Z' => return Ok(()),
                _ => {}
            }
        }
    }

    fn message(&mut self) -> Result<Message, String> {
        loop {
            let rest = &self.read[self.start..];
            if let Some(header) = rest.first_chunk::<5>() {
                let length = u32::from_be_bytes([header[1], header[2], header[3], header[4]]);
                let end = length as usize + 1;
                if rest.len() >= end {
                    let message = Message::new(rest[0], &rest[5..end]);
                    self.start += end;
                    return Ok(message);
                }
            }
            self.read.drain(..self.start);
            self.start = 0;
            let mut chunk = [0; 8192];
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err("(the connection ended)".to_owned()),
                Ok(count) => self.read.extend(&chunk[..count]),
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
                {
                    return Err("(no answer)".to_owned());
                }
                Err(_) => return Err("(the connection broke)".to_owned()),
            }
        }
    }

    /// Sends `messages`, the last of which asks for an answer, and reads it.
    pub(super) fn run(&mut self, messages: &[Msg]) -> Vec<String> {
        self.send(messages);
        self.answers()
    }

    /// Leaves and waits until the connection is closed, after which a backend of its own is gone.
    pub(super) fn leave_and_wait(&mut self) {
        let _ = self.stream.write_all(&Message::new(b'X', &[]).encode());
        let mut chunk = [0; 8192];
        while matches!(self.stream.read(&mut chunk), Ok(count) if count > 0) {}
    }

    /// Leaves with a Terminate.
    pub(super) fn leave(mut self) {
        let _ = self.stream.write_all(&Message::new(b'X', &[]).encode());
    }
}

fn expected(message: &Msg) -> Option<Expected> {
    Some(match message {
        Msg::Query(_) => Expected::Query,
        Msg::Sync => Expected::Sync,
        Msg::Flush => return None,
        Msg::Parse { .. } => Expected::Tags(b"1"),
        Msg::Bind { .. } => Expected::Tags(b"2"),
        Msg::Close { .. } => Expected::Tags(b"3"),
        Msg::Describe { .. } => Expected::Tags(b"Tn"),
        Msg::Execute { .. } => Expected::Tags(b"CsI"),
    })
}

/// A message without what differs between two sessions that are alike: process ids, the numbers
/// of temporary schemas and of the tables in them, the place in the source of an error.
fn shown(message: &Message) -> Option<String> {
    let text = match message.tag {
        b'S' => return None,
        b'A' => format!("A {}", message.body[4..].escape_ascii()),
        b'E' | b'N' => {
            let error = message.error();
            let tag = char::from(message.tag);
            format!("{tag} {} {} {}", error.severity, error.code, unnamed(&error.message))
        }
        b'D' => {
            let columns = message.columns().into_iter();
            let texts: Vec<String> = columns
                .map(|column| {
                    column.map_or("null".to_owned(), |text| format!("'{}'", text.escape_ascii()))
                })
                .collect();
            format!("D {}", texts.join(" "))
        }
        b'T' => format!("T {}", described(&message.body)),
        tag => format!("{} {}", char::from(tag), message.body.escape_ascii()),
    };
    Some(without_numbers(&text))
}

/// An error's message without the name of a statement, which may be pgimbal's own.
fn unnamed(message: &str) -> String {
    let Some((before, name)) = message.split_once("prepared statement \"") else {
        return message.to_owned();
    };
    format!("{before}prepared statement {}", name.split_once('"').map_or("", |(_, after)| after))
}

/// A RowDescription without the tables' OIDs.
fn described(body: &[u8]) -> String {
    let mut columns = Vec::new();
    let mut rest = body.get(2..).unwrap_or_default();
    while let Some(end) = rest.iter().position(|byte| *byte == 0) {
        let (name, after) = rest.split_at(end);
        let (fields, next) = after[1..].split_at(18);
        columns.push(format!("{}:{}", name.escape_ascii(), fields[4..].escape_ascii()));
        rest = next;
    }
    columns.join(" ")
}

/// `pg_temp_3` without the 3.
fn without_numbers(text: &str) -> String {
    let mut parts = text.split("pg_temp_");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        out.push_str("pg_temp_");
        out.push_str(part.trim_start_matches(|letter: char| letter.is_ascii_digit()));
    }
    out
}
