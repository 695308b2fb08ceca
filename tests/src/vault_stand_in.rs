//! A stand-in for Vault's HTTP API, which answers as a test says and records its requests: for
//! states in which the real Vault cannot be held.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::program::print_tail;

/// A listening stand-in; its threads end with the test process.
pub struct VaultStandIn {
    /// The stand-in's port on 127.0.0.1.
    pub port: u16,
    state: Arc<Mutex<State>>,
}

/// What was asked, and when.
#[derive(Debug, Clone)]
pub struct Request {
    /// Time at which the request had arrived completely.
    pub at: Instant,
    /// The HTTP method, such as `GET`.
    pub method: String,
    /// The path after `/v1/`, with its query.
    pub path: String,
    /// The headers, with their names in lower case.
    pub headers: BTreeMap<String, String>,
    /// The body, JSON where there is one.
    pub body: String,
}

/// What is answered, and how long after the request.
#[derive(Debug, Clone)]
pub struct Answer {
    status: u16,
    body: Body,
    delay: Duration,
}

/// What an answer says.
#[derive(Debug, Clone)]
enum Body {
    /// Always the same.
    Fixed(Vec<u8>),
    /// A static role's credentials, whose time to the next rotation passes.
    Role { username: String, password: String, rotated: SystemTime, due: Instant },
}

#[derive(Default)]
struct State {
    /// The answers for each path; the last rule whose text the path contains is followed.
    rules: Vec<(String, Answer)>,
    /// Answers that go before all rules, each once.
    once: Vec<(String, Answer)>,
    requests: Vec<Request>,
}

impl Answer {
    /// Makes an answer with a JSON body.
    #[must_use]
    pub fn json(status: u16, body: &Value) -> Self {
        Self::raw(status, body.to_string().as_bytes())
    }

    /// Makes an answer with any body.
    #[must_use]
    pub fn raw(status: u16, body: &[u8]) -> Self {
        Self { status, body: Body::Fixed(body.to_vec()), delay: Duration::ZERO }
    }

    /// Makes an answer with Vault's list of errors, which holds `text` only.
    #[must_use]
    pub fn error(status: u16, text: &str) -> Self {
        Self::json(status, &json!({ "errors": [text] }))
    }

    /// Makes an answer with the credentials of a static role, which was rotated at `rotated` (RFC
    /// 3339) and is rotated again in `ttl` seconds.
    #[must_use]
    pub fn role(username: &str, password: &str, rotated: &str, ttl: u64) -> Self {
        Self::json(200, &credentials(username, password, rotated, ttl))
    }

    /// The same, rotated now and the next time when `ttl` has passed.
    #[must_use]
    pub fn rotated_now(username: &str, password: &str, ttl: Duration) -> Self {
        let body = Body::Role {
            username: username.to_owned(),
            password: password.to_owned(),
            rotated: SystemTime::now(),
            due: Instant::now() + ttl,
        };
        Self { status: 200, body, delay: Duration::ZERO }
    }

    /// Makes the answer of a login: a renewable token that lives `seconds`.
    #[must_use]
    pub fn token(token: &str, seconds: u64) -> Self {
        let auth = json!({
            "client_token": token, "accessor": "accessor", "policies": ["default"],
            "token_policies": ["default"], "metadata": null, "lease_duration": seconds,
            "renewable": true, "entity_id": "", "token_type": "service", "orphan": true,
        });
        Self::json(
            200,
            &json!({ "request_id": "1", "lease_id": "", "renewable": false,
            "lease_duration": 0, "data": null, "wrap_info": null, "warnings": null, "auth": auth }),
        )
    }

