//! Reload and the end: statements 50 and 52, signals, and what an operator sees.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use pgimbal_tests::pgimbal::Config;
use pgimbal_tests::until::{SOON, always, eventually};
use pgimbal_tests::{Login, Pipeline, Postgres, WireClient};
use rustix::process::Signal;

#[test]
fn behaviour_50_reload_changes_the_pool_without_dropping_a_client() {
    let pg = Postgres::start();
    let config = Config::before(&pg).set("pool_size", 1);
    let mut proxy = config.clone().start();
    let (mut holder, mut waiter) = (proxy.client(), proxy.client());
    holder.ok("begin");
    waiter.start_query("select 'more room'");
    proxy.wait_for_waiting(1);
    proxy.reload(config.set("pool_size", 2));
    assert_eq!(waiter.read_reply().value(), "more room");
    assert_eq!(holder.ok("commit").status(), 'I');
    assert_eq!(holder.value("select 1"), "1");
}

#[test]
fn behaviour_50_a_bad_file_is_refused_whole() {
    let pg = Postgres::start();
    let config = Config::before(&pg).set("max_client_conn", 1);
    let mut proxy = config.clone().start();
    let mut client = proxy.client();
    for bad in [
        config.clone().set("max_client_conn", 5).set("pool_size", "\"many\""),
        config.clone().set("max_client_conn", 5).set("pool_sise", 3),
        config.clone().set("max_client_conn", 5).tables("[broken"),
    ] {
        let before = proxy.log().len();
        proxy.reload(bad);
        eventually("the log tells", SOON, || {
            let log = proxy.log();
            let new = &log[before..];
            new.contains("pool_size") || new.contains("pgimbal.toml")
        });
        assert!(proxy.connect().log_in(&Login::new("app", "app", "")).is_err(), "half was used");
        assert_eq!(client.value("select 1"), "1");
    }
    proxy.reload(config.set("max_client_conn", 5));
    eventually("a good file is used", SOON, || {
        proxy.connect().log_in(&Login::new("app", "app", "")).is_ok()
    });
}

#[test]
fn behaviour_50_what_needs_a_restart_is_said() {
    let pg = Postgres::start();
    let config = Config::before(&pg);
    let mut proxy = config.clone().start();
    let mut client = proxy.client();
    proxy.reload(
        config.set("workers", 2).set("query_wait_timeout", "\"300ms\"").set("pool_size", 1),
    );
    eventually("the log says so", SOON, || {
        let log = proxy.log();
        log.lines().any(|line| line.contains("workers") && line.contains("restart"))
    });
    client.ok("begin");
    let mut waiter = proxy.client();
    waiter.start_query("select 1");
    let told = waiter.read_to_end_or_ready();
    assert!(told.iter().any(|message| message.tag == b'E'), "the rest was not used: {told:?}");
}

#[test]
fn behaviour_50_a_users_password_changes() {
    let pg = Postgres::start();
    let config = Config::before(&pg).set("auth_type", "\"scram-sha-256\"");
    let mut proxy = config.clone().start();
    let mut client = proxy.log_in(&Login::new("app", "app", "app-secret"));
    proxy.reload(config.user("password", "\"changed\""));
    eventually("the new password works", SOON, || {
        proxy.connect().log_in(&Login::new("app", "app", "changed")).is_ok()
    });
    assert!(proxy.connect().log_in(&Login::new("app", "app", "app-secret")).is_err());
    assert_eq!(client.value("select 1"), "1");
}

#[test]
fn behaviour_52_sigterm_drains() {
    let pg = Postgres::start();
    pg.run("create table t (x int); grant all on t to app");
    let config = Config::before(&pg).set("pool_size", 2).set("drain_delay", "\"0s\"");
    let mut proxy = config.set("shutdown_grace", "\"10s\"").start();
    let (mut busy, mut idle, mut running) = (proxy.client(), proxy.client(), proxy.client());
    busy.ok("begin");
    busy.ok("insert into t values (1)");
    running.start_query("select 'done' from pg_sleep(0.5)");
    eventually("the query runs", SOON, || pg.running("pg_sleep") == 1);
    proxy.signal(Signal::TERM);
    let farewell = idle.read_to_end();
    let error = farewell.last().expect("a word before the end").error();
    assert_eq!((error.severity.as_str(), error.code.as_str()), ("FATAL", "57P01"));
    assert_eq!(running.read_reply().value(), "done");
    assert_eq!(running.read_to_end().last().expect("a word").error().code, "57P01");
    assert!(refuses(proxy.port), "new clients are accepted");
    busy.ok("insert into t values (2)");
    assert!(proxy.ended().is_none(), "ended before the transaction");
    assert_eq!(busy.ok("commit").commands(), ["COMMIT"]);
    assert_eq!(busy.read_to_end().last().expect("a word").error().code, "57P01");
    eventually("the process ends", SOON, || proxy.ended().is_some());
    assert_eq!(proxy.ended(), Some(0));
    assert_eq!(pg.value("select count(*) from t"), "2");
    eventually("its server connections are closed", SOON, || pg.backends() == 0);
}

