//! Load balancers: health checks that say nothing, and the PROXY protocol.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use pgimbal_tests::certificates::Certificates;
use pgimbal_tests::http::metric;
use pgimbal_tests::pgimbal::Config;
use pgimbal_tests::until::{SOON, always, eventually};
use pgimbal_tests::{Login, Pgimbal, Postgres, WireClient};

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

fn app(database: &str) -> Login {
    Login::new("app", database, "app-secret")
}

/// Failed logins of any kind.
fn failed(proxy: &Pgimbal) -> f64 {
    let page = proxy.metrics();
    let kinds = ["client_gone", "protocol_error", "tls_failed"];
    kinds
        .iter()
        .map(|kind| {
            let label = format!("result=\"{kind}\"");
            metric(&page, "pgimbal_logins_total", &[&label]).unwrap_or(0.0)
        })
        .sum()
}

#[test]
fn a_health_check_that_sends_nothing_is_no_line_and_no_failed_login() {
    let pg = Postgres::start();
    let proxy = Config::before(&pg).start();
    let before = failed(&proxy);
    for reset in [false, true] {
        let probe = proxy.connect();
        probe.disconnect(reset);
    }
    // Behind them: whoever gets in was accepted after they were.
    let _ = proxy.client();
    always("nothing is said of them", Duration::from_millis(300), || {
        !proxy.log().contains("login failed") && (failed(&proxy) - before).abs() < 0.1
    });
    // Half a packet is a client that failed.
    let mut stream = TcpStream::connect(("127.0.0.1", proxy.port)).expect("a connection");
    stream.write_all(&[0, 0, 0]).expect("half a length");
    drop(stream);
    eventually("that is said", SOON, || proxy.log().contains("login failed"));
}

/// A client behind a load balancer that sends `header`.
fn behind(proxy: &Pgimbal, header: &[u8]) -> WireClient {
    let mut client = proxy.connect();
    client.send(header);
    client
}

/// Asserts that a client behind `header` has this address in SHOW CLIENTS.
#[track_caller]
fn is_seen_as(proxy: &Pgimbal, header: &[u8], expected: &str) {
    let mut client = behind(proxy, header);
    client.log_in(&app("app")).expect("a login");
    let mut console = behind(proxy, b"PROXY UNKNOWN\r\n");
    console.log_in(&app("pgimbal")).expect("the console");
    let reply = console.ok("show clients");
    let names = reply.columns();
    let column = names.iter().position(|name| name == "addr").expect("a column addr");
    let seen: Vec<String> = reply.texts().into_iter().map(|row| row[column].clone()).collect();
    assert!(seen.iter().any(|address| address == expected), "{expected}: {seen:?}");
}

fn version_2(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
    let length = u16::try_from(block.len()).expect("a short block");
    [SIGNATURE, &[0x20 | command, family], &length.to_be_bytes(), block].concat()
}

#[test]
fn the_proxy_protocol_says_who_the_client_is() {
    let pg = Postgres::start();
    let proxy = Config::before(&pg).behind_a_load_balancer().start();
    is_seen_as(&proxy, b"PROXY TCP4 192.0.2.7 10.0.0.1 5678 6432\r\n", "192.0.2.7");
    is_seen_as(&proxy, b"PROXY TCP6 2001:db8::7 ::1 5678 6432\r\n", "2001:db8::7");
    let block = [&[192, 0, 2, 8, 10, 0, 0, 1, 0x16, 0x2e, 0x19, 0x20][..], &[4, 0, 1, 0]].concat();
    is_seen_as(&proxy, &version_2(1, 0x11, &block), "192.0.2.8");
    // LOCAL: the load balancer itself.
    is_seen_as(&proxy, &version_2(0, 0x00, b""), "127.0.0.1");

    let failed_login = behind(&proxy, b"PROXY TCP4 192.0.2.9 10.0.0.1 5678 6432\r\n")
        .log_in(&Login::new("app", "nowhere", ""));
    assert!(failed_login.is_err());
    eventually("the log names it", SOON, || proxy.log().contains("192.0.2.9:5678"));
}