    /// Delays the answer by `delay`.
    #[must_use]
    pub fn after(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    fn body(self) -> Vec<u8> {
        match self.body {
            Body::Fixed(bytes) => bytes,
            Body::Role { username, password, rotated, due } => {
                let ttl = due.saturating_duration_since(Instant::now()).as_secs();
                credentials(&username, &password, &rfc3339(rotated), ttl).to_string().into_bytes()
            }
        }
    }
}

/// What Vault answers for a static role.
fn credentials(username: &str, password: &str, rotated: &str, ttl: u64) -> Value {
    json!({
        "request_id": "5b2a1e4e-0000-4000-8000-000000000000",
        "lease_id": "", "renewable": false, "lease_duration": 0,
        "data": {
            "username": username, "password": password, "ttl": ttl,
            "last_vault_rotation": rotated, "rotation_period": 86400,
        },
        "wrap_info": null, "warnings": null, "auth": null,
    })
}

/// As Vault prints a time, in UTC.
fn rfc3339(time: SystemTime) -> String {
    let time = OffsetDateTime::from(time);
    let (date, clock) = (time.date(), time.time());
    format!(
        "{date}T{:02}:{:02}:{:02}.{:09}Z",
        clock.hour(),
        clock.minute(),
        clock.second(),
        clock.nanosecond()
    )
}

impl VaultStandIn {
    /// Starts a stand-in that is healthy, accepts every token and every login, and knows no role.
    ///
    /// # Panics
    /// When no port is free.
    #[must_use]
    pub fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let port = listener.local_addr().expect("its address").port();
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = Arc::clone(&shared);
                std::thread::spawn(move || {
                    let _ = serve(stream, &state);
                });
            }
        });
        let stand_in = Self { port, state };
        let health = json!({ "initialized": true, "sealed": false, "standby": false,
            "performance_standby": false, "version": "1.21.0", "server_time_utc": 0 });
        stand_in.rule("sys/health", Answer::json(200, &health));
        stand_in.rule("auth/token/renew-self", Answer::token("renewed", 3600));
        let token = json!({ "ttl": 0, "creation_ttl": 0, "renewable": false, "policies": [],
            "expire_time": null, "id": "", "accessor": "" });
        stand_in.rule("auth/token/lookup-self", Answer::json(200, &json!({ "data": token })));
        for method in ["approle", "kubernetes"] {
            stand_in.rule(&format!("auth/{method}/login"), Answer::token("logged-in", 3600));
        }
        stand_in
    }

    /// Answers requests whose path contains `text` with `answer`; later rules win over earlier
    /// ones.
    pub fn rule(&self, text: &str, answer: Answer) {
        let mut state = self.state();
        state.rules.retain(|(known, _)| known != text);
        state.rules.push((text.to_owned(), answer));
    }

    /// Removes the rule for `text`.
    pub fn forget(&self, text: &str) {
        self.state().rules.retain(|(known, _)| known != text);
    }

    /// Sets the answer for the credentials of `role`.
    pub fn role(&self, role: &str, answer: Answer) {
        self.rule(&format!("static-creds/{role}"), answer);
    }

    /// Rotates `role` now: it has `password` from now on, and the next one when `ttl` has passed.
    pub fn rotate(&self, role: &str, password: &str, ttl: Duration) {
        self.role(role, Answer::rotated_now(role, password, ttl));
    }

    /// What it answers for `role` the next time only.
    pub fn role_once(&self, role: &str, answer: Answer) {
        self.state().once.push((format!("static-creds/{role}"), answer));
    }

    /// All requests so far.
    #[must_use]
    pub fn requests(&self) -> Vec<Request> {
        self.state().requests.clone()
    }

    /// Number of requests so far whose path contains `text`.
    #[must_use]
    pub fn asked(&self, text: &str) -> usize {
        self.state().requests.iter().filter(|request| request.path.contains(text)).count()
    }

    /// The configuration table `[vaults.main]` for this stand-in, with any token and further
    /// `keys`.
    #[must_use]
    pub fn table(&self, keys: &str) -> String {
        let token = if keys.contains("login") { "" } else { "token = \"stand-in\"\n" };
        format!("[vaults.main]\naddress = [\"http://127.0.0.1:{}\"]\n{token}{keys}\n", self.port)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl Drop for VaultStandIn {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let lines: Vec<String> = self.requests().iter().map(Request::line).collect();
            print_tail("Vault's stand-in", &lines.join("\n"));
        }
    }
}

impl Request {
    fn line(&self) -> String {
        format!("{:?} ago: {} {}", self.at.elapsed(), self.method, self.path)
    }
}

/// Answers one connection's requests, one after the other.
fn serve(stream: TcpStream, state: &Mutex<State>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut stream = stream;
    let mut last = false;
    while !last {
        let Some(request) = read_request(&mut reader)? else { break };
        last = request.headers.get("connection").is_some_and(|value| value == "close");
        let not_found = Answer::json(404, &json!({ "errors": [] }));
        let answer = {
            let mut state = lock(state);
            let once = state.once.iter().position(|(text, _)| concerns(&request.path, text));
            let once = once.map(|index| state.once.remove(index).1);
            let rule = state.rules.iter().rev().find(|(text, _)| concerns(&request.path, text));
            let answer = once.or_else(|| rule.map(|(_, answer)| answer.clone()));
            let answer = answer.unwrap_or(not_found);
            state.requests.push(request);
            answer
        };
        std::thread::sleep(answer.delay);
        let status = answer.status;
        let body = answer.body();
        let head = format!(
            "HTTP/1.1 {status} Stood In\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(&[head.as_bytes(), &body].concat())?;
    }
    Ok(())
}

/// Whether a rule's text stands in `path` and ends where a name does, so that `static-creds/a`
/// is not `static-creds/ab`.
fn concerns(path: &str, text: &str) -> bool {
    path.match_indices(text).any(|(start, _)| {
        let next = path[start + text.len()..].chars().next();
        text.ends_with('/') || !next.is_some_and(|next| next.is_alphanumeric() || next == '_')
    })
}

fn read_request(reader: &mut BufReader<TcpStream>) -> io::Result<Option<Request>> {
    let mut first = String::new();
    if reader.read_line(&mut first)? == 0 {
        return Ok(None);
    }
    let mut words = first.split_whitespace().map(str::to_owned);
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.insert(name.to_lowercase(), value.trim().to_owned());
    }
    let length = headers.get("content-length").and_then(|length| length.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body)?;
    Ok(Some(Request {
        at: Instant::now(),
        method,
        path: path.trim_start_matches("/v1/").to_owned(),
        headers,
        body: String::from_utf8_lossy(&body).into_owned(),
    }))
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
