//! A minimal HTTP client and a reader of Prometheus pages.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::until::SOON;

/// Sends `GET path` to 127.0.0.1 and returns the status code and the body.
///
/// # Panics
/// When nothing listens, or the answer is not HTTP.
#[must_use]
pub fn get(port: u16, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("a listening port");
    stream.set_read_timeout(Some(SOON)).expect("a time limit");
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("a request");
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).expect("an answer");
    let text = String::from_utf8_lossy(&bytes);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no HTTP: {text}"));
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
    (status, body.to_owned())
}

/// The sum of the samples of `name` in a Prometheus page whose labels contain all of `labels`, such
/// as `mode="transaction"`. `None` when there is no such sample.
///
/// # Panics
/// When a sample has no number.
#[must_use]
pub fn metric(page: &str, name: &str, labels: &[&str]) -> Option<f64> {
    let samples: Vec<f64> = page
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.rsplit_once(' '))
        .filter(|(series, _)| series.split('{').next() == Some(name))
        .filter(|(series, _)| labels.iter().all(|label| series.contains(label)))
        .map(|(_, value)| value.parse().expect("a number"))
        .collect();
    if samples.is_empty() { None } else { Some(samples.iter().sum()) }
}
