//! Questions to sources, a few at a time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pgimbal_auth::source::Source;
use pgimbal_auth::{Answer, SourceError};
use tokio::task::{JoinError, JoinSet};

/// Questions that are out at a time: enough for a thousand roles in a second or two, and no storm.
const AT_ONCE: usize = 16;

/// What became of a question.
#[derive(Debug)]
pub(super) struct Fetched {
    pub(super) role: Arc<str>,
    /// Which question of the role it was.
    pub(super) serial: u64,
    pub(super) sent: Instant,
    pub(super) kind: &'static str,
    pub(super) result: Result<Answer, SourceError>,
}

/// The questions that are out.
#[derive(Debug, Default)]
pub(super) struct Fetches {
    running: JoinSet<Fetched>,
    asked: u64,
    pub(super) counts: FetchCounts,
}

/// How questions went, for metrics.
#[derive(Clone, Debug, Default)]
pub struct FetchCounts {
    /// By the source's kind and the result.
    pub results: BTreeMap<(&'static str, &'static str), u64>,
    /// How long all of them took together.
    pub time: Duration,
    /// How many they were.
    pub count: u64,
}

impl Fetches {
    /// Whether one more may be sent.
    pub(super) fn has_room(&self) -> bool {
        self.running.len() < AT_ONCE
    }

    /// Asks. The number of the question, which its answer has too.
    pub(super) fn start(&mut self, role: Arc<str>, source: Arc<dyn Source>, sent: Instant) -> u64 {
        self.asked += 1;
        let serial = self.asked;
        self.running.spawn(async move {
            let result = source.fetch().await;
            Fetched { role, serial, sent, kind: source.kind(), result }
        });
        serial
    }

    /// The next answer; `None` while none is out.
    pub(super) async fn next(&mut self) -> Option<Result<Fetched, JoinError>> {
        let done = self.running.join_next().await?;
        if let Ok(fetched) = &done {
            let label = label(&fetched.result);
            *self.counts.results.entry((fetched.kind, label)).or_default() += 1;
            self.counts.time += fetched.sent.elapsed();
            self.counts.count += 1;
        }
        Some(done)
    }
}

/// The result as a metric's label.
pub(super) fn label(result: &Result<Answer, SourceError>) -> &'static str {
    result.as_ref().map_or_else(SourceError::result_label, |_| "ok")
}
