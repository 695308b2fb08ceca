//! What strangers may cost, and what clients with bad manners may: neither those who behave nor the
//! administrators suffer for it.

mod files;
mod manners;
mod memory;
mod names;
mod readers;
mod rounds;

use std::time::{Duration, Instant};

use pgimbal_tests::http::metric;
use pgimbal_tests::pgimbal::Config;
use pgimbal_tests::startup::{SSL_REQUEST, startup_packet};
use pgimbal_tests::until::{SOON, always, eventually};
use pgimbal_tests::{Login, Message, Pgimbal, Postgres, WireClient};

fn app() -> Login {
    Login::new("app", "app", "app-secret")
}

fn logging_in(proxy: &Pgimbal) -> f64 {
    metric(&proxy.metrics(), "pgimbal_client_connections_logging_in", &[]).expect("a gauge")
}

#[test]
fn a_silent_crowd_locks_out_neither_users_nor_administrators() {
    let pg = Postgres::start();
    let proxy = Config::before(&pg).set("auth_type", "\"scram-sha-256\"").start();
    let mut old = proxy.client();
    let crowd: Vec<WireClient> = (0..1256).map(|_| proxy.connect()).collect();
    for _ in 0..3 {
        assert_eq!(proxy.client().value("select 1"), "1");
        assert!(!proxy.console("show pools").is_empty());
    }
    // Of one address, half of max_login_conn.
    eventually("the oldest have gone", SOON, || logging_in(&proxy) <= 500.0);
    assert_eq!(old.value("select 1"), "1", "a client suffers for strangers");
    let said = "pgimbal_logins_total{result=\"crowded_out\"}";
    assert!(proxy.metrics().contains(said), "{}", proxy.metrics());
    drop(crowd);
    eventually("nobody is left", SOON, || logging_in(&proxy) == 0.0);
}

#[test]
fn the_oldest_of_those_who_have_not_logged_in_goes() {
    let pg = Postgres::start();
    let config = Config::before(&pg).set("auth_type", "\"scram-sha-256\"");
    let proxy = config.set("max_login_conn_per_address", 3).start();
    let mut crowd: Vec<WireClient> = (0..4).map(|_| proxy.connect()).collect();
    assert!(crowd[0].read_to_end().is_empty(), "the oldest is told something");
    for client in &mut crowd[1..] {
        client.log_in(&app()).expect("there is room for three");
    }
    // Who has logged in takes nobody's place.
    for client in &mut crowd[1..] {
        assert_eq!(client.value("select 1"), "1");
    }
}

#[test]
fn the_first_packet_has_a_time_of_its_own() {
    let pg = Postgres::start();
    let config = Config::before(&pg).set("auth_type", "\"scram-sha-256\"");
    let proxy = config.set("client_first_packet_timeout", "\"1s\"").start();
    let begun = Instant::now();
    let mut slow = proxy.connect();
    slow.send(&app().packet());
    slow.expect(b'R');
    let mut silent = [proxy.connect(), proxy.connect(), proxy.connect()];
    silent[1].send(&app().packet()[..10]);
    silent[2].send(&startup_packet(SSL_REQUEST, &[]));
    for client in &mut silent {
        let said = client.read_raw_to_end();
        assert!(said.is_empty() || said == b"N", "{said:?}");
    }
    let closed = begun.elapsed();
    assert!(closed > Duration::from_millis(900) && closed < SOON, "after {closed:?}");
    assert!(proxy.log().contains("client_first_packet_timeout"), "{}", proxy.log());
    // Time is the subject: who is typing a password has the whole of client_login_timeout.
    assert!(slow.is_silent_for(Duration::from_millis(1200)), "a login was cut off");
}

#[test]
fn a_sasl_message_above_postgresqls_limit_is_refused_before_it_is_read() {
    let pg = Postgres::start();
    let proxy = Config::before(&pg).set("auth_type", "\"scram-sha-256\"").start();
    let nonce_of = |length: usize| {
        let first = format!("n,,n=,r={}", "x".repeat(length - 33 + 3));
        let mut body = b"SCRAM-SHA-256\0".to_vec();
        body.extend(u32::try_from(first.len()).expect("a length").to_be_bytes());
        body.extend(first.as_bytes());
        Message::new(b'p', &body).encode()
    };
    let begin = || {
        let mut client = proxy.connect();
        client.send(&app().packet());
        client.expect(b'R');
        client
    };
    let mut client = begin();
    let largest = nonce_of(1024);
    assert_eq!(largest.len(), 1025, "PostgreSQL counts the length word and not the tag");
    client.send(&largest);
    assert_eq!(client.read().tag, b'R', "the longest that PostgreSQL takes");
    for length in [1025, 60_000] {
        let mut client = begin();
        // The header says enough.
        client.send(&nonce_of(length)[..5]);
        let error = client.read().error();
        assert_eq!((error.severity.as_str(), error.code.as_str()), ("FATAL", "08P01"));
    }
}
