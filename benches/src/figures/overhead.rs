//! What rotation, topology and metrics cost the benchmark's transactions.

use crate::Result;
use crate::figures::Figure;
use crate::pgbench::{Load, Protocol};
use crate::postgres::{DATABASE, ROLE, password};
use crate::usage::Cpu;
use pgimbal_tests::pgimbal::Config;
use pgimbal_tests::{Pgimbal, Postgres, VaultStandIn};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

/// Number of times that each of the two is measured, in turn.
const ROUNDS: usize = 7;
/// Length of each measurement.
const DURATION: Duration = Duration::from_secs(4);
/// Time between two rotations.
const ROTATION: Duration = Duration::from_secs(5);

/// Measures `pgbench -S` with 64 clients, with and without rotation, topology and metrics.
///
/// # Errors
/// When pgbench fails.
pub fn measure(postgres: &Postgres) -> Result<Vec<Figure>> {
    let config = || Config::before(postgres).without(&["workers"]).set("pool_size", 20);
    let vault = VaultStandIn::start();
    vault.rotate(ROLE, "rotation-0", ROTATION);
    let off = config().start();
    let on = config()
        .without(&["host", "port", "password"])
        .server("cluster", "\"c\"")
        .cluster("probe_user", format!("\"{ROLE}\""))
        .cluster("probe_password", format!("\"{}\"", password(ROLE)))
        .cluster("probe_database", format!("\"{DATABASE}\""))
        .node("n1", "127.0.0.1", postgres.port)
        .user("vault_role", format!("\"{ROLE}\""))
        .tables(&vault.table("poll_interval = \"30s\""))
        .start();
    let (mut before, mut after) = (Vec::new(), Vec::new());
    let stop = AtomicBool::new(false);
    let measured = thread::scope(|scope| {
        scope.spawn(|| keep_busy(&vault, &on, &stop));
        let measured = rounds(&off, &on, &mut before, &mut after);
        stop.store(true, Ordering::Relaxed);
        measured
    });
    measured?;
    let what = "CPU time of a transaction with rotation, topology and metrics on instead of off";
    Ok(vec![Figure::growth(what, "us", 3.0, &before, &after)])
}

fn rounds(off: &Pgimbal, on: &Pgimbal, before: &mut Vec<f64>, after: &mut Vec<f64>) -> Result<()> {
    for round in 0..=ROUNDS {
        // Who follows whom must not matter; the first round warms both up.
        let order = if round % 2 == 0 { [off, on] } else { [on, off] };
        for pgimbal in order {
            let cpu = cpu_per_transaction(pgimbal)?;
            let list = if std::ptr::eq(pgimbal, off) { &mut *before } else { &mut *after };
            if round > 0 {
                list.push(cpu);
            }
        }
    }
    Ok(())
}

/// Rotates, and reads the metrics once a second.
fn keep_busy(vault: &VaultStandIn, pgimbal: &Pgimbal, stop: &AtomicBool) {
    let mut next = Instant::now();
    let mut second = 0;
    while !stop.load(Ordering::Relaxed) {
        sleep(Duration::from_millis(50));
        if Instant::now() < next {
            continue;
        }
        next += Duration::from_secs(1);
        second += 1;
        let _ = pgimbal.metrics();
        if second % ROTATION.as_secs() == 0 {
            vault.rotate(ROLE, &format!("rotation-{second}"), ROTATION);
        }
    }
}

fn cpu_per_transaction(pgimbal: &Pgimbal) -> Result<f64> {
    let load =
        Load { port: pgimbal.port, protocol: Protocol::Simple, clients: 64, duration: DURATION };
    let before = Cpu::of(pgimbal.process().id());
    let outcome = load.run()?;
    let spent = Cpu::of(pgimbal.process().id()).since(before).total;
    Ok(spent.as_secs_f64() * 1e6 / outcome.transactions as f64)
}