#[test]
fn whoever_sends_no_header_is_told_so() {
    let pg = Postgres::start();
    let proxy = Config::before(&pg).behind_a_load_balancer().start();
    let refused = proxy.connect().log_in(&app("app")).expect_err("no header");
    let error = refused.last().expect("a message").error();
    assert_eq!(error.code, "08P01");
    assert!(format!("{error:?}").contains("proxy_protocol"), "{error:?}");
    for header in [
        version_2(2, 0x11, &[0; 12]),
        version_2(1, 0x11, &[0; 3]),
        [SIGNATURE, &[0x21, 0x11, 0xff, 0xff]].concat(),
        b"PROXY TCP4 192.0.2.7\r\n".to_vec(),
        [b"PROXY ".to_vec(), vec![b'x'; 200]].concat(),
    ] {
        let mut stream = TcpStream::connect(("127.0.0.1", proxy.port)).expect("a connection");
        stream.write_all(&header).expect("a header");
        stream.set_read_timeout(Some(SOON)).expect("a limit");
        let mut said = Vec::new();
        stream.read_to_end(&mut said).expect("an end");
        assert!(said.starts_with(b"E"), "{}: {}", header.escape_ascii(), said.escape_ascii());
    }
}

#[test]
fn tls_begins_behind_the_header() {
    let pg = Postgres::start();
    let certificates = Certificates::new();
    let config = Config::before(&pg).client_tls(&certificates, "require");
    let proxy = config.behind_a_load_balancer().start();
    let client = behind(&proxy, b"PROXY TCP4 192.0.2.7 10.0.0.1 5678 6432\r\n");
    let mut client = client.tls(certificates.client(&["postgresql"])).expect("TLS");
    client.log_in(&app("app")).expect("a login");
    assert_eq!(client.value("select 1"), "1");
}

#[test]
fn who_sends_no_header_has_the_time_of_the_first_packet() {
    let pg = Postgres::start();
    let config = Config::before(&pg).behind_a_load_balancer();
    let proxy = config.set("client_first_packet_timeout", "\"1s\"").start();
    let begun = Instant::now();
    let half = &version_2(1, 0x11, &[0; 12])[..14];
    let headers: [&[u8]; 4] =
        [b"", b"PROXY TCP4 192.0.2.7", half, b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\n"];
    for mut client in headers.map(|header| behind(&proxy, header)) {
        let said = client.read_raw_to_end();
        assert!(said.is_empty(), "{}", said.escape_ascii());
    }
    let closed = begun.elapsed();
    assert!(closed > Duration::from_millis(900) && closed < SOON, "after {closed:?}");
    let told = || proxy.log().matches("client_first_packet_timeout").count();
    eventually("each is told in the log", SOON, || told() == headers.len());
}

#[test]
fn the_limit_of_an_address_is_the_one_that_the_header_names() {
    let pg = Postgres::start();
    let config = Config::before(&pg).behind_a_load_balancer();
    let config = config.set("auth_type", "\"scram-sha-256\"");
    let proxy = config.set("max_login_conn_per_address", 2).start();
    let asked = |address: &str| {
        let mut client = behind(&proxy, format!("PROXY TCP4 {address} 1.2.3.4 1 2\r\n").as_bytes());
        client.send(&app("app").packet());
        // It is asked for its password, so the header has been read.
        client.expect(b'R');
        client
    };
    // All come from 127.0.0.1.
    let mut others = ["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4"].map(asked);
    let mut first = asked("192.0.2.9");
    let mut rest = ["192.0.2.9", "192.0.2.9"].map(asked);
    assert!(first.read_raw_to_end().is_empty(), "the oldest of the address is told something");
    let page = proxy.metrics();
    let waiting = metric(&page, "pgimbal_client_connections_logging_in", &[]);
    assert_eq!(waiting, Some(6.0), "four others and two of the address");
    for client in others.iter_mut().chain(&mut rest) {
        assert!(client.has_no_input(), "it had to go too");
    }
    // Who has not said yet for whom it speaks counts for nobody.
    let silent: Vec<WireClient> = (0..5).map(|_| behind(&proxy, b"PROXY TCP4")).collect();
    let last = asked("192.0.2.5");
    let waiting = || metric(&proxy.metrics(), "pgimbal_client_connections_logging_in", &[]);
    assert_eq!(waiting(), Some(12.0));
    drop((silent, last));
}
