//! The families of the metrics page as OTLP has them, for a collector: the same names, labels and
//! values.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Key, KeyName, Metadata, Recorder, SharedString, Unit,
};
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;
use opentelemetry_proto::tonic::metrics::v1::{
    self as otlp, AggregationTemporality, HistogramDataPoint, Metric, NumberDataPoint,
};
use pgimbal_pooler::pool::histogram::{BOUNDS, Histogram};
use pgimbal_pooler::pool::stats::PoolSnapshot;

use super::text::{FETCHES, HELD, NANOS, TIMES};
use crate::admin::collect::Snapshot;

const CUMULATIVE: i32 = AggregationTemporality::Cumulative as i32;

/// All families of the snapshot, which was taken at `now`. Counters count from the start of the
/// process.
pub(crate) fn families(snapshot: &Snapshot, now: SystemTime) -> Vec<Metric> {
    let times = Times { start: nanos(snapshot.process.started_at), now: nanos(now) };
    let samples = Samples::default();
    let counted = super::record(snapshot, &samples);
    let mut families = samples.families(times);
    for (name, help, of) in TIMES {
        let points = counted.iter().map(|pool| times.histogram(pool, of(&pool.stats)));
        let data_points = points.collect();
        let data = otlp::Histogram { data_points, aggregation_temporality: CUMULATIVE };
        families.push(metric(name, help, Data::Histogram(data)));
    }
    let held = counted.iter().map(|pool| {
        let seconds = pool.stats.held_nanos as f64 / NANOS;
        times.point(of_pool(pool), Value::AsDouble(seconds))
    });
    families.push(metric(HELD.0, HELD.1, sum(held.collect())));
    let fetches = &snapshot.credentials.fetches;
    if fetches.count > 0 {
        let time = Value::AsDouble(fetches.time.as_secs_f64());
        for (part, value) in [("sum", time), ("count", Value::AsInt(whole(fetches.count)))] {
            let name = format!("{}_{part}", FETCHES.0);
            families.push(metric(&name, FETCHES.1, sum(vec![times.point(Vec::new(), value)])));
        }
    }
    families.retain(|family| family.data.as_ref().is_some_and(has_samples));
    families
}

const fn has_samples(data: &Data) -> bool {
    match data {
        Data::Sum(sum) => !sum.data_points.is_empty(),
        Data::Histogram(histogram) => !histogram.data_points.is_empty(),
        _ => true,
    }
}

fn metric(name: &str, help: &str, data: Data) -> Metric {
    let (name, description) = (name.to_owned(), help.to_owned());
    Metric { name, description, data: Some(data), ..Metric::default() }
}

const fn sum(data_points: Vec<NumberDataPoint>) -> Data {
    Data::Sum(otlp::Sum { data_points, aggregation_temporality: CUMULATIVE, is_monotonic: true })
}

