//! Session and statement mode: statements 10 and 11.

use pgimbal_tests::pgimbal::Config;
use pgimbal_tests::{Pgimbal, Pipeline, Postgres};

fn start(mode: &str) -> (Postgres, Pgimbal) {
    let pg = Postgres::start();
    let config = Config::before(&pg).set("pool_size", 1).set("pool_mode", format!("\"{mode}\""));
    (pg, config.start())
}

#[test]
fn behaviour_10_statement_mode_refuses_begin() {
    let (pg, proxy) = start("statement");
    pg.run("create table t (x int); grant all on t to app");
    let mut client = proxy.client();
    let refused = [
        Pipeline::new().query("begin"),
        Pipeline::new().query("/* x */ START TRANSACTION ISOLATION LEVEL SERIALIZABLE"),
        Pipeline::new().query("insert into t values (1); begin"),
        Pipeline::new().run("begin").sync(),
    ];
    for pipeline in refused {
        let reply = client.run(&pipeline);
        let error = reply.errors().remove(0);
        assert_eq!((error.severity.as_str(), reply.status()), ("ERROR", 'I'), "{error:?}");
        assert!(error.message.contains("statement"), "{error:?} does not name the pool mode");
        assert_eq!(proxy.client().ok("select 1").status(), 'I');
    }
    assert_eq!(client.run(&Pipeline::new().run("select 'works'").sync()).value(), "works");
    assert_eq!(client.value("select 'begin'"), "begin");
}

#[test]
fn behaviour_10_statement_mode_shares_after_each_statement() {
    let (_pg, proxy) = start("statement");
    let (mut a, mut b) = (proxy.client(), proxy.client());
    for _ in 0..5 {
        assert_eq!(a.backend(), b.backend());
    }
}

#[test]
fn behaviour_11_the_reset_query_runs_before_reuse() {
    let (_pg, proxy) = start("session");
    let mut a = proxy.client();
    let backend = a.backend();
    a.ok("set work_mem = '123kB'");
    a.ok("create temp table mine (x int)");
    a.ok("listen something");
    a.ok("prepare mine as select 1");
    a.ok("select pg_advisory_lock(1)");
    a.run(&Pipeline::new().parse("protocol", "select 1").sync()).no_error();
    let mut b = proxy.connect();
    b.send(&pgimbal_tests::Login::new("app", "app", "").packet());
    a.terminate();
    b.read_reply();
    assert_eq!(b.backend(), backend, "the connection was not reused");
    assert_eq!(b.value("show work_mem"), "4MB");
    assert_eq!(b.query("select * from mine").sqlstate(), "42P01");
    assert_eq!(b.value("select count(*) from pg_listening_channels()"), "0");
    assert_eq!(b.value("select count(*) from pg_locks where locktype = 'advisory'"), "0");
    assert_eq!(b.value("select count(*) from pg_prepared_statements"), "0");
}

#[test]
fn behaviour_11_another_reset_query_and_a_broken_one() {
    let pg = Postgres::start();
    let config = Config::before(&pg).set("pool_size", 1).set("pool_mode", "\"session\"");
    let proxy = config.clone().set("reset_query", "\"reset all\"").start();
    let mut a = proxy.client();
    let backend = a.backend();
    a.ok("set work_mem = '123kB'");
    a.ok("create temp table mine (x int)");
    a.terminate();
    let mut b = proxy.client();
    assert_eq!((b.backend(), b.value("show work_mem")), (backend, "4MB".to_owned()));
    // RESET ALL alone would have left the table.
    assert_eq!(b.query("select * from mine").sqlstate(), "42P01");
    drop(proxy);
    let proxy = config.set("reset_query", "\"select 1/0\"").start();
    let mut a = proxy.client();
    let backend = a.backend();
    a.terminate();
    assert_ne!(proxy.client().backend(), backend, "reused although its reset failed");
}

#[test]
fn a_session_keeps_its_server_until_it_ends() {
    let (pg, proxy) = start("session");
    let mut a = proxy.client();
    a.ok("set work_mem = '123kB'");
    let mut b = proxy.connect();
    b.send(&pgimbal_tests::Login::new("app", "app", "").packet());
    b.expect(b'R');
    while b.read().tag != b'Z' {}
    b.start_query("select 'b'");
    proxy.wait_for_waiting(1);
    assert_eq!(a.value("show work_mem"), "123kB");
    a.disconnect(true);
    assert_eq!(b.read_reply().value(), "b");
    assert!(pg.backends() <= 1);
}
