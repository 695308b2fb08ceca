//! What a collector gets from a pgimbal that was built with the feature `otlp`: the collector is
//! the test's own, and reads the protobuf with OpenTelemetry's own messages.
#![allow(clippy::expect_used, reason = "in a test a failed expectation is the point")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::{Metric, number_data_point};
use opentelemetry_proto::tonic::trace::v1::Span;
use pgimbal_tests::pgimbal::Config;
use pgimbal_tests::port::free_port;
use pgimbal_tests::process::directory;
use pgimbal_tests::until::{SOON, eventually};
use pgimbal_tests::{Login, Pgimbal, Postgres};
use prost::Message;
use rustix::process::Signal;

/// What has come, and the bytes of it.
#[derive(Default)]
struct Received {
    /// The metrics of the last request.
    metrics: Vec<Metric>,
    spans: Vec<Span>,
    resource: Vec<KeyValue>,
    bytes: Vec<u8>,
}

/// A collector on a port of its own, until the test ends.
struct Collector {
    port: u16,
    received: Arc<Mutex<Received>>,
}

impl Collector {
    fn start() -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").expect("a port"))
    }

    fn on(listener: TcpListener) -> Self {
        let port = listener.local_addr().expect("an address").port();
        let received = Arc::new(Mutex::new(Received::default()));
        let shared = Arc::clone(&received);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let shared = Arc::clone(&shared);
                thread::spawn(move || serve(stream, &shared));
            }
        });
        Self { port, received }
    }

    /// A pgimbal before this server that sends everything here.
    fn watches(&self, pg: &Postgres, interval: &str) -> Config {
        sending_to(self.port, Config::before(pg), interval)
    }

    fn received<T>(&self, look: impl FnOnce(&Received) -> T) -> T {
        look(&self.received.lock().expect("no test has panicked"))
    }

    /// How many times something was counted in the last metrics: the count of a histogram, or the
    /// value of a counter, over all pools of `app`.
    fn count(&self, name: &str) -> u64 {
        self.received(|received| {
            let family = received.metrics.iter().find(|family| family.name == name);
            match family.and_then(|family| family.data.as_ref()) {
                Some(Data::Histogram(histogram)) => {
                    let points = histogram.data_points.iter();
                    points.filter(|point| is_app(&point.attributes)).map(|point| point.count).sum()
                }
                Some(Data::Sum(sum)) => {
                    let points = sum.data_points.iter().filter(|point| is_app(&point.attributes));
                    let value = |value: Option<number_data_point::Value>| match value {
                        Some(number_data_point::Value::AsInt(value)) => value as u64,
                        _ => 0,
                    };
                    points.map(|point| value(point.value)).sum()
                }
                _ => 0,
            }
        })
    }

    fn spans(&self, name: &str) -> Vec<Span> {
        self.received(|received| {
            received.spans.iter().filter(|span| span.name == name).cloned().collect()
        })
    }
}

fn is_app(attributes: &[KeyValue]) -> bool {
    text(attributes, "database") == Some("app")
}

fn text<'a>(attributes: &'a [KeyValue], key: &str) -> Option<&'a str> {
    let attribute = attributes.iter().find(|attribute| attribute.key == key)?;
    match attribute.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text),
        _ => None,
    }
}

fn millis(span: &Span) -> u64 {
    (span.end_time_unix_nano - span.start_time_unix_nano) / 1_000_000
}

/// Serves one connection: each request is decoded, and answered with 200.
fn serve(stream: TcpStream, received: &Mutex<Received>) {
    let mut reader = BufReader::new(stream.try_clone().expect("a second handle"));
    let mut stream = stream;
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head).unwrap_or(0) == 0 {
                return;
            }
        }
        let length = head
            .lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
            .map_or(0, |(_, value)| value.trim().parse().expect("a length"));
        let mut body = vec![0; length];
        if reader.read_exact(&mut body).is_err() {
            return;
        }
        {
            let mut received = received.lock().expect("no other thread has panicked");
            received.bytes.extend_from_slice(&body);
            if head.starts_with("POST /v1/metrics ") {
                let request = ExportMetricsServiceRequest::decode(&*body).expect("metrics");
                for of_process in request.resource_metrics {
                    received.resource = of_process.resource.expect("a resource").attributes;
                    let scopes = of_process.scope_metrics.into_iter();
                    received.metrics = scopes.flat_map(|scope| scope.metrics).collect();
                }
            } else if head.starts_with("POST /v1/traces ") {
                let request = ExportTraceServiceRequest::decode(&*body).expect("spans");
                let scopes = request.resource_spans.into_iter().flat_map(|of| of.scope_spans);
                received.spans.extend(scopes.flat_map(|scope| scope.spans));
            } else {
                panic!("{head}");
            }
        }
        if stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").is_err() {
            return;
        }
    }
}

fn sending_to(port: u16, config: Config, interval: &str) -> Config {
    config.tables(&format!(
        "[telemetry]\notlp_endpoint = \"http://127.0.0.1:{port}\"\n\
         otlp_interval = \"{interval}\"\ntrace_ratio = 1\n"
    ))
}

fn run(proxy: &Pgimbal, times: usize) {
    let mut client = proxy.client();
    for _ in 0..times {
        client.ok("select 'a text that stays here'");
    }
}

