//! A model client: what it has sent, what it must get, what it got.

use std::collections::{BTreeMap, VecDeque};

use pgimbal_pooler::ids::SessionId;

use crate::message;
use crate::postgres::{Backend, token_in};

pub(crate) struct Client {
    pub(crate) number: usize,
    pub(crate) worker: usize,
    pub(crate) session: Option<SessionId>,
    pub(crate) stage: Stage,
    pub(crate) startup: Vec<(String, String)>,
    /// It has a server connection of its own from login to logout.
    pub(crate) session_mode: bool,
    /// It sends nothing before it is answered.
    pub(crate) waits: bool,
    /// Sent, not read by the proxy.
    pub(crate) up: Vec<u8>,
    /// Read by the proxy, not dealt with.
    pub(crate) rest: Vec<u8>,
    inbox: Vec<u8>,
    /// A PostgreSQL of its own, which gets the same bytes.
    pub(crate) reference: Backend,
    expected: VecDeque<(u8, Vec<u8>)>,
    early: VecDeque<(u8, Vec<u8>)>,
    pub(crate) known: BTreeMap<String, String>,
    /// Something has happened to it that its reference does not know of.
    pub(crate) disturbed: bool,
    pub(crate) ready_due: usize,
    pub(crate) ready_spare: usize,
    pub(crate) ready_got: usize,
    pub(crate) steps_left: usize,
    pub(crate) tokens: usize,
    /// The payloads of the notifications that it got.
    pub(crate) told: Vec<String>,
    /// The last lines it saw, for a person.
    pub(crate) seen: VecDeque<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Not there yet.
    Away,
    /// Waits for its greeting.
    Greeting,
    Open,
    /// Has said Terminate.
    Leaving,
    /// Has gone without a word, or was closed.
    Gone,
}

impl Client {
    pub(crate) fn new(
        number: usize,
        worker: usize,
        startup: Vec<(String, String)>,
        steps: usize,
    ) -> Self {
        Self {
            number,
            worker,
            session: None,
            stage: Stage::Away,
            reference: Backend::new(&startup),
            startup,
            session_mode: false,
            waits: false,
            up: Vec::new(),
            rest: Vec::new(),
            inbox: Vec::new(),
            expected: VecDeque::new(),
            early: VecDeque::new(),
            known: BTreeMap::new(),
            disturbed: false,
            ready_due: 0,
            ready_spare: 0,
            ready_got: 0,
            steps_left: steps,
            tokens: 0,
            told: Vec::new(),
            seen: VecDeque::new(),
        }
    }

    /// A constant that only this client uses, once.
    pub(crate) fn token(&mut self) -> String {
        self.tokens += 1;
        format!("c{}.{}", self.number, self.tokens)
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.up.extend_from_slice(bytes);
        for (tag, body) in message::all(bytes) {
            self.note(format!("> {} {}", tag as char, printable(&body)));
        }
        self.reference.feed(bytes);
        self.expect();
    }

    /// One of its statements was cancelled or has ended.
    pub(crate) fn resolve(&mut self, token: &str, cancelled: bool) {
        let reference = &mut self.reference;
        let runs = reference.asleep.as_ref().is_some_and(|asleep| asleep.token == token);
        match (cancelled, runs) {
            (true, true) => drop(reference.cancel()),
            (false, true) => reference.wake(),
            (true, false) => drop(reference.cancelled.insert(token.to_owned())),
            (false, false) => drop(reference.finished.insert(token.to_owned())),
        }
        self.expect();
    }

    fn expect(&mut self) {
        let output = std::mem::take(&mut self.reference.output);
        self.expected.extend(message::all(&output).into_iter().filter(|(tag, _)| *tag != b'S'));
        while !self.expected.is_empty()
            && let Some(early) = self.early.pop_front()
        {
            self.compare(early);
        }
    }

    /// Bytes from the proxy.
    pub(crate) fn receive(&mut self, bytes: &[u8]) {
        assert!(self.stage != Stage::Away, "bytes for client {} that is away", self.number);
        self.inbox.extend_from_slice(bytes);
        while let Some((tag, body, length)) = message::first(&self.inbox) {
            let body = body.to_vec();
            self.inbox.drain(..length);
            self.note(format!("< {}", message::shown(&[(tag, body.clone())])[0]));
            // A client's name that looks like one of the proxy's own is escaped, and shows in
            // errors.
            let body = if tag == b'E' { unescaped(body) } else { body };
            self.message(tag, body);
        }
    }

