use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use pgimbal_config::Config;
use pgimbal_pooler::pool::stats::{PoolSnapshot, WorkerSnapshot};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

use super::*;
use crate::admin::collect::{Phase, ProcessStats, SnapshotRequest};
use crate::admin::page::tests::page_of;

struct Site {
    address: SocketAddr,
    process: Arc<ProcessStats>,
}

impl Site {
    /// With one worker that answers, or with one that never does.
    async fn open(worker_answers: bool) -> Self {
        let (sender, mut requests) = mpsc::unbounded_channel::<SnapshotRequest>();
        tokio::spawn(async move {
            let mut unanswered = Vec::new();
            while let Some(request) = requests.recv().await {
                if worker_answers {
                    let pool = PoolSnapshot { database: "shop".into(), ..Default::default() };
                    let answer = WorkerSnapshot { pools: vec![pool], ..Default::default() };
                    request.reply.send(answer).unwrap();
                } else {
                    unanswered.push(request);
                }
            }
        });
        let process = Arc::new(ProcessStats::new(SystemTime::now(), 10));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let collector = Collector::new(vec![sender], Arc::clone(&process));
        let page = page_of(&collector, Config::default(), false);
        tokio::spawn(serve(listener, collector, page));
        Self { address, process }
    }

    async fn ask(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        String::from_utf8(answer).unwrap()
    }

    async fn get(&self, path: &str) -> String {
        self.ask(&format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")).await
    }
}

#[tokio::test]
async fn metrics_come_as_text_for_prometheus() {
    let answer = Site::open(true).await.get("/metrics").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains("content-type: text/plain; version=0.0.4"), "{answer}");
    assert!(answer.contains("pgimbal_clients_idle{database=\"shop\",user=\"\"} 0\n"), "{answer}");
}

#[tokio::test]
async fn livez_answers_whatever_the_phase_and_the_workers() {
    let site = Site::open(false).await;
    for phase in Phase::ALL {
        site.process.enter(*phase);
        assert!(site.get("/livez").await.ends_with("\r\n\r\nok\n"));
    }
}

#[tokio::test]
async fn metrics_come_although_a_worker_is_stuck() {
    let answer = Site::open(false).await.get("/metrics").await;
    assert!(answer.contains("pgimbal_workers_silent 1\n"), "{answer}");
}

#[tokio::test]
async fn readyz_says_why_not() {
    let site = Site::open(true).await;
    assert!(site.get("/readyz").await.starts_with("HTTP/1.1 503 "));
    site.process.enter(Phase::Serving);
    assert!(site.get("/readyz").await.starts_with("HTTP/1.1 200 "));
    site.process.set_accept_paused(true);
    assert!(site.get("/readyz").await.contains("out of file descriptors"));
    site.process.set_accept_paused(false);
    site.process.enter(Phase::Draining);
    let answer = site.get("/readyz").await;
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("draining"), "{answer}");
}

#[tokio::test]
async fn other_paths_and_methods_are_told_what_there_is() {
    let site = Site::open(true).await;
    let answer = site.get("/").await;
    assert!(answer.starts_with("HTTP/1.1 404 ") && answer.contains("/readyz"), "{answer}");
    let answer = site.ask("POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 405 ") && answer.contains("allow: GET"), "{answer}");
    let answer = site.ask("HEAD /livez HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("\r\n\r\n"), "{answer}");
}

#[tokio::test]
async fn a_head_that_is_too_large_or_no_http_is_refused() {
    let site = Site::open(true).await;
    let large = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(2 * MAX_HEAD));
    assert!(site.ask(&large).await.starts_with("HTTP/1.1 431 "));
    assert!(site.ask("\0\0\0\x08\x04\u{12}").await.starts_with("HTTP/1.1 400 "));
    assert!(site.get("/livez").await.ends_with("ok\n"));
}

#[tokio::test]
async fn requests_that_never_end_are_closed_and_keep_nobody_out() {
    let site = Site::open(true).await;
    site.process.enter(Phase::Serving);
    let mut slow = Vec::new();
    for half in [&b""[..], b"GET /livez HTTP/1.1\r\n"].repeat(100) {
        let mut stream = TcpStream::connect(site.address).await.unwrap();
        stream.write_all(half).await.unwrap();
        slow.push(stream);
    }
    let begun = tokio::time::Instant::now();
    assert!(site.get("/livez").await.ends_with("ok\n"));
    assert!(site.get("/readyz").await.ends_with("ready\n"));
    assert!(begun.elapsed() < READ_TIME, "a probe waits until the others have timed out");
    for mut stream in slow {
        let mut answer = Vec::new();
        // Closed in order, or reset with what it had sent unread.
        let _ = stream.read_to_end(&mut answer).await;
    }
}