fn whole(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// The start of the process and the time of the snapshot, in nanoseconds since 1970.
#[derive(Clone, Copy)]
struct Times {
    start: u64,
    now: u64,
}

impl Times {
    fn point(self, attributes: Vec<KeyValue>, value: Value) -> NumberDataPoint {
        NumberDataPoint {
            attributes,
            start_time_unix_nano: self.start,
            time_unix_nano: self.now,
            value: Some(value),
            ..NumberDataPoint::default()
        }
    }

    fn histogram(self, pool: &PoolSnapshot, times: &Histogram) -> HistogramDataPoint {
        let mut below = 0;
        let inside = |(_, cumulated)| cumulated - std::mem::replace(&mut below, cumulated);
        let mut bucket_counts: Vec<u64> = times.cumulated().map(inside).collect();
        bucket_counts.push(times.count() - below);
        HistogramDataPoint {
            attributes: of_pool(pool),
            start_time_unix_nano: self.start,
            time_unix_nano: self.now,
            count: times.count(),
            sum: Some(times.sum_nanos() as f64 / NANOS),
            bucket_counts,
            explicit_bounds: BOUNDS.iter().map(Duration::as_secs_f64).collect(),
            ..HistogramDataPoint::default()
        }
    }
}

fn of_pool(pool: &PoolSnapshot) -> Vec<KeyValue> {
    vec![attribute("database", &pool.database), attribute("user", &pool.user)]
}

fn attribute(key: &str, value: &str) -> KeyValue {
    let value = any_value::Value::StringValue(value.to_owned());
    let value = Some(AnyValue { value: Some(value) });
    KeyValue { key: key.to_owned(), value, ..KeyValue::default() }
}

fn nanos(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}

type Cells = RefCell<Vec<(Key, Arc<Cell>)>>;

/// What the page's own functions record, kept as it comes.
#[derive(Default)]
struct Samples {
    help: RefCell<BTreeMap<String, SharedString>>,
    counters: Cells,
    gauges: Cells,
}

/// One value: a count, or the bits of a number.
#[derive(Default)]
struct Cell(AtomicU64);

impl CounterFn for Cell {
    fn increment(&self, value: u64) {
        self.0.fetch_add(value, Relaxed);
    }

    fn absolute(&self, value: u64) {
        self.0.store(value, Relaxed);
    }
}

impl GaugeFn for Cell {
    fn increment(&self, value: f64) {
        self.set(f64::from_bits(self.0.load(Relaxed)) + value);
    }

    fn decrement(&self, value: f64) {
        GaugeFn::increment(self, -value);
    }

    fn set(&self, value: f64) {
        self.0.store(value.to_bits(), Relaxed);
    }
}

impl Recorder for Samples {
    fn describe_counter(&self, key: KeyName, _: Option<Unit>, description: SharedString) {
        self.help.borrow_mut().insert(key.as_str().to_owned(), description);
    }

    fn describe_gauge(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {
        self.describe_counter(key, unit, description);
    }

    fn describe_histogram(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {
        self.describe_counter(key, unit, description);
    }

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(add_cell(&self.counters, key))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(add_cell(&self.gauges, key))
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> metrics::Histogram {
        // The page records none: those of pools are counted in buckets already.
        metrics::Histogram::noop()
    }
}

fn add_cell(cells: &Cells, key: &Key) -> Arc<Cell> {
    let cell = Arc::<Cell>::default();
    cells.borrow_mut().push((key.clone(), Arc::clone(&cell)));
    cell
}

impl Samples {
    fn families(self, times: Times) -> Vec<Metric> {
        let help = self.help.into_inner();
        let made = |name: &str, data| metric(name, help.get(name).map_or("", |help| help), data);
        let points = |cells: Cells, value: fn(u64) -> Value| {
            let mut families = BTreeMap::<String, Vec<NumberDataPoint>>::new();
            for (key, cell) in cells.into_inner() {
                let point = times.point(attributes(&key), value(cell.0.load(Relaxed)));
                families.entry(key.name().to_owned()).or_default().push(point);
            }
            families
        };
        let counters = points(self.counters, |count| Value::AsInt(whole(count)));
        let gauges = points(self.gauges, |bits| Value::AsDouble(f64::from_bits(bits)));
        let counters = counters.into_iter().map(|(name, points)| made(&name, sum(points)));
        let gauges = gauges
            .into_iter()
            .map(|(name, data_points)| made(&name, Data::Gauge(otlp::Gauge { data_points })));
        counters.chain(gauges).collect()
    }
}

/// The labels of a sample, whose backslashes were doubled for the page.
fn attributes(key: &Key) -> Vec<KeyValue> {
    let plain = |value: &str| value.replace(r"\\", r"\");
    key.labels().map(|label| attribute(label.key(), &plain(label.value()))).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::admin::metrics::render;
    use crate::admin::metrics::tests::{full_snapshot, read_back, snapshot};

    type Numbers = BTreeMap<(String, Vec<(String, String)>), f64>;

    /// Every sample that is a number, by its family and labels.
    fn numbers(families: &[Metric]) -> Numbers {
        let mut numbers = BTreeMap::new();
        for family in families {
            let points = match &family.data {
                Some(Data::Sum(sum)) => &sum.data_points[..],
                Some(Data::Gauge(gauge)) => &gauge.data_points[..],
                _ => continue,
            };
            for point in points {
                let value = match point.value {
                    Some(Value::AsInt(value)) => value as f64,
                    Some(Value::AsDouble(value)) => value,
                    None => panic!("{} without a value", family.name),
                };
                let key = (family.name.clone(), labels(&point.attributes));
                assert!(numbers.insert(key, value).is_none(), "twice: {}", family.name);
            }
        }
        numbers
    }

    fn labels(attributes: &[KeyValue]) -> Vec<(String, String)> {
        let text = |attribute: &KeyValue| match &attribute.value {
            Some(AnyValue { value: Some(any_value::Value::StringValue(text)) }) => text.clone(),
            other => panic!("{other:?}"),
        };
        let mut labels: Vec<_> =
            attributes.iter().map(|one| (one.key.clone(), text(one))).collect();
        labels.sort();
        labels
    }

    #[test]
    fn every_sample_of_the_page_is_sent_with_its_value() {
        let snapshot = full_snapshot();
        let families = families(&snapshot, SystemTime::now());
        let sent = numbers(&families);
        let mut page = Numbers::new();
        for ((name, mut labels), value) in read_back(&render(&snapshot)) {
            labels.sort();
            if TIMES.iter().all(|(times, ..)| !name.starts_with(times)) {
                page.insert((name, labels), value);
            }
        }
        let keys = |numbers: &Numbers| numbers.keys().cloned().collect::<BTreeSet<_>>();
        assert_eq!(keys(&sent), keys(&page));
        assert!(page.len() > 50, "{page:?}");
        for (key, value) in &page {
            // What the kernel says of the process changes from one look to the next.
            let moves = matches!(&*key.0, "pgimbal_memory_bytes" | "pgimbal_open_files");
            assert!(moves || (sent[key] - value).abs() < 1e-6, "{key:?}: {value}");
        }
        assert!(families.iter().all(|family| !family.description.is_empty()));
    }

    #[test]
    fn histograms_have_a_count_for_each_bucket_and_names_are_as_they_are() {
        let mut pool = PoolSnapshot { database: r"d\".into(), ..PoolSnapshot::default() };
        for millis in [0, 3, 3, 60_000] {
            pool.stats.query_times.record(Duration::from_millis(millis));
        }
        let families = families(&snapshot(vec![pool]), SystemTime::now());
        let data = |name: &str| {
            let family = families.iter().find(|family| family.name == name);
            family.and_then(|family| family.data.clone()).expect("a family")
        };
        let Data::Histogram(query) = data("pgimbal_query_seconds") else { panic!("{families:?}") };
        let point = &query.data_points[0];
        assert_eq!((point.count, point.sum), (4, Some(60.006)));
        assert_eq!(point.bucket_counts, [1, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(point.explicit_bounds.len() + 1, point.bucket_counts.len());
        let Data::Gauge(idle) = data("pgimbal_clients_idle") else { panic!("{families:?}") };
        for attributes in [&point.attributes, &idle.data_points[0].attributes] {
            assert_eq!(labels(attributes)[0], ("database".to_owned(), r"d\".to_owned()));
        }
    }
}
