//! Figures of a failover: how long writes wait for another primary, and how soon a silent one is
//! noticed.

use crate::Result;
use crate::client::Endpoint;
use crate::demo::applications::Applications;
use crate::demo::{APPLICATION, cluster};
use crate::figures::relay::Relay;
use crate::figures::{Figure, PATIENCE};
use crate::postgres::password;
use pgimbal_tests::cluster::Frozen;
use pgimbal_tests::pgimbal::Config;
use pgimbal_tests::{Cluster, Login, Pgimbal, eventually};
use std::panic::resume_unwind;
use std::thread::{self, ScopedJoinHandle, sleep};
use std::time::{Duration, Instant};

/// Number of times that each is measured.
const TIMES: usize = 3;
/// Number of applications of the busy cluster.
const BUSY: u32 = 200;

/// Measures failovers of an idle and of a busy cluster, and primaries that fall silent.
///
/// # Errors
/// When a relay cannot listen, or the system refuses threads for the applications.
///
/// # Panics
/// When a server does not do what it is told.
pub fn measure() -> Result<Vec<Figure>> {
    let mut cluster = cluster::start();
    let pgimbal = before(&cluster, |config| config);
    let mut primary = 0;
    let mut idle = Vec::new();
    for _ in 0..TIMES {
        idle.push(fail_over(&mut cluster, &pgimbal, primary));
        primary = restore(&mut cluster, &pgimbal, primary);
    }
    let applications = Applications::default();
    let endpoint = || Endpoint::new(pgimbal.port, APPLICATION);
    let busy = applications.run(BUSY, endpoint, || {
        let mut busy = Vec::new();
        for _ in 0..TIMES {
            sleep(Duration::from_secs(2));
            applications.observations.seen().disturbed(true);
            busy.push(fail_over(&mut cluster, &pgimbal, primary));
            sleep(Duration::from_secs(1));
            applications.observations.seen().disturbed(false);
            primary = restore(&mut cluster, &pgimbal, primary);
        }
        busy
    })?;
    let seen = applications.observations.seen();
    let mut figures = vec![
        Figure::time(
            "idle, primary killed: the first write after the promoted node accepts writes",
            Duration::from_millis(300),
            &idle,
        ),
        Figure::time("the same with 200 busy clients", Duration::from_millis(700), &busy),
        Figure::number(
            "client connections closed, and errors nobody can explain",
            "in all",
            0.0,
            seen.accidents as f64,
        ),
    ];
    drop(seen);
    figures.extend(silent(&cluster, primary)?);
    Ok(figures)
}

/// A pgimbal before both nodes, with the intervals that it has unless it is told otherwise.
fn before(cluster: &Cluster, change: impl FnOnce(Config) -> Config) -> Pgimbal {
    let config = Config::before_cluster(cluster)
        .without(&["workers", "pool_size", "probe_interval", "probe_timeout"])
        .set("auth_type", "\"scram-sha-256\"")
        .tables(&format!("[users.{APPLICATION}]\npassword = \"{}\"", password(APPLICATION)));
    let pgimbal = change(config).start();
    eventually("a primary and a replica", PATIENCE, || both_serve(&pgimbal));
    pgimbal
}

fn states(pgimbal: &Pgimbal) -> Vec<String> {
    let cells = pgimbal.console("show nodes").into_iter().flatten();
    cells.filter(|(column, _)| column == "state").map(|(_, state)| state).collect()
}

fn both_serve(pgimbal: &Pgimbal) -> bool {
    let states = states(pgimbal);
    ["primary", "replica"].iter().all(|wanted| states.iter().any(|state| state == wanted))
}

/// Kills the primary, promotes the other at once; from that one's accepting writes to the first
/// write through pgimbal that was begun after the kill.
fn fail_over(cluster: &mut Cluster, pgimbal: &Pgimbal, primary: usize) -> Duration {
    let other = 1 - primary;
    let mut witness = cluster.nodes[other].superuser();
    let mut client = pgimbal.log_in(&Login::new(APPLICATION, "app", &password(APPLICATION)));
    let write = "insert into work values ('a figure')";
    client.ok(write);
    cluster.nodes[primary].kill();
    thread::scope(|scope| {
        let written = scope.spawn(move || {
            // An error is an answer too, and not the one that is waited for.
            while let Some(error) = client.query(write).errors().pop() {
                assert_ne!(error.code, "57P03", "{}", error.message);
            }
            Instant::now()
        });
        let accepted = scope.spawn(move || {
            while witness.value("select pg_is_in_recovery()") != "f" {
                sleep(Duration::from_millis(1));
            }
            Instant::now()
        });
        cluster.nodes[other].promote();
        let ended = |thread: ScopedJoinHandle<'_, Instant>| {
            thread.join().unwrap_or_else(|panic| resume_unwind(panic))
        };
        ended(written).saturating_duration_since(ended(accepted))
    })
}

/// Makes the killed node a replica of the new primary, which is returned.
fn restore(cluster: &mut Cluster, pgimbal: &Pgimbal, killed: usize) -> usize {
    let primary = 1 - killed;
    // After a crash pg_rewind wants a server that was shut down in order.
    cluster.nodes[killed].start();
    cluster.rejoin(killed, primary);
    eventually("the old primary is a replica", PATIENCE, || both_serve(pgimbal));
    primary
}

/// A primary that stands still, and one whose network swallows everything.
fn silent(cluster: &Cluster, primary: usize) -> Result<Vec<Figure>> {
    let node = &cluster.nodes[primary];
    let relay = Relay::start(node.port)?;
    let pgimbal = before(cluster, |config| config.node(&node.name, "127.0.0.1", relay.port));
    let frozen = silences(&pgimbal, || node.freeze(), Frozen::thaw);
    let swallowed = silences(&pgimbal, || relay.swallow(true), |()| relay.swallow(false));
    let bound = Duration::from_secs(3);
    Ok(vec![
        Figure::time("a frozen primary (SIGSTOP) is noticed", bound, &frozen),
        Figure::time("a primary whose network swallows all is noticed", bound, &swallowed),
    ])
}

/// How long pgimbal takes to notice each silence of the primary.
fn silences<T>(pgimbal: &Pgimbal, begin: impl Fn() -> T, end: impl Fn(T)) -> Vec<Duration> {
    let measure = |time| {
        // Anywhere between two probes.
        sleep(Duration::from_millis(1000 + 310 * time as u64));
        let silence = begin();
        let gone = || states(pgimbal).iter().all(|state| state != "primary");
        let took = eventually("the silence is noticed", PATIENCE, gone);
        end(silence);
        eventually("the primary is back", PATIENCE, || both_serve(pgimbal));
        took
    };
    (0..TIMES).map(measure).collect()
}