/// Whether a new client is refused, by the port or by a FATAL.
fn refuses(port: u16) -> bool {
    if TcpStream::connect(("127.0.0.1", port)).is_err() {
        return true;
    }
    WireClient::tcp(port).log_in(&Login::new("app", "app", "")).is_err()
}

#[test]
fn behaviour_52_the_grace_period_ends() {
    let pg = Postgres::start();
    let config = Config::before(&pg).set("drain_delay", "\"0s\"");
    let mut proxy = config.set("shutdown_grace", "\"1500ms\"").start();
    let mut busy = proxy.client();
    busy.ok("begin");
    let start = Instant::now();
    proxy.signal(Signal::TERM);
    always("the transaction goes on", Duration::from_millis(1000), || {
        busy.query("select 1").errors().is_empty()
    });
    let farewell = busy.read_to_end();
    assert_eq!(farewell.last().expect("a word before the end").error().code, "57P01");
    eventually("the process ends", SOON, || proxy.ended().is_some());
    let took = start.elapsed();
    assert!(took < Duration::from_secs(6), "it took {took:?}");
    eventually("the transaction is gone", SOON, || pg.backends() == 0);
}

#[test]
fn behaviour_52_an_unused_proxy_ends_at_once() {
    let pg = Postgres::start();
    for signal in [Signal::TERM, Signal::INT] {
        let mut proxy = Config::before(&pg).set("drain_delay", "\"0s\"").start();
        proxy.client().run(&Pipeline::new().run("select 1").sync()).no_error();
        let start = Instant::now();
        proxy.signal(signal);
        eventually("the process ends", SOON, || proxy.ended().is_some());
        assert_eq!(proxy.ended(), Some(0));
        assert!(start.elapsed() < Duration::from_secs(5));
    }
}

#[test]
fn at_info_a_connection_costs_at_most_a_line() {
    let pg = Postgres::start();
    let proxy = Config::before(&pg).start();
    proxy.client().ok("select 1");
    let before = proxy.log().lines().count();
    for _ in 0..50 {
        let mut client = proxy.client();
        client.ok("select 1");
        client.query("select 1/0");
        client.terminate();
    }
    let lines = proxy.log().lines().count() - before;
    assert!(lines <= 55, "{lines} lines for 50 connections:\n{}", proxy.log());
    assert!(!proxy.log().contains("app-secret"));
}

/// The target of a line begins with the path of what logs it: the console's is below
/// `pgimbal::admin`, and was `pgimbal::console` before.
#[test]
fn a_log_filter_goes_by_targets() {
    let pg = Postgres::start();
    let filters = [
        ("warn,pgimbal::admin=info", true),
        ("off,pgimbal::admin::console=info", true),
        ("warn,pgimbal::console=info", false),
    ];
    for (filter, is_logged) in filters {
        let proxy = Config::before(&pg).set("log", format!("\"{filter}\"")).start();
        proxy.client().ok("select 1");
        let _ = proxy.console("show version");
        let log = proxy.log();
        let lines: Vec<&str> = log.lines().collect();
        assert_eq!(lines.len(), usize::from(is_logged), "{filter}: {log}");
        assert!(lines.iter().all(|line| line.contains(" pgimbal::admin::console")), "{log}");
    }
}

#[test]
fn logs_as_json() {
    let pg = Postgres::start();
    let proxy = Config::before(&pg).set("log_format", "\"json\"").start();
    proxy.client().ok("select 1");
    let log = proxy.log();
    assert!(!log.is_empty());
    for line in log.lines() {
        assert!(line.starts_with('{') && line.ends_with('}'), "no JSON: {line}");
        assert!(line.contains("\"level\""), "{line}");
    }
}