#[test]
fn a_collector_gets_the_metrics_and_a_span_for_each_transaction_and_login() {
    let (pg, collector) = (Postgres::start(), Collector::start());
    let proxy = collector.watches(&pg, "200ms").set("pool_size", 1).start();
    run(&proxy, 20);
    let (mut holder, mut waiter) = (proxy.client(), proxy.client());
    holder.ok("begin");
    waiter.start_query("select 'a text that stays here'");
    proxy.wait_for_waiting(1);
    holder.ok("select pg_sleep(0.1)");
    holder.ok("commit");
    waiter.read_reply().no_error();
    eventually("all was sent", SOON, || {
        collector.count("pgimbal_transactions_total") == 22 && collector.spans("run").len() == 22
    });
    assert_eq!(collector.count("pgimbal_query_seconds"), 24);
    assert_eq!(collector.count("pgimbal_transaction_seconds"), 22);
    assert_eq!(collector.count("pgimbal_login_seconds"), 3);
    assert_eq!(collector.spans("login").len(), 3);
    let transactions = collector.spans("transaction");
    assert_eq!(transactions.len(), 22);
    for span in &transactions {
        assert_eq!(text(&span.attributes, "db.namespace"), Some("app"));
        assert_eq!(text(&span.attributes, "pgimbal.user"), Some("app"));
    }
    // The waiter's wait, and the holder's transaction around it, lasted as long as the sleep.
    let long = |name| collector.spans(name).into_iter().filter(|span| millis(span) >= 100);
    let wait = long("wait").next().expect("a wait");
    let whole = transactions.iter().find(|span| span.span_id == wait.parent_span_id);
    let whole = whole.expect("the transaction of the wait");
    assert_eq!(whole.trace_id, wait.trace_id);
    assert_eq!(whole.start_time_unix_nano, wait.start_time_unix_nano);
    assert!(long("run").count() >= 1);
    collector.received(|received| {
        assert_eq!(text(&received.resource, "service.name"), Some("pgimbal"));
        assert!(text(&received.resource, "service.instance.id").is_some());
        let bytes = String::from_utf8_lossy(&received.bytes);
        assert!(!bytes.contains("stays here"), "the text of a query was sent");
        assert!(!bytes.contains("app-secret"), "a password was sent");
    });
}

#[test]
fn a_rotation_is_a_span_from_the_new_password_to_the_time_it_is_known() {
    let (pg, collector) = (Postgres::start(), Collector::start());
    pg.run("create role shop login password 'the-ebb'");
    let folder = directory("passwords");
    let file = folder.join("shop");
    let put = |password: &str| {
        // Whole at once, as what writes it should do.
        std::fs::write(folder.join("new"), password).expect("a file");
        std::fs::rename(folder.join("new"), &file).expect("the swap");
    };
    put("the-ebb");
    let users = format!("[users.shop]\npassword_file = \"{}\"\n", file.display());
    let proxy = collector.watches(&pg, "200ms").tables(&users).start();
    let mut client = proxy.log_in(&Login::new("shop", "app", "the-ebb"));
    assert_eq!(client.value("select current_user"), "shop");
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("a time after 1970");
    pg.run("alter role shop password 'the-flow'");
    put("the-flow");
    let learned = |span: &Span| u128::from(span.end_time_unix_nano) >= since.as_nanos();
    eventually("its span is sent", SOON, || collector.spans("rotation").iter().any(learned));
    let spans = collector.spans("rotation");
    let rotation = spans.iter().find(|span| learned(span)).expect("a rotation");
    assert_eq!(text(&rotation.attributes, "pgimbal.user"), Some("shop"));
    assert!(rotation.start_time_unix_nano <= rotation.end_time_unix_nano);
    collector.received(|received| {
        let bytes = String::from_utf8_lossy(&received.bytes);
        assert!(!bytes.contains("the-ebb") && !bytes.contains("the-flow"), "a password was sent");
    });
}

#[test]
fn the_last_metrics_are_sent_when_the_process_ends() {
    let (pg, collector) = (Postgres::start(), Collector::start());
    let at_once = |config: Config| config.set("drain_delay", "\"0s\"");
    let mut proxy = at_once(collector.watches(&pg, "1h")).start();
    run(&proxy, 5);
    assert!(collector.count("pgimbal_transactions_total") < 5, "the interval is an hour");
    proxy.signal(Signal::TERM);
    eventually("it has ended", SOON, || proxy.ended() == Some(0));
    assert_eq!(collector.count("pgimbal_transactions_total"), 5);
    assert_eq!(collector.spans("transaction").len(), 5);
}

#[test]
fn clients_do_not_notice_a_collector_that_is_away() {
    let (pg, port) = (Postgres::start(), free_port());
    let proxy = sending_to(port, Config::before(&pg), "100ms").start();
    run(&proxy, 3);
    let away = "metrics and traces do not reach the collector";
    eventually("it is told", SOON, || proxy.log().contains(away));
    let collector = Collector::on(TcpListener::bind(("127.0.0.1", port)).expect("the port"));
    eventually("it is there", SOON, || collector.count("pgimbal_transactions_total") == 3);
    eventually("that is told", SOON, || proxy.log().contains("reach the collector again"));
    assert_eq!(proxy.log().matches(away).count(), 1, "{}", proxy.log());
}