    fn message(&mut self, tag: u8, body: Vec<u8>) {
        if let Some(token) = token_in(tag, &body) {
            let mine = token.starts_with(&format!("c{}.", self.number));
            assert!(mine, "client {} got an answer to {token}\n{}", self.number, self.transcript());
        }
        match tag {
            b'S' => {
                let mut parts = body.split(|&b| b == 0);
                let mut text =
                    || String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
                let (name, value) = (text(), text());
                self.known.insert(name, value);
                return;
            }
            b'K' => return,
            b'A' => {
                let payload = body[4..].split(|&b| b == 0).nth(1).unwrap_or_default();
                self.told.push(String::from_utf8_lossy(payload).into_owned());
                return;
            }
            b'Z' if self.stage == Stage::Greeting => {
                let refused = self.startup.iter().any(|(_, value)| value == "Bad");
                assert!(!refused, "client {} was let in\n{}", self.number, self.transcript());
                self.stage = Stage::Open;
                return;
            }
            b'Z' => self.ready_got += 1,
            b'E' if message::field(&body, b'M').contains(crate::world::REFUSAL)
                || message::field(&body, b'C') == "08007" =>
            {
                self.disturb();
            }
            _ => {}
        }
        if self.disturbed {
            let most = self.ready_due + self.ready_spare;
            assert!(
                self.ready_got <= most,
                "client {} got too many answers\n{}",
                self.number,
                self.transcript()
            );
        } else if self.expected.is_empty() {
            self.early.push_back((tag, body));
        } else {
            self.compare((tag, body));
        }
    }

    fn compare(&mut self, got: (u8, Vec<u8>)) {
        if self.disturbed {
            return;
        }
        let expected = self.expected.pop_front().expect("an answer is due");
        assert!(
            expected == got,
            "client {} got {:?} and PostgreSQL says {:?}\n{}",
            self.number,
            message::shown(&[got]),
            message::shown(&[expected]),
            self.transcript()
        );
    }

    pub(crate) fn disturb(&mut self) {
        self.disturbed = true;
        self.expected.clear();
        self.early.clear();
    }

    /// Whether everything that it may expect has come.
    pub(crate) fn is_answered(&self) -> bool {
        match self.disturbed {
            true => self.ready_got >= self.ready_due,
            false => self.expected.is_empty() && self.reference.asleep.is_none(),
        }
    }

    /// What would be wrong if nothing more came.
    pub(crate) fn complaint(&self) -> Option<String> {
        let transcript =
            || format!("client {} ({:?})\n{}", self.number, self.stage, self.transcript());
        if !matches!(self.stage, Stage::Open) {
            return None;
        }
        if self.disturbed {
            return (self.ready_got < self.ready_due)
                .then(|| format!("waits for ever: {}", transcript()));
        }
        if let Some(next) = self.expected.front() {
            return Some(format!(
                "never got {:?}: {}",
                message::shown(std::slice::from_ref(next)),
                transcript()
            ));
        }
        if let Some(early) = self.early.front() {
            return Some(format!(
                "got {:?} for nothing: {}",
                message::shown(std::slice::from_ref(early)),
                transcript()
            ));
        }
        let reported = self.reference.gucs.reported();
        let idle = !self.reference.in_block();
        (idle && reported != self.known)
            .then(|| format!("believes {:?}, not {reported:?}: {}", self.known, transcript()))
    }

    fn note(&mut self, line: String) {
        if std::env::var_os("PGIMBAL_SIM_SEED").is_some() {
            println!("client {}: {line}", self.number);
        }
        self.seen.push_back(line);
        if self.seen.len() > 60 {
            self.seen.pop_front();
        }
    }

    pub(crate) fn transcript(&self) -> String {
        self.seen.iter().map(|line| format!("    {line}\n")).collect()
    }
}

fn unescaped(body: Vec<u8>) -> Vec<u8> {
    let text = String::from_utf8(body).expect("UTF-8");
    text.replace("pgimbal_:", "").into_bytes()
}

fn printable(body: &[u8]) -> String {
    let shown = body.iter().take(70).map(|&b| if (32..127).contains(&b) { b as char } else { '.' });
    shown.collect()
}
