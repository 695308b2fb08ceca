//! The page on the HTTP port: what it answers, to whom.
//!
//! This module owns the paths `/` and `/api/…`, who may use them, and what a browser is told so
//! that no other site can. The tables and commands are the console's.

mod access;
mod assets;
mod history;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{
    ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, COOKIE, HOST,
    HeaderMap, HeaderName, HeaderValue, ORIGIN, REFERRER_POLICY, RETRY_AFTER, SET_COOKIE,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use hyper::{Method, Request, Response, StatusCode};
use pgimbal_config::Config;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::{Mutex, watch};
use tokio::time::timeout;

use crate::admin::collect::Collector;
use crate::admin::console::Console;
use crate::admin::console::view::{self, PageCommand};
use crate::pending_logins::Subnet;
use access::{Access, LIFE, Level, Refused, Session, WRONG_PERIOD};
use assets::Html;
use history::History;

/// Largest body of a request in bytes: a token of 512, or a command with a name of 63.
const MAX_BODY: usize = 4 * 1024;
/// Time limit of a request's body.
const BODY_TIME: Duration = Duration::from_secs(5);
/// How long the tables of this replica are shown again, however many pages are open.
const CHEAP_AGE: Duration = Duration::from_secs(1);
/// The same of what is dear to make: a list of all clients, and the answers of other replicas.
const DEAR_AGE: Duration = Duration::from_secs(5);
/// The header with a session's token against forged requests.
const CSRF: &str = "x-pgimbal-csrf";
const COOKIE_NAME: &str = "pgimbal_session";
const HTML: &str = "text/html; charset=utf-8";
const JSON: &str = "application/json";

type Answer = Response<Full<Bytes>>;

/// The page. It keeps sessions and the figures of the last 15 minutes.
#[derive(Debug)]
pub struct Page {
    collector: Collector,
    console: Arc<Console>,
    access: Access,
    history: History,
    page: Html,
    login: Html,
    tables: Cached,
    sessions: Cached,
    replicas: Cached,
}

/// An answer that is made again only when it is older than its limit.
#[derive(Debug)]
struct Cached {
    limit: Duration,
    made: Mutex<Option<(Instant, Bytes)>>,
}

/// Who asks.
struct Visitor {
    level: Level,
    session: Option<Session>,
}

#[derive(Deserialize)]
struct LoginRequest {
    token: String,
}

#[derive(Deserialize)]
struct CommandRequest {
    command: String,
    target: String,
}

impl Page {
    /// Makes the page of a port, which is at a loopback address or not. It shows what `collector`
    /// and `console` know; `config` has the tokens in force.
    #[must_use]
    pub fn new(
        collector: Collector,
        console: Arc<Console>,
        config: watch::Receiver<Arc<Config>>,
        is_loopback: bool,
    ) -> Self {
        let cached = |limit| Cached { limit, made: Mutex::default() };
        Self {
            collector,
            console,
            access: Access::new(config, is_loopback),
            history: History::default(),
            page: assets::page(),
            login: assets::login(),
            tables: cached(CHEAP_AGE),
            sessions: cached(DEAR_AGE),
            replicas: cached(DEAR_AGE),
        }
    }

    /// Takes the figures for the graphs, until the future is dropped.
    pub async fn keep_history(&self) {
        self.history.keep(&self.collector).await;
    }

    /// Whether `path` is one of the page, and there is a page: at an address of a network only with
    /// a token.
    #[must_use]
    pub fn serves(&self, path: &str) -> bool {
        self.access.is_offered() && (path == "/" || path.starts_with("/api/"))
    }

