use std::time::SystemTime;

use pgimbal_config::Secret;
use pgimbal_pooler::pool::stats::{ClientSnapshot, PoolSnapshot, WorkerSnapshot};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::*;
use crate::admin::collect::{ProcessStats, SnapshotRequest};
use crate::admin::console::Control;
use crate::admin::http::serve;

const VIEW: &str = "0123456789abcdef";
const ADMIN: &str = "fedcba9876543210";
const HOSTILE: &str = "<script>alert(1)</script>\u{1b}[31m";

/// A page with the tokens of `config`.
pub(crate) fn page_of(collector: &Collector, config: Config, is_loopback: bool) -> Page {
    let (_, config) = watch::channel(Arc::new(config));
    let (sender, _) = mpsc::channel(1);
    let console = Console::new(collector.clone(), config.clone(), Control::new(sender));
    Page::new(collector.clone(), Arc::new(console), config, is_loopback)
}

struct Site(SocketAddr);

/// An answer: its status, its head in lower case with `\n`, and its body.
struct Got {
    status: u16,
    head: String,
    body: String,
}

impl Got {
    fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value).next()
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("{}", self.body))
    }

    /// What a browser sends back of the cookie.
    fn cookie(&self) -> String {
        let cookie = self.header("set-cookie").unwrap();
        format!("Cookie: other=1; {}\r\n", cookie.split(';').next().unwrap())
    }
}

impl Site {
    async fn open(is_loopback: bool, view: Option<&str>, admin: Option<&str>) -> Self {
        let (sender, mut requests) = mpsc::unbounded_channel::<SnapshotRequest>();
        tokio::spawn(async move {
            while let Some(request) = requests.recv().await {
                let answer = WorkerSnapshot {
                    pools: vec![PoolSnapshot { database: HOSTILE.into(), ..Default::default() }],
                    clients: vec![client("listen", 9), client("", 0), client("temp", 70)],
                    ..Default::default()
                };
                let _ = request.reply.send(answer);
            }
        });
        let mut config = Config::default();
        config.http.access.token = view.map(Secret::from);
        config.http.access.admin_token = admin.map(Secret::from);
        let process = Arc::new(ProcessStats::new(SystemTime::now(), 10));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let collector = Collector::new(vec![sender], process);
        let page = page_of(&collector, config, is_loopback);
        tokio::spawn(serve(listener, collector, page));
        Self(address)
    }

