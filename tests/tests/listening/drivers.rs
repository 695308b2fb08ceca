//! LISTEN by pgx, lib/pq and pgjdbc on a pool of 5: notifications of others and of their own, and
//! those that come after the connection was lost over which they listen.

use std::process::Command;

use pgimbal_tests::http::metric;
use pgimbal_tests::library::{converse, go_clients, java};
use pgimbal_tests::pgimbal::Config;
use pgimbal_tests::until::{SOON, eventually};
use pgimbal_tests::{Pgimbal, Postgres};

use super::{column, lines, nobody_is_pinned};

fn listens(command: Command) {
    let pg = Postgres::start();
    let config = Config::before(&pg).set("pool_size", 5).set("workers", 1);
    let proxy = config.set("auth_type", "\"scram-sha-256\"").start();
    let _ = converse(command, "pgimbal", proxy.port, |what| {
        assert_eq!(what, "the loss");
        assert!(lines(&proxy) == 1 && nobody_is_pinned(&proxy));
        assert!(pg.backends() <= 6, "{} connections", pg.backends());
        let before = processes(&proxy);
        pg.run("select pg_terminate_backend(pid) from pg_stat_activity where usename = 'scram'");
        eventually("another connection listens", SOON, || {
            let now = processes(&proxy);
            !now.is_empty() && now.iter().all(|process| !before.contains(process))
        });
    });
    assert!(metric(&proxy.metrics(), "pgimbal_notifications_total", &[]) >= Some(120.0));
}

/// The server processes that listen for clients.
fn processes(proxy: &Pgimbal) -> Vec<String> {
    let mut found = column(proxy, "show listeners", "server_pid");
    found.dedup();
    found.retain(|process| process != "0");
    found
}

fn go(driver: &str) -> Command {
    let mut command = go_clients();
    command.args(["listening", driver]);
    command
}

#[test]
fn pgx_listens() {
    listens(go("pgx"));
}

#[test]
fn lib_pq_listens() {
    listens(go("pq"));
}

#[test]
fn pgjdbc_listens() {
    listens(java("Listening", &[]));
}
