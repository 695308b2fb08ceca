//! The server connections of all replicas together, counted on the server every 10 ms.

use std::time::Duration;

use pgimbal_tests::backend_watcher::Watched;
use pgimbal_tests::cluster::Cluster;
use pgimbal_tests::until::{SOON, always, eventually};
use pgimbal_tests::{BackendWatcher, Login, Postgres, Relay};

use super::load::{Load, Work};
use super::setup::{Setup, app, rows};

/// `max_server_connections` of the server.
const BUDGET: usize = 24;
/// The part of each replica.
const SHARE: usize = BUDGET / 3;
/// Clients of each replica, fewer than the budget and more than a replica's share of it.
const CLIENTS: usize = 14;
/// How long each state of the load lasts at least.
const PHASE: Duration = Duration::from_millis(800);

fn start() -> Setup {
    Setup::before(Cluster::start(1), |_, config| {
        config.cluster("max_server_connections", BUDGET).set("max_replicas", 3)
    })
}

/// Queries that occupy a server connection for most of the time.
fn work() -> Work {
    Work { login: app(), sql: "select pg_sleep(0.02), 'busy'", pause: Duration::from_millis(5) }
}

/// Lets so many clients of each replica work for a while, in which each is served.
fn phase(load: &Load, active: [usize; 3]) {
    load.shift(&active);
    load.wait_until_each_is_served();
    // Clients of a replica that serves nobody now, because it was killed, may notice late.
    let idle: Vec<String> = (1..)
        .zip(active)
        .filter(|(_, active)| *active == 0)
        .map(|(n, _)| format!("r{n}:"))
        .collect();
    let errors = || {
        let mut errors = load.errors();
        errors.retain(|error| !idle.iter().any(|replica| error.starts_with(replica)));
        errors
    };
    let before = errors();
    always("no new error", PHASE, || errors() == before);
    load.wait_until_each_is_served();
}

/// A column of a replica's row of the primary in `SHOW BUDGET`; 0 where it is NULL, or not there
/// since no connection was opened yet.
fn of_budget(setup: &Setup, replica: usize, column: &str) -> usize {
    let port = setup.cluster.nodes[0].port.to_string();
    let rows = rows(setup.replica(replica), "show budget");
    let row = rows.iter().find(|row| row["server"].ends_with(&port));
    row.and_then(|row| row[column].parse().ok()).unwrap_or(0)
}

#[track_caller]
fn never_above(watched: &Watched) {
    eprintln!(
        "at most {} of {BUDGET} in {} counts, at most {:?} apart",
        watched.most, watched.counts, watched.longest_gap
    );
    assert!(watched.most <= BUDGET, "{} backends:\n{}", watched.most, watched.above.join("\n"));
}

#[test]
fn replicas_together_never_exceed_the_budget_of_a_server() {
    let mut setup = start();
    let watcher = BackendWatcher::start(&setup.cluster.nodes[0], BUDGET);
    let load = Load::idle(&setup.deployment, &setup.cluster.nodes[0], CLIENTS, &work());
    // Whatever one does not need, the others get.
    load.shift(&[CLIENTS, 1, 1]);
    eventually("the first borrows", SOON, || of_budget(&setup, 0, "borrowed") > SHARE / 2);
    for active in [[14, 1, 1], [14, 14, 14], [0, 14, 2], [2, 2, 14], [14, 14, 14]] {
        phase(&load, active);
    }
    // A link breaks while tokens are lent.
    setup.deployment.links_of(0).for_each(Relay::lose);
    for active in [[14, 4, 14], [2, 14, 14], [14, 14, 14]] {
        phase(&load, active);
    }
    setup.deployment.heal();
    setup.deployment.wait_until_joined();
    phase(&load, [14, 14, 14]);
    // One is killed in the middle of its work, and is back with what it had.
    setup.deployment.replicas[1].kill();
    phase(&load, [14, 0, 14]);
    setup.deployment.replicas[1].restart();
    setup.deployment.wait_until_joined();
    setup.wait_until_writable(1);
    for active in [[4, 14, 4], [14, 14, 14]] {
        phase(&load, active);
    }
    let seen = load.stop();
    let errors: Vec<&String> =
        seen.errors.iter().filter(|error| !error.starts_with("r2:")).collect();
    assert!(errors.is_empty(), "{errors:?}");
    never_above(&watcher.stop());
}

