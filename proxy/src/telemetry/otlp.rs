//! The task that sends metrics and traces, each `otlp_interval`.
//!
//! Metrics are those of `/metrics`, from the same table. They are sums since the start of the
//! process, so that a request that was lost leaves no gap; nothing is sent again. A collector that
//! is away costs traces, and a line of the log.

mod export;
mod spans;

use std::time::{Duration, SystemTime};

use opentelemetry_proto::tonic::trace::v1::Span;
use pgimbal_config::TelemetryConfig;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, timeout};

use self::export::Exporter;
use self::spans::{Clock, Failovers};
use super::error::TelemetryError;
use super::traces::{Event, Traces};
use crate::admin::collect::{Collector, Detail};
use crate::admin::metrics::families;

/// The most events that wait for the task: some hundred bytes each, so a MB. A second's worth of
/// transactions of a busy process.
const EVENTS_LIMIT: usize = 4_096;

/// Spans that are sent at once, when so many have come before the interval ends; a request has some
/// 100 KB then.
const BATCH: usize = 512;

/// Time for the last metrics and traces, when the process ends: it must not end later for a
/// collector that is away.
const LAST_TIME: Duration = Duration::from_secs(2);

/// What sends, before and while it does.
#[derive(Debug)]
pub(super) struct Sender {
    /// What the task needs; `None` once it runs.
    prepared: Option<Task>,
    running: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

impl Sender {
    pub(super) fn new(
        endpoint: &str,
        config: &TelemetryConfig,
    ) -> Result<(Self, Traces), TelemetryError> {
        let exporter = Exporter::new(endpoint)?;
        let (traces, events) = Traces::new(config.trace_millionths, EVENTS_LIMIT);
        let task = Task {
            exporter,
            events,
            traces: traces.clone(),
            interval: config.otlp_interval,
            spans: Vec::new(),
            rotations: Vec::new(),
            failovers: Failovers::default(),
            told_dropped: 0,
        };
        Ok((Self { prepared: Some(task), running: None }, traces))
    }

    pub(super) fn begin(&mut self, collector: Collector) {
        if let Some(task) = self.prepared.take() {
            let (stop, stopped) = oneshot::channel();
            self.running = Some((stop, tokio::spawn(task.run(collector, stopped))));
        }
    }

    pub(super) async fn finish(self) {
        let Some((stop, mut task)) = self.running else { return };
        drop(stop);
        if timeout(LAST_TIME, &mut task).await.is_err() {
            task.abort();
        }
    }
}

#[derive(Debug)]
struct Task {
    exporter: Exporter,
    events: mpsc::Receiver<Event>,
    traces: Traces,
    interval: Duration,
    /// Spans that were not sent yet.
    spans: Vec<Span>,
    /// Users whose password has rotated, and when: their spans need the passwords' ages.
    rotations: Vec<(Box<str>, SystemTime)>,
    failovers: Failovers,
    /// How many dropped events the log has told of.
    told_dropped: u64,
}

impl Task {
    async fn run(mut self, collector: Collector, mut stopped: oneshot::Receiver<()>) {
        let mut ticks = interval(self.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                _ = &mut stopped => break,
                _ = ticks.tick() => self.send_all(&collector).await,
                Some(event) = self.events.recv() => {
                    self.take(event);
                    if self.spans.len() >= BATCH {
                        self.send_spans().await;
                    }
                }
            }
        }
        while let Ok(event) = self.events.try_recv() {
            self.take(event);
        }
        self.send_all(&collector).await;
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Sampled { database, user, sample } => {
                let clock = Clock::now();
                self.spans.extend(spans::of_sample(&database, &user, &sample, &clock));
            }
            Event::Rotated { user, at } => self.rotations.push(((&*user).into(), at)),
        }
    }

    async fn send_all(&mut self, collector: &Collector) {
        let snapshot = collector.snapshot(Detail::Totals).await;
        let now = SystemTime::now();
        for (user, at) in self.rotations.drain(..) {
            let status = snapshot.credentials.users.iter().find(|known| *known.user == *user);
            let newest = status.and_then(|status| status.generations.first());
            let made = newest.and_then(|newest| now.checked_sub(newest.age));
            self.spans.push(spans::of_rotation(&user, made, at));
        }
        self.spans.extend(self.failovers.new_spans(&snapshot.clusters, now));
        self.exporter.send_metrics(families(&snapshot, now)).await;
        self.send_spans().await;
        let dropped = self.traces.dropped();
        if dropped > self.told_dropped {
            let count = dropped - self.told_dropped;
            tracing::warn!(count, "traces were left out, because more came than can be sent");
            self.told_dropped = dropped;
        }
    }

    async fn send_spans(&mut self) {
        let mut spans = std::mem::take(&mut self.spans);
        while !spans.is_empty() {
            let rest = spans.split_off(spans.len().min(BATCH));
            self.exporter.send_spans(std::mem::replace(&mut spans, rest)).await;
        }
    }
}
