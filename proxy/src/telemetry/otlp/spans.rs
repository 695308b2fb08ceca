//! What spans are made of: samples of workers, rotations, failovers.
//!
//! No span has a text that a client has sent, nor anything of a password.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use pgimbal_pooler::sample::{Sample, Sampled};

use super::export::{number, text};
use crate::topology::{ClusterStatus, FailoverStatus};

/// How long after a failover its effects on clients are counted; its span is made then.
const SETTLED: Duration = Duration::from_secs(5);

/// One moment on both clocks, by which others are translated.
pub(super) struct Clock {
    instant: Instant,
    wall: SystemTime,
}

impl Clock {
    pub(super) fn now() -> Self {
        Self { instant: Instant::now(), wall: SystemTime::now() }
    }

    fn wall(&self, at: Instant) -> SystemTime {
        self.wall.checked_sub(self.instant.saturating_duration_since(at)).unwrap_or(UNIX_EPOCH)
    }
}

/// The spans of a transaction or login: one for the whole, and where a client has waited one for
/// each part below it, `wait` and `run`.
pub(super) fn of_sample(database: &str, user: &str, sample: &Sample, clock: &Clock) -> Vec<Span> {
    let attributes = vec![
        text("db.system.name", "postgresql"),
        text("db.namespace", database),
        text("pgimbal.user", user),
    ];
    let (name, kind) = match sample.what {
        Sampled::Login => ("login", SpanKind::Server),
        Sampled::Transaction => ("transaction", SpanKind::Client),
    };
    let [began, ended] = [sample.began, sample.ended].map(|at| clock.wall(at));
    let Some((asked, linked)) = sample.wait else {
        return vec![span(name, kind, (began, ended), attributes)];
    };
    let [asked, linked] = [asked, linked].map(|at| clock.wall(at));
    let whole = span(name, kind, (asked, ended), attributes);
    let part = |name, times| Span {
        trace_id: whole.trace_id.clone(),
        parent_span_id: whole.span_id.clone(),
        ..span(name, SpanKind::Internal, times, Vec::new())
    };
    let parts = [part("wait", (asked, linked)), part("run", (began, ended))];
    [vec![whole], parts.into()].concat()
}

/// The span of a rotation: from the time at which the source has made the password, where it is
/// known, to the time at which pgimbal has learned it.
pub(super) fn of_rotation(user: &str, made: Option<SystemTime>, learned: SystemTime) -> Span {
    let began = made.unwrap_or(learned).min(learned);
    span("rotation", SpanKind::Internal, (began, learned), vec![text("pgimbal.user", user)])
}

/// How many failovers of each cluster have got their span.
#[derive(Debug, Default)]
pub(super) struct Failovers(BTreeMap<Arc<str>, u64>);

impl Failovers {
    /// The spans of those that have none yet and whose effects are known by `now`.
    pub(super) fn new_spans(&mut self, clusters: &[ClusterStatus], now: SystemTime) -> Vec<Span> {
        let mut spans = Vec::new();
        for cluster in clusters {
            let known = self.0.entry(Arc::clone(&cluster.name)).or_default();
            let is_open = |failover: &&FailoverStatus| {
                failover.started_at + failover.duration + SETTLED > now
            };
            let open = cluster.failovers.iter().rev().take_while(is_open).count();
            let settled = cluster.failovers_total.saturating_sub(open as u64);
            let new = usize::try_from(settled.saturating_sub(*known)).unwrap_or(usize::MAX);
            let list = &cluster.failovers[..cluster.failovers.len() - open];
            let list = &list[list.len().saturating_sub(new)..];
            spans.extend(list.iter().map(|failover| of_failover(&cluster.name, failover)));
            *known = settled.max(*known);
        }
        spans
    }
}

fn of_failover(cluster: &str, failover: &FailoverStatus) -> Span {
    let counts = failover.counts;
    let attributes = vec![
        text("pgimbal.cluster", cluster),
        text("pgimbal.from", &failover.from),
        text("pgimbal.to", &failover.to),
        number("pgimbal.timeline", failover.timeline.into()),
        text("pgimbal.why", &failover.why),
        number("pgimbal.held", counts.held),
        number("pgimbal.rerun", counts.rerun),
        number("pgimbal.failed", counts.failed),
        number("pgimbal.outcome_unknown", counts.outcome_unknown),
    ];
    let times = (failover.started_at, failover.started_at + failover.duration);
    span("failover", SpanKind::Internal, times, attributes)
}

/// A span of a trace of its own.
fn span(
    name: &str,
    kind: SpanKind,
    (began, ended): (SystemTime, SystemTime),
    attributes: Vec<KeyValue>,
) -> Span {
    Span {
        trace_id: rand::random::<[u8; 16]>().into(),
        span_id: rand::random::<[u8; 8]>().into(),
        name: name.to_owned(),
        kind: kind.into(),
        start_time_unix_nano: nanos(began),
        end_time_unix_nano: nanos(ended),
        attributes,
        ..Span::default()
    }
}

/// Nanoseconds since 1970.
fn nanos(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}

#[cfg(test)]
mod tests {
    use pgimbal_pooler::ids::PoolId;

    use super::*;

    #[test]
    fn a_transaction_with_a_wait_is_a_span_with_two_parts() {
        let clock = Clock::now();
        let at = |millis| clock.instant - Duration::from_millis(millis);
        let (wait, began, ended) = (Some((at(50), at(20))), at(19), at(4));
        let what = Sampled::Transaction;
        let sample = Sample { pool: PoolId(0), what, wait, began, ended };
        let spans = of_sample("shop", "ann", &sample, &clock);
        let told: Vec<_> = spans
            .iter()
            .map(|span| {
                let lasted = span.end_time_unix_nano - span.start_time_unix_nano;
                (&*span.name, lasted / 1_000_000, span.parent_span_id == spans[0].span_id)
            })
            .collect();
        assert_eq!(told, [("transaction", 46, false), ("wait", 30, true), ("run", 15, true)]);
        assert!(spans.iter().all(|span| span.trace_id == spans[0].trace_id));
        let alone = Sample { wait: None, what: Sampled::Login, ..sample };
        let spans = of_sample("shop", "ann", &alone, &clock);
        assert_eq!((spans.len(), &*spans[0].name), (1, "login"));
    }

    #[test]
    fn each_failover_has_one_span_once_its_effects_are_counted() {
        let mut clusters = [ClusterStatus::example()];
        let (mut failovers, now) = (Failovers::default(), SystemTime::now());
        assert!(failovers.new_spans(&clusters, now).is_empty(), "effects are still counted");
        let later = now + Duration::from_secs(10);
        let spans = failovers.new_spans(&clusters, later);
        assert_eq!(spans.len(), 1);
        let lasted = spans[0].end_time_unix_nano - spans[0].start_time_unix_nano;
        assert_eq!((&*spans[0].name, lasted), ("failover", 305_000_000));
        assert!(spans[0].attributes.contains(&number("pgimbal.held", 4)));
        assert!(failovers.new_spans(&clusters, later).is_empty(), "it has its span");
        let again = FailoverStatus { started_at: later, ..clusters[0].failovers[0].clone() };
        clusters[0].failovers.push(again);
        clusters[0].failovers_total += 1;
        assert!(failovers.new_spans(&clusters, later).is_empty());
        assert_eq!(failovers.new_spans(&clusters, later + Duration::from_secs(10)).len(), 1);
    }
}