#[test]
fn replicas_tokens_of_a_killed_one_come_back_though_another_server_is_down() {
    let mut other = Postgres::start();
    let table = format!(
        "[databases.other]\nhost = \"127.0.0.1\"\nport = {}\ndbname = \"app\"\n\
         max_server_connections = {BUDGET}",
        other.port
    );
    let mut setup = Setup::before(Cluster::start(1), |_, config| {
        config.cluster("max_server_connections", BUDGET).set("max_replicas", 3).tables(&table)
    });
    let login = Login::new("app", "other", "app-secret");
    for replica in 0..3 {
        let _ = setup.replica(replica).log_in(&login).ok("select 1");
    }
    let watcher = BackendWatcher::start(&setup.cluster.nodes[0], BUDGET);
    let load = Load::idle(&setup.deployment, &setup.cluster.nodes[0], CLIENTS, &work());
    load.shift(&[1, 1, CLIENTS]);
    eventually("the third borrows", SOON, || of_budget(&setup, 2, "borrowed") > SHARE / 2);
    other.stop();
    setup.deployment.replicas[2].kill();
    // Whoever is left is served, with what it has.
    phase(&load, [3, 3, 0]);
    let lent = || of_budget(&setup, 0, "lent") + of_budget(&setup, 1, "lent");
    assert!(lent() > 0, "nothing was lent to it");
    // The server must have shown no process of it for a minute.
    let took = eventually("the loans are back", Duration::from_secs(100), || lent() == 0);
    eprintln!("the loans of the killed one are back {took:?} later");
    load.shift(&[CLIENTS, CLIENTS, 0]);
    // Each process of a prober is one of them.
    eventually("both use their shares", SOON, || watcher.now() >= 2 * SHARE - 2);
    setup.deployment.replicas[2].restart();
    setup.deployment.wait_until_joined();
    setup.wait_until_writable(2);
    load.shift(&[CLIENTS, CLIENTS, 1]);
    eventually("it has a slot", SOON * 2, || of_budget(&setup, 2, "share") == SHARE);
    phase(&load, [CLIENTS; 3]);
    let seen = load.stop();
    let errors: Vec<&String> =
        seen.errors.iter().filter(|error| !error.starts_with("r3:")).collect();
    assert!(errors.is_empty(), "{errors:?}");
    never_above(&watcher.stop());
}

#[test]
fn replicas_one_that_starts_without_the_store_takes_no_more_than_the_margin() {
    let mut setup = start();
    let watcher = BackendWatcher::start(&setup.cluster.nodes[0], BUDGET);
    let load = Load::start(&setup.deployment, &setup.cluster.nodes[0], CLIENTS, &work());
    phase(&load, [14, 14, 0]);
    // It has never had a slot that it could know of, and cannot ask anybody.
    setup.deployment.replicas[2].kill();
    setup.deployment.take_store_away();
    setup.deployment.links_of(2).for_each(Relay::lose);
    setup.deployment.replicas[2].restart();
    setup.wait_until_writable(2);
    phase(&load, [14, 14, 4]);
    setup.deployment.bring_store_back();
    setup.deployment.heal();
    setup.deployment.wait_until_joined();
    phase(&load, [2, 2, 14]);
    let seen = load.stop();
    assert!(seen.errors.iter().all(|error| error.starts_with("r3:")), "{:?}", seen.errors);
    never_above(&watcher.stop());
}