    /// Answers a request from `peer` for a path that [`Self::serves`].
    pub async fn answer(&self, request: Request<Incoming>, peer: SocketAddr) -> Answer {
        let mut answer = self.route(request, peer).await;
        let headers = answer.headers_mut();
        for (name, value) in [
            (CACHE_CONTROL, "no-store"),
            (X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (X_FRAME_OPTIONS, "DENY"),
            (REFERRER_POLICY, "no-referrer"),
            (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
            (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        // Whatever else is shown as a document runs nothing.
        headers
            .entry(CONTENT_SECURITY_POLICY)
            .or_insert(HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"));
        answer
    }

    async fn route(&self, request: Request<Incoming>, peer: SocketAddr) -> Answer {
        let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
        let allowed = match request.uri().path() {
            "/api/login" | "/api/logout" | "/api/command" => "POST",
            "/" | "/api/session" | "/api/tables" | "/api/sessions" | "/api/replicas"
            | "/api/history" => "GET, HEAD",
            _ => return refusal(StatusCode::NOT_FOUND, "there is no such path"),
        };
        if is_read != (allowed != "POST") || !(is_read || *request.method() == Method::POST) {
            let mut answer = refusal(StatusCode::METHOD_NOT_ALLOWED, "this method is not for it");
            answer.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
            return answer;
        }
        if self.access.is_open() && !is_this_machine(request.headers()) {
            let text = "Without http.token the page is shown under a name of this machine only: \
                        localhost, or a loopback address.";
            return refusal(StatusCode::FORBIDDEN, text);
        }
        if is_read {
            return self.read(&request, peer).await;
        }
        if let Err(why) = is_same_origin(request.headers()) {
            return refusal(StatusCode::FORBIDDEN, why);
        }
        match request.uri().path() {
            "/api/login" => self.log_in(request, peer).await,
            "/api/logout" => self.log_out(&request, peer),
            _ => self.command(request, peer).await,
        }
    }

    async fn read(&self, request: &Request<Incoming>, peer: SocketAddr) -> Answer {
        let visitor = match self.visitor(request.headers(), peer) {
            Ok(visitor) => visitor,
            Err(refused) => return refused_token(refused),
        };
        let path = request.uri().path();
        let Some(visitor) = visitor else {
            return match path {
                "/" => html(&self.login),
                _ => refusal(StatusCode::UNAUTHORIZED, "log in first"),
            };
        };
        let body = match path {
            "/" => return html(&self.page),
            "/api/session" => self.session_json(&visitor).to_string().into(),
            "/api/history" => self.history_json(request.uri().query().unwrap_or("")),
            "/api/sessions" => self.sessions.get(view::sessions(&self.console)).await,
            "/api/replicas" => self.replicas.get(view::replicas(&self.console)).await,
            _ => self.tables.get(self.tables_json()).await,
        };
        body_of(StatusCode::OK, JSON, body)
    }

    /// Who asks; `None` for somebody who has to log in.
    fn visitor(&self, headers: &HeaderMap, peer: SocketAddr) -> Result<Option<Visitor>, Refused> {
        let now = Instant::now();
        if let Some((_, session)) = self.own_session(headers, peer) {
            return Ok(Some(Visitor { level: session.level, session: Some(session) }));
        }
        let bearer = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        if let Some(token) = bearer.and_then(|value| value.strip_prefix("Bearer ")) {
            let level = self.check(token, peer, now)?;
            return Ok(Some(Visitor { level, session: None }));
        }
        let open = Visitor { level: Level::Viewer, session: None };
        Ok(self.access.is_open().then_some(open))
    }

    fn check(&self, token: &str, peer: SocketAddr, now: Instant) -> Result<Level, Refused> {
        let checked = self.access.check(token, Subnet::of(Some(peer.ip())), now);
        log_refused(peer, checked.as_ref().err());
        checked
    }

    async fn log_in(&self, request: Request<Incoming>, peer: SocketAddr) -> Answer {
        // Behind a proxy that speaks TLS the cookie is for TLS alone.
        let is_secure = request.headers().get(ORIGIN).is_some_and(is_https);
        let asked: LoginRequest = match json_body(request).await {
            Ok(asked) => asked,
            Err(answer) => return answer,
        };
        let from = Subnet::of(Some(peer.ip()));
        let done = self.access.log_in(&asked.token, from, Instant::now());
        log_refused(peer, done.as_ref().err());
        match done {
            Err(refused) => refused_token(refused),
            Ok((session, id)) => {
                let (level, number) = (session.level.as_str(), session.number);
                tracing::info!(%peer, session = number, level, "logged in to the page");
                with_cookie(&id, LIFE, is_secure)
            }
        }
    }

    fn log_out(&self, request: &Request<Incoming>, peer: SocketAddr) -> Answer {
        let headers = request.headers();
        if let Some((id, session)) = self.own_session(headers, peer)
            && has_csrf(headers, &session)
        {
            self.access.log_out(id);
        }
        with_cookie("", Duration::ZERO, false)
    }

    fn own_session<'a>(
        &self,
        headers: &'a HeaderMap,
        peer: SocketAddr,
    ) -> Option<(&'a str, Session)> {
        let (id, from) = (cookie(headers)?, Subnet::of(Some(peer.ip())));
        Some((id, self.access.session(id, from, Instant::now())?))
    }

    async fn command(&self, request: Request<Incoming>, peer: SocketAddr) -> Answer {
        let Some((_, session)) = self.own_session(request.headers(), peer) else {
            return refusal(StatusCode::UNAUTHORIZED, "log in first");
        };
        if session.level != Level::Admin {
            return refusal(StatusCode::FORBIDDEN, "only who has the admin token may do this");
        }
        if !has_csrf(request.headers(), &session) {
            return refusal(StatusCode::FORBIDDEN, "the session's own token is missing or wrong");
        }
        let asked: CommandRequest = match json_body(request).await {
            Ok(asked) => asked,
            Err(answer) => return answer,
        };
        let Some(command) = PageCommand::named(&asked.command) else {
            return refusal(StatusCode::BAD_REQUEST, "the page has no such command");
        };
        // A browser that goes away does not take back what was confirmed.
        let (console, target) = (Arc::clone(&self.console), asked.target);
        let (name, session) = (command.name(), session.number);
        let run = tokio::spawn(async move {
            let outcome = view::run(&console, command, &target).await;
            let (said, replicas) = (&outcome.said, &outcome.replicas);
            let (ok, target) = (outcome.ok, &target);
            tracing::info!(%peer, session, command = name, ?target, ok, said, ?replicas, "page");
            outcome
        });
        let Ok(outcome) = run.await else {
            return refusal(
                StatusCode::INTERNAL_SERVER_ERROR,
                "the command has not come to an end",
            );
        };
        self.tables.forget().await;
        body_of(StatusCode::OK, JSON, json!(outcome).to_string().into())
    }

    fn session_json(&self, visitor: &Visitor) -> Value {
        json!({
            "level": visitor.level.as_str(),
            "csrf": visitor.session.as_ref().map(|session| &session.csrf),
            "has_session": visitor.session.is_some(),
            "has_commands": self.access.has_admin_token(),
        })
    }

    async fn tables_json(&self) -> Value {
        let mut tables = view::tables(&self.console).await;
        let process = self.collector.process();
        let now = process.snapshot().now;
        tables["process"] = json!({
            "replica": self.collector.peers().own_name(),
            "version": env!("CARGO_PKG_VERSION"),
            "phase": now.phase.as_str(),
            "clients": now.clients,
            "max_clients": process.max_client_conn(),
        });
        tables
    }

    fn history_json(&self, query: &str) -> Bytes {
        let value = |wanted: &str| {
            let mut pairs = form_urlencoded::parse(query.as_bytes());
            pairs.find(|(key, _)| key == wanted).map(|(_, value)| value)
        };
        let since = value("since").and_then(|since| since.parse().ok()).unwrap_or_default();
        let database = value("database");
        self.history.json(database.as_deref(), since).to_string().into()
    }
}

impl Cached {
    /// The answer; `make` makes it unless there is one that is new enough. Who asks meanwhile waits
    /// for it.
    async fn get(&self, make: impl Future<Output = Value>) -> Bytes {
        let mut made = self.made.lock().await;
        if let Some((at, body)) = &*made
            && at.elapsed() < self.limit
        {
            return body.clone();
        }
        let body = Bytes::from(make.await.to_string());
        *made = Some((Instant::now(), body.clone()));
        body
    }

    async fn forget(&self) {
        *self.made.lock().await = None;
    }
}

/// Whether the request was for a name of this machine, which no other site can have made a browser
/// take for its own (DNS rebinding).
fn is_this_machine(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(HOST).and_then(|host| host.to_str().ok()) else { return false };
    if let Ok(address) = host.parse::<SocketAddr>() {
        return address.ip().is_loopback();
    }
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost")
        || bare.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Whether the page itself has sent the request. Every browser tells the origin of a POST, and the
/// newer ones its relation to the address too.
fn is_same_origin(headers: &HeaderMap) -> Result<(), &'static str> {
    if headers.get("sec-fetch-site").is_some_and(|site| site != "same-origin") {
        return Err("the request comes from another site");
    }
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let origin = text(ORIGIN).and_then(|origin| origin.split_once("://"));
    match (origin, text(HOST)) {
        (Some(("http" | "https", origin)), Some(host)) if origin.eq_ignore_ascii_case(host) => {
            Ok(())
        }
        _ => Err("the Origin is not this Host; a proxy in between must pass on the Host header"),
    }
}

fn is_https(origin: &HeaderValue) -> bool {
    origin.as_bytes().starts_with(b"https://")
}

fn has_csrf(headers: &HeaderMap, session: &Session) -> bool {
    let shown = headers.get(CSRF).map_or(&b""[..], HeaderValue::as_bytes);
    verify_slices_are_equal(shown, session.csrf.as_bytes()).is_ok()
}

/// The id of the session in the request's cookies.
fn cookie(headers: &HeaderMap) -> Option<&str> {
    let cookies = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = cookies.flat_map(|cookies| cookies.split(';'));
    pairs.find_map(|pair| pair.trim().strip_prefix(COOKIE_NAME)?.strip_prefix('='))
}

/// The body of a request as JSON, or the answer to one that has none. Only JSON is taken: a form of
/// another site cannot send it.
async fn json_body<T: for<'a> Deserialize<'a>>(request: Request<Incoming>) -> Result<T, Answer> {
    if request.headers().get(CONTENT_TYPE).is_none_or(|kind| kind != JSON) {
        let text = "the body must be application/json";
        return Err(refusal(StatusCode::UNSUPPORTED_MEDIA_TYPE, text));
    }
    let body = Limited::new(request.into_body(), MAX_BODY).collect();
    let Ok(Ok(body)) = timeout(BODY_TIME, body).await else {
        return Err(refusal(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large or too late"));
    };
    serde_json::from_slice(&body.to_bytes())
        .map_err(|_| refusal(StatusCode::BAD_REQUEST, "the body is not what it should be"))
}

fn log_refused(peer: SocketAddr, refused: Option<&Refused>) {
    // At most as many lines from an address as wrong tokens are looked at.
    if refused == Some(&Refused::Wrong) {
        tracing::warn!(%peer, "a wrong token for the page");
    }
}

/// The same for every wrong token.
fn refused_token(refused: Refused) -> Answer {
    match refused {
        Refused::Wrong => refusal(StatusCode::UNAUTHORIZED, "this is no token of the page"),
        Refused::TooMany => {
            let text = "there were too many wrong tokens from this address; try again in a minute";
            let mut answer = refusal(StatusCode::TOO_MANY_REQUESTS, text);
            answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from(WRONG_PERIOD.as_secs()));
            answer
        }
    }
}

/// An answer without a body that sets the cookie of the session, or takes it away after no time.
fn with_cookie(id: &str, life: Duration, is_secure: bool) -> Answer {
    let secure = if is_secure { "; Secure" } else { "" };
    let seconds = life.as_secs();
    let cookie =
        format!("{COOKIE_NAME}={id}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}");
    let mut answer = body_of(StatusCode::OK, JSON, Bytes::from_static(b"{}"));
    // Hexadecimal digits and words.
    if let Ok(cookie) = HeaderValue::from_str(&cookie) {
        answer.headers_mut().insert(SET_COOKIE, cookie);
    }
    answer
}

fn refusal(status: StatusCode, why: &str) -> Answer {
    body_of(status, JSON, json!({"error": why}).to_string().into())
}

fn html(page: &Html) -> Answer {
    let mut answer = body_of(StatusCode::OK, HTML, page.body.clone());
    answer.headers_mut().insert(CONTENT_SECURITY_POLICY, page.policy.clone());
    answer
}

fn body_of(status: StatusCode, content_type: &'static str, body: Bytes) -> Answer {
    let mut answer = Response::new(Full::new(body));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}

#[cfg(test)]
pub(crate) mod tests;
