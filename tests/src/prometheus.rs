//! Debian's Prometheus, which scrapes pgimbals once a second and evaluates rules as often.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{Read, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::process::Signal;
use serde_json::Value;

use crate::port::free_port;
use crate::process::{self, Directory, Process};
use crate::until::{SOON, eventually};

/// A running Prometheus. Its only job is `pgimbal`.
pub struct Prometheus {
    port: u16,
    targets: usize,
    _process: Process,
    _directory: Directory,
}

/// One series of the answer to a query, with its value.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// The labels, the name of the metric among them as `__name__`.
    pub labels: BTreeMap<String, String>,
    /// The value.
    pub value: f64,
}

/// The time now, in seconds of Unix time.
///
/// # Panics
/// When the clock is before 1970.
#[must_use]
pub fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_secs_f64()
}

impl Prometheus {
    /// Starts it with the file `rules` before pgimbals with these HTTP ports, and returns when it
    /// has scraped each of them.
    ///
    /// # Panics
    /// When there is no `prometheus`, or it does not scrape them in time.
    #[must_use]
    pub fn scraping(ports: &[u16], rules: &Path) -> Self {
        let directory = process::directory("prometheus");
        let port = free_port();
        let targets: Vec<String> = ports.iter().map(|p| format!("\"127.0.0.1:{p}\"")).collect();
        let text = format!(
            "global: {{ scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s }}\n\
             rule_files: [\"{}\"]\n\
             scrape_configs:\n  - job_name: pgimbal\n    static_configs:\n      \
             - targets: [{}]\n",
            rules.display(),
            targets.join(", ")
        );
        let file = directory.join("prometheus.yml");
        std::fs::write(&file, text).expect("a configuration");
        let mut command = Command::new("prometheus");
        command
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", directory.join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .arg("--log.level=warn");
        let mut process = Process::start(command, &directory, Signal::KILL);
        process.wait_until_it_listens("prometheus", &[port]);
        let prometheus =
            Self { port, targets: ports.len(), _process: process, _directory: directory };
        let _ = prometheus.settled();
        prometheus
    }

    /// Waits until every pgimbal was scraped after this was called, and returns the time at which
    /// the last one was.
    ///
    /// # Panics
    /// When one is not scraped in time.
    #[must_use]
    pub fn settled(&self) -> f64 {
        let called = now();
        let mut last = called;
        eventually("everything is scraped", SOON * 4, || {
            let scraped = self.at("timestamp(pgimbal_build_info)", now());
            last = scraped.iter().map(|sample| sample.value).fold(called, f64::max);
            scraped.len() == self.targets && scraped.iter().all(|sample| sample.value > called)
        });
        last
    }

    /// The answer to a query as of `time`, sorted by labels; NaN is left out. Empty while it
    /// starts.
    ///
    /// # Panics
    /// When the query is refused.
    #[must_use]
    pub fn at(&self, query: &str, time: f64) -> Vec<Sample> {
        let Some(answer) = self.get(&format!("query={}&time={time:.3}", encoded(query))) else {
            return Vec::new();
        };
        assert_eq!(answer["status"], "success", "{query}: {answer}");
        let result = answer["data"]["result"].as_array().expect("a vector");
        let mut samples: Vec<Sample> = result.iter().map(sample).collect();
        samples.retain(|sample| !sample.value.is_nan());
        samples.sort_by(|a, b| a.labels.cmp(&b.labels));
        samples
    }

    /// HTTP/1.0, so that the answer comes in one piece. `None` while it says 503.
    fn get(&self, query: &str) -> Option<Value> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).expect("a listening port");
        stream.set_read_timeout(Some(SOON * 4)).expect("a time limit");
        let request = format!("GET /api/v1/query?{query} HTTP/1.0\r\nHost: localhost\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("a request");
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).expect("an answer");
        let text = String::from_utf8_lossy(&bytes);
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no HTTP: {text}"));
        if head.split(' ').nth(1) == Some("503") {
            return None;
        }
        Some(serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {text}")))
    }
}

fn sample(series: &Value) -> Sample {
    let labels = series["metric"].as_object().expect("labels");
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    Sample {
        labels: labels.iter().map(|(name, value)| (name.clone(), text(value))).collect(),
        value: text(&series["value"][1]).parse().expect("a number"),
    }
}

/// Percent encoding of everything but letters and digits.
fn encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}
