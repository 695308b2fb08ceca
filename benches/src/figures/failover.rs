//! How long writes wait for another primary, and how soon a silent one is noticed.

use crate::client::Door;
use crate::demo::applications::Applications;
use crate::demo::cluster::Cluster;
use crate::demo::{APPLICATION, PROBE};
use crate::figures::Figure;
use crate::figures::instance::Instance;
use crate::figures::relay::Relay;
use crate::place::Place;
use crate::postgres::{DATABASE, PASSWORD};
use crate::{Error, Result};
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

/// How often each is measured.
const TIMES: usize = 3;
/// Applications of the busy cluster.
const BUSY: u32 = 200;

/// Measures failovers of an idle and of a busy cluster, and silent primaries.
///
/// # Errors
/// When a server does not do what it is told.
pub fn measure(place: &Place, program: &Path) -> Result<Vec<Figure>> {
    let mut cluster = Cluster::start(place, &AtomicBool::new(false))?;
    let pgimbal = before(place, program, [cluster.nodes[0].port, cluster.nodes[1].port])?;
    let mut idle = Vec::new();
    let mut primary = 0;
    for _ in 0..TIMES {
        idle.push(fail_over(&mut cluster, &pgimbal, primary)?);
        primary = restore(place, &mut cluster, &pgimbal, primary)?;
    }
    let applications = Applications::default();
    let door = || Door::new(pgimbal.port, APPLICATION);
    let busy = applications.run(BUSY, door, || {
        let mut busy = Vec::new();
        for _ in 0..TIMES {
            sleep(Duration::from_secs(2));
            applications.ledger.seen().disturbed(true);
            busy.push(fail_over(&mut cluster, &pgimbal, primary)?);
            sleep(Duration::from_secs(1));
            applications.ledger.seen().disturbed(false);
            primary = restore(place, &mut cluster, &pgimbal, primary)?;
        }
        Ok(busy)
    })?;
    let seen = applications.ledger.seen();
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
    figures.extend(silent(place, program, &cluster, primary)?);
    Ok(figures)
}

fn before(place: &Place, program: &Path, [a, b]: [u16; 2]) -> Result<Instance> {
    let tables = format!(
        "[clusters.main]\nprobe_user = \"{PROBE}\"\nprobe_password = \"{PASSWORD}\"\n\
         [clusters.main.nodes]\na = {{ host = \"127.0.0.1\", port = {a} }}\n\
         b = {{ host = \"127.0.0.1\", port = {b} }}\n\n\
         [databases.{DATABASE}]\ncluster = \"main\"\n\n\
         [users.{APPLICATION}]\npassword = \"{PASSWORD}\"\n"
    );
    let pgimbal = Instance::start(place, program, "", &tables)?;
    pgimbal.wait("a primary and a replica", || both_serve(&pgimbal))?;
    Ok(pgimbal)
}

fn states(pgimbal: &Instance) -> Result<Vec<String>> {
    let reply = pgimbal.console("SHOW NODES")?;
    Ok(reply.rows.iter().map(|row| reply.field(row, "state").to_owned()).collect())
}

fn both_serve(pgimbal: &Instance) -> Result<bool> {
    let states = states(pgimbal)?;
    Ok(["primary", "replica"].iter().all(|wanted| states.iter().any(|state| state == wanted)))
}

/// Kills the primary, promotes the other at once; from that one's accepting writes to the first
/// write through pgimbal that was begun after the kill.
fn fail_over(cluster: &mut Cluster, pgimbal: &Instance, primary: usize) -> Result<Duration> {
    let other = 1 - primary;
    let mut witness = cluster.superuser(other)?;
    let mut client = Door::new(pgimbal.port, APPLICATION).enter()?;
    let write = "INSERT INTO work VALUES ('a figure')";
    client.question(write)?;
    cluster.kill(primary);
    thread::scope(|scope| {
        let written = scope.spawn(move || {
            // An error is an answer too, and not the one that is waited for.
            while let Some(error) = client.question(write)?.error {
                if error.code == "57P03" {
                    return Err(Error::Server(error.message));
                }
            }
            Ok(Instant::now())
        });
        let accepted = scope.spawn(move || {
            while witness.ask("SELECT pg_is_in_recovery()")?.as_deref() != Some("f") {
                sleep(Duration::from_millis(1));
            }
            Ok::<_, Error>(Instant::now())
        });
        cluster.promote(other)?;
        let panicked = |_| Err(Error::Program("a client panicked".into()));
        let written = written.join().unwrap_or_else(panicked)?;
        let accepted =
            accepted.join().unwrap_or_else(|_| Err(Error::Program("panicked".into())))?;
        Ok(written.saturating_duration_since(accepted))
    })
}

/// Makes the killed node a replica of the new primary, which is returned.
fn restore(
    place: &Place,
    cluster: &mut Cluster,
    pgimbal: &Instance,
    killed: usize,
) -> Result<usize> {
    let primary = 1 - killed;
    // After a crash pg_rewind wants a server that was shut down in order.
    cluster.start_node(place, killed)?;
    cluster.rejoin(place, killed, primary)?;
    pgimbal.wait("the old primary as a replica", || both_serve(pgimbal))?;
    sleep(Duration::from_millis(500));
    Ok(primary)
}

/// A primary that stands still, and one whose network swallows everything.
fn silent(place: &Place, program: &Path, cluster: &Cluster, primary: usize) -> Result<Vec<Figure>> {
    let relay = Relay::start(cluster.nodes[primary].port)?;
    let mut ports = [cluster.nodes[0].port, cluster.nodes[1].port];
    ports[primary] = relay.port;
    let pgimbal = before(place, program, ports)?;
    let noticed = |begin: &dyn Fn(), end: &dyn Fn()| -> Result<Vec<Duration>> {
        let mut times = Vec::new();
        for time in 0..TIMES {
            // Anywhere between two probes.
            sleep(Duration::from_millis(1000 + 310 * time as u64));
            begin();
            let start = Instant::now();
            let gone = || Ok(states(&pgimbal)?.iter().all(|state| state != "primary"));
            times.push(pgimbal.wait("the silence is noticed", gone)? - start);
            end();
            pgimbal.wait("the primary is back", || both_serve(&pgimbal))?;
        }
        Ok(times)
    };
    let bound = Duration::from_secs(3);
    let frozen = noticed(&|| cluster.freeze(primary), &|| cluster.thaw(primary))?;
    let swallowed = noticed(&|| relay.swallow(true), &|| relay.swallow(false))?;
    Ok(vec![
        Figure::time("a frozen primary (SIGSTOP) is noticed", bound, &frozen),
        Figure::time("a primary whose network swallows all is noticed", bound, &swallowed),
    ])
}
