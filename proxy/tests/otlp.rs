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
use pgimbal_tests::certificates::Certificates;
use pgimbal_tests::cluster::Cluster;
use pgimbal_tests::pgimbal::Config;
use pgimbal_tests::port::free_port;
use pgimbal_tests::process::directory;
use pgimbal_tests::until::{SOON, eventually};
use pgimbal_tests::{Login, Pgimbal, Postgres};
use prost::Message;
use rustix::process::Signal;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

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
        Self::with(listener, serve)
    }

    /// One that speaks TLS with this certificate.
    fn with_tls(certificates: &Certificates) -> Self {
        let config = Arc::new(tls(certificates));
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        Self::with(listener, move |stream, received| {
            let connection = ServerConnection::new(Arc::clone(&config)).expect("a configuration");
            serve(StreamOwned::new(connection, stream), received);
        })
    }

    fn with(
        listener: TcpListener,
        serve: impl Fn(TcpStream, &Mutex<Received>) + Send + Sync + 'static,
    ) -> Self {
        let port = listener.local_addr().expect("an address").port();
        let received = Arc::new(Mutex::new(Received::default()));
        let (shared, serve) = (Arc::clone(&received), Arc::new(serve));
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (shared, serve) = (Arc::clone(&shared), Arc::clone(&serve));
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

fn tls(certificates: &Certificates) -> ServerConfig {
    let chain = CertificateDer::from_pem_slice(certificates.chain.as_bytes()).expect("PEM");
    let key = PrivateKeyDer::from_pem_slice(certificates.key.as_bytes()).expect("PEM");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let versions =
        ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = versions.expect("versions").with_no_client_auth();
    config.with_single_cert(vec![chain], key).expect("a certificate and its key")
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

fn number(attributes: &[KeyValue], key: &str) -> Option<i64> {
    let attribute = attributes.iter().find(|attribute| attribute.key == key)?;
    match attribute.value.as_ref()?.value.as_ref()? {
        Value::IntValue(number) => Some(*number),
        _ => None,
    }
}

fn millis(span: &Span) -> u64 {
    (span.end_time_unix_nano - span.start_time_unix_nano) / 1_000_000
}

/// Serves one connection: each request is decoded, and answered with 200.
fn serve(stream: impl Read + Write, received: &Mutex<Received>) {
    let mut reader = BufReader::new(stream);
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
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
        if reader.get_mut().write_all(answer).and_then(|()| reader.get_mut().flush()).is_err() {
            return;
        }
    }
}

fn sending_to(port: u16, config: Config, interval: &str) -> Config {
    sending(&format!("http://127.0.0.1:{port}"), config, interval)
}

fn sending(endpoint: &str, config: Config, interval: &str) -> Config {
    config.tables(&format!(
        "[telemetry]\notlp_endpoint = \"{endpoint}\"\n\
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
fn a_failover_is_a_span_with_what_it_meant_to_clients() {
    let (mut cluster, collector) = (Cluster::start(1), Collector::start());
    cluster.nodes[0].run("create table kept (id int); grant all on kept to app");
    cluster.settle(0);
    let proxy = sending_to(collector.port, Config::before_cluster(&cluster), "200ms").start();
    let mut client = proxy.client();
    client.ok("insert into kept values (1)");
    cluster.settle(0);
    cluster.nodes[0].kill();
    client.start_query("insert into kept values (2)");
    proxy.wait_for_waiting(1);
    cluster.nodes[1].promote();
    client.read_reply().no_error();
    // It is sent once its effects on clients are counted, 5 s after its end.
    eventually("its span is sent", SOON, || !collector.spans("failover").is_empty());
    let spans = collector.spans("failover");
    assert_eq!(spans.len(), 1, "{spans:?}");
    let failover = &spans[0];
    let said = |key| text(&failover.attributes, key);
    assert_eq!([said("pgimbal.from"), said("pgimbal.to")], [Some("n1"), Some("n2")]);
    assert_eq!(number(&failover.attributes, "pgimbal.timeline"), Some(2));
    assert_eq!(number(&failover.attributes, "pgimbal.held"), Some(1), "{failover:?}");
    assert_eq!(number(&failover.attributes, "pgimbal.failed"), Some(0), "{failover:?}");
    assert!(failover.start_time_unix_nano < failover.end_time_unix_nano, "{failover:?}");
}

#[test]
fn an_https_collector_is_verified_with_the_authorities_of_the_system() {
    let pg = Postgres::start();
    let (ours, others) = (Certificates::new(), Certificates::new());
    let collector = Collector::with_tls(&ours);
    let endpoint = format!("https://localhost:{}", collector.port);
    let trusting = |authority: &Certificates| {
        // rustls and OpenSSL read the system's authorities from this file if it is named.
        let file = format!("SSL_CERT_FILE={}", authority.files()[0].display());
        let config = sending(&endpoint, Config::before(&pg), "200ms");
        config.through(&["env", &file]).start()
    };
    let strange = trusting(&others);
    run(&strange, 3);
    eventually("the log says why nothing is sent", SOON, || {
        strange.log().contains("do not reach the collector")
            && strange.log().contains("invalid peer certificate")
    });
    collector.received(|received| assert!(received.bytes.is_empty(), "it was sent all the same"));
    drop(strange);
    let proxy = trusting(&ours);
    run(&proxy, 3);
    eventually("all was sent", SOON, || {
        collector.count("pgimbal_transactions_total") == 3 && collector.spans("run").len() == 3
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