    /// The answer to a request with these further lines of the head, each with its line end.
    async fn ask(&self, method: &str, path: &str, lines: &str, body: &str) -> Got {
        let mut stream = TcpStream::connect(self.0).await.unwrap();
        let (address, length) = (self.0, body.len());
        let host =
            if lines.contains("Host: ") { String::new() } else { format!("Host: {address}\r\n") };
        let request = format!(
            "{method} {path} HTTP/1.1\r\n{host}Content-Length: {length}\r\n{lines}\r\n{body}"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        let answer = String::from_utf8(answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Got { status, head: head.to_owned(), body: body.to_owned() }
    }

    async fn get(&self, path: &str, lines: &str) -> Got {
        self.ask("GET", path, lines, "").await
    }

    /// Sends JSON as the page does.
    async fn post(&self, path: &str, lines: &str, body: &Value) -> Got {
        let same = format!(
            "Origin: http://{}\r\nSec-Fetch-Site: same-origin\r\n\
             Content-Type: application/json\r\n{lines}",
            self.0
        );
        self.ask("POST", path, &same, &body.to_string()).await
    }

    async fn log_in(&self, token: &str) -> Got {
        self.post("/api/login", "", &json!({ "token": token })).await
    }

    /// Logs in, and returns the lines of the head that a session's requests have.
    async fn session(&self, token: &str) -> String {
        let cookie = self.log_in(token).await.cookie();
        let session = self.get("/api/session", &cookie).await.json();
        format!("{cookie}X-Pgimbal-Csrf: {}\r\n", session["csrf"].as_str().unwrap())
    }
}

fn client(pinned: &str, seconds: u64) -> ClientSnapshot {
    ClientSnapshot {
        worker: 0,
        slot: 0,
        serial: 1,
        database: "shop".into(),
        user: "ann".into(),
        state: "active",
        address: "10.0.0.1:5".into(),
        application_name: HOSTILE.into(),
        connected: Duration::ZERO,
        wait: Duration::ZERO,
        prepared_statements: 0,
        pinned: pinned.into(),
        pinned_for: Duration::from_secs(seconds),
        server_process_id: 1,
        generation: None,
        route: "primary",
        node: String::new(),
    }
}

#[tokio::test]
async fn on_loopback_the_page_is_open_to_this_machine_and_to_no_other_name() {
    let site = Site::open(true, None, None).await;
    let page = site.get("/", "").await;
    assert_eq!((page.status, page.header("content-type")), (200, Some(HTML)));
    assert!(page.body.contains("Pinned sessions"));
    let policy = page.header("content-security-policy").unwrap();
    for part in ["default-src 'none'", "script-src 'sha256-", "frame-ancestors 'none'"] {
        assert!(policy.contains(part), "{policy}");
    }
    assert!(!policy.contains("unsafe"), "{policy}");
    for (name, value) in [
        ("x-frame-options", "DENY"),
        ("x-content-type-options", "nosniff"),
        ("cache-control", "no-store"),
    ] {
        assert_eq!(page.header(name), Some(value));
    }
    let port = site.0.port();
    for host in [format!("localhost:{port}"), format!("[::1]:{port}"), "127.9.9.9".to_owned()] {
        let got = site.get("/api/tables", &format!("Host: {host}\r\n")).await;
        assert_eq!(got.status, 200, "{host}");
    }
    for host in
        ["evil.example", "10.0.0.1:80", "localhost.evil.example", "127.0.0.1.evil.example:1"]
    {
        let got = site.get("/api/tables", &format!("Host: {host}\r\n")).await;
        assert_eq!(got.status, 403, "{host}: a name that another site has made point here");
    }
    let session = site.get("/api/session", "").await.json();
    assert_eq!(
        session,
        json!({"level": "viewer", "csrf": null, "has_session": false, "has_commands": false})
    );
}

#[tokio::test]
async fn on_a_network_there_is_no_page_without_a_token_and_the_door_with_one() {
    let site = Site::open(false, None, None).await;
    for path in ["/", "/api/tables"] {
        let got = site.get(path, "").await;
        assert!(got.status == 404 && got.body.contains("http.token"), "{}", got.body);
    }
    let site = Site::open(false, Some(VIEW), None).await;
    let door = site.get("/", "").await;
    assert!(door.status == 200 && door.body.contains("Token of the page"), "{}", door.body);
    assert!(!door.body.contains("Pinned sessions"));
    for path in ["/api/tables", "/api/sessions", "/api/replicas", "/api/history", "/api/session"] {
        assert_eq!(site.get(path, "").await.status, 401, "{path}");
        let bearer = format!("Authorization: Bearer {VIEW}\r\n");
        assert_eq!(site.get(path, &bearer).await.status, 200, "{path}");
        assert_eq!(site.get(path, "Cookie: pgimbal_session=x\r\n").await.status, 401, "{path}");
    }
    assert_eq!(site.get("/metrics", "").await.status, 200, "as before");
}

#[tokio::test]
async fn tables_are_the_consoles_with_names_as_they_are() {
    let site = Site::open(true, None, None).await;
    let got = site.get("/api/tables", "").await;
    assert_eq!(got.header("content-type"), Some("application/json"));
    assert_eq!(got.header("x-content-type-options"), Some("nosniff"));
    let tables = got.json();
    for table in ["pools", "nodes", "failovers", "credentials", "budget", "peers"] {
        assert!(tables["tables"][table]["columns"].is_array(), "{table}");
    }
    assert_eq!(tables["tables"]["pools"]["rows"][0][0], HOSTILE);
    assert_eq!(tables["process"]["max_clients"], 10);
    let sessions = site.get("/api/sessions", "").await.json();
    let rows = sessions["tables"]["pinned"]["rows"].as_array().unwrap();
    let why: Vec<_> = rows.iter().map(|row| row[13].as_str().unwrap()).collect();
    assert_eq!(why, ["temp", "listen"], "the longest pinned first");
    let budget = site.get("/api/replicas", "").await.json();
    assert_eq!(budget["tables"]["budget"]["columns"][0], "replica");
    let history = site.get("/api/history?since=0&database=a%20b", "").await.json();
    assert_eq!((&history["next"], &history["kept"]), (&json!(0), &json!(180)));
}

#[tokio::test]
async fn a_login_gives_a_cookie_that_scripts_and_other_sites_do_not_get() {
    let site = Site::open(false, Some(VIEW), Some(ADMIN)).await;
    let got = site.log_in(VIEW).await;
    let cookie = got.header("set-cookie").unwrap().to_owned();
    for part in ["Path=/", "Max-Age=43200", "HttpOnly", "SameSite=Strict"] {
        assert!(cookie.split("; ").any(|known| known == part), "{cookie}");
    }
    assert!(!cookie.contains("Secure") && !cookie.contains(VIEW), "{cookie}");
    assert_eq!(site.get("/api/tables", &got.cookie()).await.status, 200);
    let level = site.get("/api/session", &got.cookie()).await.json();
    assert_eq!((&level["level"], &level["has_commands"]), (&json!("viewer"), &json!(true)));
    let lines =
        "Host: a.example\r\nOrigin: https://a.example\r\nContent-Type: application/json\r\n";
    let body = json!({ "token": ADMIN }).to_string();
    let got = site.ask("POST", "/api/login", lines, &body).await;
    assert!(got.header("set-cookie").unwrap().ends_with("; Secure"), "behind a proxy with TLS");
    let session = site.session(ADMIN).await;
    let out = site.post("/api/logout", &session, &json!({})).await;
    assert!(out.header("set-cookie").unwrap().contains("Max-Age=0"));
    assert_eq!(site.get("/api/tables", &session).await.status, 401);
}

#[tokio::test]
async fn wrong_tokens_get_one_answer_and_then_none_is_looked_at() {
    let site = Site::open(false, Some(VIEW), None).await;
    let mut answers = Vec::new();
    let long = "x".repeat(2000);
    for wrong in ["", "x", ADMIN, "0123456789abcdeF", &long] {
        let got = site.log_in(wrong).await;
        let head = got.head.lines().filter(|line| !line.starts_with("date")).collect::<String>();
        answers.push((got.status, head, got.body));
        let bearer = site.get("/api/tables", "Authorization: Bearer no\r\n").await;
        assert_eq!(bearer.status, 401);
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    assert_eq!(answers[0].0, 401);
    let late = site.log_in(VIEW).await;
    assert_eq!((late.status, late.header("retry-after")), (429, Some("60")));
    let bearer = format!("Authorization: Bearer {VIEW}\r\n");
    assert_eq!(site.get("/api/tables", &bearer).await.status, 429);
}

#[tokio::test]
async fn what_changes_something_must_come_from_the_page_itself() {
    let site = Site::open(false, Some(VIEW), Some(ADMIN)).await;
    let session = site.session(ADMIN).await;
    let hold = json!({"command": "HOLD", "target": "main"});
    let own = format!("Origin: http://{}\r\n", site.0);
    let kind = "Content-Type: application/json\r\n";
    for (lines, why) in [
        (format!("{session}{kind}"), "no Origin"),
        (format!("{session}{kind}Origin: http://evil.example\r\n"), "another Origin"),
        (format!("{session}{kind}Origin: null\r\n"), "a hidden Origin"),
        (format!("{session}{kind}{own}Sec-Fetch-Site: cross-site\r\n"), "another site"),
        (format!("{session}{kind}{own}Sec-Fetch-Site: same-site\r\n"), "a sister site"),
    ] {
        let got = site.ask("POST", "/api/command", &lines, &hold.to_string()).await;
        assert_eq!(got.status, 403, "{why}: {}", got.body);
        let got =
            site.ask("POST", "/api/login", &lines, &json!({"token": ADMIN}).to_string()).await;
        assert_eq!(got.status, 403, "{why}: {}", got.body);
    }
    let got = site.ask("POST", "/api/command", &format!("{session}{own}"), "command=HOLD").await;
    assert_eq!(got.status, 415, "a form");
    let cookie = session.split_inclusive("\r\n").next().unwrap();
    for csrf in ["", "X-Pgimbal-Csrf: \r\n", "X-Pgimbal-Csrf: 00\r\n"] {
        let got = site.post("/api/command", &format!("{cookie}{csrf}"), &hold).await;
        assert_eq!(got.status, 403, "{csrf}: {}", got.body);
        let _ = site.post("/api/logout", &format!("{cookie}{csrf}"), &json!({})).await;
    }
    let bearer = format!("Authorization: Bearer {ADMIN}\r\n");
    assert_eq!(site.post("/api/command", &bearer, &hold).await.status, 401);
    let viewer = site.session(VIEW).await;
    assert_eq!(site.post("/api/command", &viewer, &hold).await.status, 403);
    for wrong in
        [json!({"command": "SHUTDOWN", "target": ""}), json!({"command": "HOLD"}), json!([])]
    {
        assert_eq!(site.post("/api/command", &session, &wrong).await.status, 400, "{wrong}");
    }
    let large = json!({"command": "HOLD", "target": "x".repeat(MAX_BODY)});
    assert_eq!(site.post("/api/command", &session, &large).await.status, 413);
    let got = site.post("/api/command", &session, &hold).await;
    assert_eq!(got.status, 200, "{}", got.body);
    let outcome = got.json();
    assert_eq!(outcome["ok"], false);
    assert!(outcome["said"].as_str().unwrap().contains("main"), "{outcome}");
}

#[tokio::test]
async fn paths_and_methods() {
    let site = Site::open(true, None, None).await;
    for path in ["/api", "/api/", "/api/none", "/index.html"] {
        assert_eq!(site.get(path, "").await.status, 404, "{path}");
    }
    for (method, path, allowed) in [
        ("POST", "/", "GET, HEAD"),
        ("DELETE", "/api/tables", "GET, HEAD"),
        ("GET", "/api/login", "POST"),
        ("PUT", "/api/command", "POST"),
    ] {
        let got = site.ask(method, path, "", "").await;
        assert_eq!((got.status, got.header("allow")), (405, Some(allowed)), "{method} {path}");
    }
    for path in ["/", "/api/tables"] {
        let (get, head) = (site.get(path, "").await, site.ask("HEAD", path, "", "").await);
        assert_eq!((head.status, &*head.body), (200, ""));
        assert_eq!(head.header("content-length"), get.header("content-length"), "{path}");
    }
}

#[tokio::test]
async fn many_open_pages_cost_one_look() {
    let cached = Cached { limit: Duration::from_secs(60), made: Mutex::default() };
    let mut looks = 0;
    for _ in 0..3 {
        let made = cached.get(async {
            looks += 1;
            json!(looks)
        });
        assert_eq!(made.await, "1");
    }
    cached.forget().await;
    assert_eq!(cached.get(async { json!(2) }).await, "2");
}
