//! What can be seen from outside: the console, `/metrics`, `/livez`, `/readyz`.

use std::collections::BTreeMap;
use std::time::Instant;

use pgimbal_tests::http::{get, metric};
use pgimbal_tests::pgimbal::Config;
use pgimbal_tests::port::free_port;
use pgimbal_tests::until::{SOON, eventually};
use pgimbal_tests::{Login, Pgimbal, Pipeline, Postgres};
use rustix::process::Signal;

fn rows(proxy: &Pgimbal, sql: &str) -> Vec<BTreeMap<String, String>> {
    proxy.console(sql).into_iter().map(|row| row.into_iter().collect()).collect()
}

#[test]
fn show_pools_clients_and_servers() {
    let pg = Postgres::start();
    let proxy = Config::before(&pg).set("pool_size", 1).start();
    let login = Login::new("app", "app", "").with("application_name", "the holder");
    let (mut holder, mut waiter, idle) = (proxy.log_in(&login), proxy.client(), proxy.client());
    holder.ok("begin");
    let backend = holder.backend();
    waiter.start_query("select 1");
    eventually("one waits", SOON, || {
        let pools = rows(&proxy, "show pools");
        let pool = pools.iter().find(|pool| pool["database"] == "app").expect("the pool");
        pool["cl_waiting"] == "1"
    });
    let pools = rows(&proxy, "show pools");
    let pool = pools.iter().find(|pool| pool["database"] == "app").expect("the pool");
    let shown = ["user", "cl_active", "cl_waiting", "sv_active", "sv_idle", "pool_mode"];
    let shown = shown.map(|name| pool[name].as_str());
    assert_eq!(shown[0], "app");
    assert_eq!(shown[2..], ["1", "1", "0", "transaction"]);
    let clients = rows(&proxy, "SHOW CLIENTS;");
    let clients: Vec<_> = clients.iter().filter(|client| client["database"] == "app").collect();
    assert_eq!(clients.len(), 3);
    assert!(clients.iter().any(|client| client["application_name"] == "the holder"));
    assert!(clients.iter().any(|client| client["state"].contains("waiting")));
    let servers = rows(&proxy, "show servers");
    assert_eq!(servers.len(), 1);
    let text = format!("{servers:?}");
    assert!(text.contains(&backend), "{text} does not show process {backend}");
    drop(idle);
}

#[test]
fn show_stats_counts() {
    let pg = Postgres::start();
    let proxy = Config::before(&pg).start();
    let mut client = proxy.client();
    for _ in 0..7 {
        client.ok("select repeat('x', 1000)");
    }
    client.ok("begin");
    client.ok("select 1");
    client.ok("commit");
    let stats = rows(&proxy, "show stats");
    let stats = stats.iter().find(|stats| stats["database"] == "app").expect("the database");
    assert_eq!(stats["total_xact_count"], "8");
    assert_eq!(stats["total_query_count"], "10");
    assert!(stats["total_sent"].parse::<u64>().expect("bytes") > 7000, "{stats:?}");
}

#[test]
fn the_console_is_for_named_users_on_two_databases() {
    let pg = Postgres::start();
    let proxy = Config::before(&pg).set("stats_users", "[\"md5\"]").start();
    for database in ["pgimbal", "pgbouncer"] {
        let mut admin = proxy.log_in(&Login::new("app", database, "app-secret"));
        assert!(admin.ok("show version").texts()[0][0].contains("pgimbal"));
        let help = admin.query("show help");
        let text = format!("{help:?}");
        assert!(text.contains("SHOW POOLS"), "{text}");
        assert_eq!(admin.query("show nonsense").status(), 'I');
        assert_eq!(admin.query("show nonsense").errors().len(), 1);
        assert_eq!(
            admin.query("select 1").errors().len() + admin.query("select 1").rows().len(),
            1
        );
        let mut looker = proxy.log_in(&Login::new("md5", database, "md5-secret"));
        looker.ok("show pools");
        let refused = proxy.connect().log_in(&Login::new("clear", database, "clear-secret"));
        let error = refused.expect_err("no admin").last().expect("a message").error();
        assert_eq!(error.severity, "FATAL");
        let extended = admin.run(&Pipeline::new().run("show databases").sync());
        assert!(!extended.no_error().texts().is_empty(), "the extended protocol is for drivers");
    }
}

#[test]
fn metrics_count_what_happened() {
    let pg = Postgres::start();
    let proxy = Config::before(&pg).set("pool_size", 1).start();
    let (mut client, mut holder) = (proxy.client(), proxy.client());
    for _ in 0..5 {
        client.ok("select 1");
    }
    holder.ok("begin");
    client.start_query("select 'after a wait'");
    proxy.wait_for_waiting(1);
    holder.ok("commit");
    client.read_reply().no_error();
    client.query("select 1/0");
    client.query("selec");
    let page = proxy.metrics();
    let of = |name: &str, labels: &[&str]| metric(&page, name, labels).unwrap_or(-1.0);
    assert!(of("pgimbal_transactions_total", &["database=\"app\""]) >= 7.0, "{page}");
    assert!(of("pgimbal_queries_total", &["database=\"app\""]) >= 7.0, "{page}");
    assert!((of("pgimbal_errors_total", &["22012"]) - 1.0).abs() < 0.1, "{page}");
    assert!((of("pgimbal_errors_total", &["42601"]) - 1.0).abs() < 0.1, "{page}");
    assert!(of("pgimbal_logins_total", &["result=\"succeeded\""]) >= 1.0, "{page}");
    assert!(of("pgimbal_client_received_bytes_total", &[]) > 50.0, "{page}");
    assert!(of("pgimbal_wait_seconds_count", &[]) >= 1.0, "{page}");
    assert!(of("pgimbal_servers_idle", &[]) >= 1.0, "{page}");
    for line in page.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let value = line.rsplit(' ').next().expect("a value");
        assert!(value.parse::<f64>().is_ok(), "no sample: {line}");
    }
    assert!(!page.contains("secret"));
}

