//! Each time limit fires, and none fires early: statement 49.

use std::time::{Duration, Instant};

use pgimbal_tests::pgimbal::Config;
use pgimbal_tests::until::{SOON, always, eventually};
use pgimbal_tests::{Message, Pgimbal, Postgres, WireClient};

const LATE: Duration = Duration::from_secs(5);

fn start(key: &str, value: &str) -> (Postgres, Pgimbal) {
    let pg = Postgres::start();
    let config = Config::before(&pg).set("pool_size", 1);
    let proxy = config.set(key, format!("\"{value}\"")).start();
    (pg, proxy)
}

/// The error that ends what `client` waits for, which comes no earlier than `least`.
fn error_after(client: &mut WireClient, least: Duration, name: &str) -> String {
    let start = Instant::now();
    let messages: Vec<Message> = client.read_to_end_or_ready();
    let took = start.elapsed();
    assert!(took >= least, "{name} fired after {took:?}");
    assert!(took < LATE, "{name} fired after {took:?}");
    let error = messages.iter().find(|message| message.tag == b'E').expect("an error").error();
    let text = format!("{:?}", error.fields);
    assert!(text.contains(name), "{text} does not name {name}");
    error.code
}

#[test]
fn behaviour_49_query_timeout() {
    let (pg, proxy) = start("query_timeout", "1s");
    let mut client = proxy.client();
    client.ok("select pg_sleep(0.6)");
    client.start_query("select pg_sleep(60)");
    // What PostgreSQL says of a cancelled query does not name the proxy's limit.
    let code = error_after(&mut client, Duration::from_millis(900), "canceling statement");
    assert_eq!(code, "57014");
    eventually("the query is gone", SOON, || pg.running("pg_sleep") == 0);
    assert_eq!(proxy.client().value("select 1"), "1");
}

#[test]
fn behaviour_49_transaction_timeout() {
    let (pg, proxy) = start("transaction_timeout", "1s");
    let mut client = proxy.client();
    client.ok("begin");
    client.ok("select pg_sleep(0.5)");
    client.ok("commit");
    client.ok("begin");
    client.start_query("select pg_sleep(60)");
    error_after(&mut client, Duration::from_millis(800), "transaction_timeout");
    eventually("the transaction is gone", SOON, || pg.running("pg_sleep") == 0);
    assert_eq!(proxy.client().ok("select 1").status(), 'I');
}

#[test]
fn behaviour_49_idle_transaction_timeout() {
    let (_pg, proxy) = start("idle_transaction_timeout", "1s");
    let mut client = proxy.client();
    client.ok("begin");
    let busy = Instant::now();
    while busy.elapsed() < Duration::from_millis(1500) {
        client.ok("select pg_sleep(0.1)");
    }
    error_after(&mut client, Duration::from_millis(800), "idle_transaction_timeout");
    assert_eq!(proxy.client().ok("select 1").status(), 'I');
}

#[test]
fn behaviour_49_client_idle_timeout() {
    let (_pg, proxy) = start("client_idle_timeout", "1s");
    let mut client = proxy.client();
    let busy = Instant::now();
    while busy.elapsed() < Duration::from_millis(1500) {
        client.ok("select pg_sleep(0.1)");
    }
    error_after(&mut client, Duration::from_millis(800), "client_idle_timeout");
    // A transaction is not idleness of this kind.
    let mut other = proxy.client();
    other.ok("begin");
    always("a transaction goes on", Duration::from_millis(1800), || {
        std::thread::sleep(Duration::from_millis(600));
        other.query("select 1").errors().is_empty()
    });
}

#[test]
fn behaviour_49_server_idle_timeout() {
    let (pg, proxy) = start("server_idle_timeout", "1s");
    let mut client = proxy.client();
    let backend = client.backend();
    always("a used server stays", Duration::from_millis(1500), || client.backend() == backend);
    let idle = Instant::now();
    eventually("an idle server is closed", LATE, || pg.backends() == 0);
    let took = idle.elapsed();
    assert!(took > Duration::from_millis(800), "closed after {took:?}");
    assert_eq!(client.value("select 1"), "1");
    client.ok("begin");
    always("a linked server stays", Duration::from_millis(1800), || pg.backends() == 1);
    client.ok("commit");
}

#[test]
fn behaviour_49_server_lifetime() {
    let (pg, proxy) = start("server_lifetime", "1s");
    let mut client = proxy.client();
    let backend = client.backend();
    let born = Instant::now();
    eventually("an old server is closed", LATE, || {
        pg.value(&format!("select count(*) from pg_stat_activity where pid = {backend}")) == "0"
    });
    let took = born.elapsed();
    assert!(took > Duration::from_millis(700), "closed after {took:?}");
    assert_ne!(client.backend(), backend);
}

#[test]
fn behaviour_49_client_login_timeout_is_no_limit_for_a_session() {
    let (_pg, proxy) = start("client_login_timeout", "500ms");
    let mut client = proxy.client();
    client.ok("begin");
    client.ok("select pg_sleep(1)");
    client.ok("commit");
    let mut silent = proxy.connect();
    let start = Instant::now();
    silent.read_to_end();
    let took = start.elapsed();
    assert!(took > Duration::from_millis(400) && took < LATE, "closed after {took:?}");
}