/// The samples of a histogram of the pool: how many took up to `le` seconds, how many there were,
/// and the seconds that they took together.
fn histogram(page: &str, name: &str, le: &str) -> (f64, f64, f64) {
    let of = |part: &str, labels: &[&str]| {
        let labels = [&["database=\"app\"", "user=\"app\""], labels].concat();
        metric(page, &format!("{name}_{part}"), &labels).unwrap_or(-1.0)
    };
    let le = format!("le=\"{le}\"");
    assert!((of("bucket", &["le=\"+Inf\""]) - of("count", &[])).abs() < 0.1, "{page}");
    (of("bucket", &[&le]), of("count", &[]), of("sum", &[]))
}

#[test]
fn latencies_are_what_a_known_load_took() {
    let pg = Postgres::start();
    let proxy = Config::before(&pg).set("pool_size", 1).start();
    let begun = Instant::now();
    let mut client = proxy.client();
    for _ in 0..20 {
        client.ok("select pg_sleep(0.06)");
    }
    let most = begun.elapsed().as_secs_f64();
    let page = proxy.metrics();
    for name in ["pgimbal_query_seconds", "pgimbal_transaction_seconds"] {
        let (shorter, count, sum) = histogram(&page, name, "0.05");
        assert_eq!([shorter, count], [0.0, 20.0], "{name}\n{page}");
        assert!((1.2..=most).contains(&sum), "{name}: {sum} of {most} s");
    }
    // The client got the only server connection at once each time.
    assert_eq!(histogram(&page, "pgimbal_wait_seconds", "0.0001").0, 20.0, "{page}");
    let rows = rows(&proxy, "show latencies");
    let query = rows.iter().find(|row| row["user"] == "app" && row["what"] == "query");
    let query = query.expect("the pool");
    assert_eq!(query["count"], "20");
    for column in ["avg", "p50", "p95", "p99"] {
        assert!(query[column].parse::<u64>().expect("a time") > 50_000, "{query:?}");
    }
}

#[test]
fn latencies_tell_waits_transactions_and_logins_apart() {
    let pg = Postgres::start();
    let proxy = Config::before(&pg).set("pool_size", 1).start();
    let begun = Instant::now();
    let (mut holder, mut waiter) = (proxy.client(), proxy.client());
    let (_, logins, login_time) = histogram(&proxy.metrics(), "pgimbal_login_seconds", "30");
    assert_eq!(logins, 2.0);
    assert!(login_time > 0.0);
    holder.ok("begin");
    waiter.start_query("select 'after a wait'");
    eventually("the other has waited for more than 250 ms", SOON, || {
        let longest = metric(&proxy.metrics(), "pgimbal_longest_wait_seconds", &[]);
        longest.is_some_and(|seconds| seconds > 0.25)
    });
    holder.ok("commit");
    waiter.read_reply().no_error();
    let most = begun.elapsed().as_secs_f64();
    let page = proxy.metrics();
    let (at_once, waits, waited) = histogram(&page, "pgimbal_wait_seconds", "0.25");
    assert_eq!([at_once, waits], [1.0, 2.0], "{page}");
    assert!((0.25..=most).contains(&waited), "{waited} of {most} s");
    // The transaction lasted as long as the other's wait; its two queries did not.
    let (shorter, transactions, lasted) = histogram(&page, "pgimbal_transaction_seconds", "0.25");
    assert!(shorter <= 1.0, "{page}");
    assert_eq!(transactions, 2.0, "{page}");
    assert!((waited..=2.0 * most).contains(&lasted), "{lasted} s, with a wait of {waited} s");
    let (_, queries, queried) = histogram(&page, "pgimbal_query_seconds", "30");
    assert_eq!(queries, 3.0, "{page}");
    assert!(queried < lasted, "{queried} of {lasted} s");
}

#[test]
fn a_failed_login_is_counted_by_its_result() {
    let pg = Postgres::start();
    let proxy = Config::before(&pg).set("auth_type", "\"scram-sha-256\"").start();
    let _ = proxy.connect().log_in(&Login::new("app", "app", "wrong"));
    let page = proxy.metrics();
    let failed = ["result=\"authentication_failed\""];
    assert_eq!(metric(&page, "pgimbal_logins_total", &failed), Some(1.0), "{page}");
}

#[test]
fn livez_never_asks_a_database_and_a_drain_is_seen_to_its_end() {
    let pg = Postgres::start();
    let at_once = |config: Config| config.set("drain_delay", "\"0s\"");
    let mut proxy = at_once(Config::to_port(free_port())).start();
    assert_eq!(get(proxy.http_port, "/livez").0, 200);
    assert_eq!(get(proxy.http_port, "/readyz").0, 200);
    assert_eq!(get(proxy.http_port, "/no-such-page").0, 404);
    proxy.reload(at_once(Config::before(&pg)));
    let app = Login::new("app", "app", "app-secret");
    eventually("the new server is used", SOON, || proxy.connect().log_in(&app).is_ok());
    let mut client = proxy.client();
    client.ok("begin");
    proxy.signal(Signal::TERM);
    eventually("it drains", SOON, || get(proxy.http_port, "/readyz").0 == 503);
    assert!(get(proxy.http_port, "/readyz").1.contains("draining"));
    assert_eq!(get(proxy.http_port, "/livez").0, 200);
    assert!((metric(&proxy.metrics(), "pgimbal_draining", &[]).unwrap_or(0.0) - 1.0).abs() < 0.1);
    assert_eq!(client.value("select 1"), "1");
    client.ok("commit");
}
