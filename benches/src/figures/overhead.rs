//! What rotation, topology and metrics cost the benchmark's transactions.

use crate::Result;
use crate::figures::Figure;
use crate::figures::instance::Instance;
use crate::figures::stand_in::StandIn;
use crate::pgbench::{Load, Protocol};
use crate::place::Place;
use crate::postgres::{DATABASE, PASSWORD, Postgres, ROLE};
use crate::usage::Cpu;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

/// Interleaved rounds.
const ROUNDS: usize = 7;
/// How long each lasts.
const DURATION: Duration = Duration::from_secs(4);
/// Between two rotations.
const ROTATION: Duration = Duration::from_secs(5);

/// Measures `pgbench -S` with 64 clients.
///
/// # Errors
/// When pgbench fails.
pub fn measure(place: &Place, postgres: &Postgres, program: &Path) -> Result<Vec<Figure>> {
    let top = "auth_type = \"trust\"\npool_size = 20";
    let plain = format!(
        "[databases.{DATABASE}]\nhost = \"127.0.0.1\"\nport = {}\n\n\
         [users.{ROLE}]\npassword = \"{PASSWORD}\"\n",
        postgres.port
    );
    let vault = StandIn::start()?;
    vault.rotate(ROLE, "rotation-0", ROTATION);
    let full = format!(
        "{}[users.{ROLE}]\nvault_role = \"{ROLE}\"\n\n[clusters.main]\nprobe_user = \"{ROLE}\"\n\
         probe_password = \"{PASSWORD}\"\n[clusters.main.nodes.a]\nhost = \"127.0.0.1\"\n\
         port = {}\n\n[databases.{DATABASE}]\ncluster = \"main\"\n",
        vault.table("30s"),
        postgres.port
    );
    let off = Instance::start(place, program, top, &plain)?;
    let on = Instance::start(place, program, top, &full)?;
    let (mut before, mut after) = (Vec::new(), Vec::new());
    let stop = AtomicBool::new(false);
    let measured = thread::scope(|scope| {
        scope.spawn(|| keep_busy(&vault, &on, &stop));
        let measured = rounds(place, &off, &on, &mut before, &mut after);
        stop.store(true, Ordering::Relaxed);
        measured
    });
    measured?;
    let what = "CPU time of a transaction with rotation, topology and metrics on instead of off";
    Ok(vec![Figure::growth(what, "us", 3.0, &before, &after)])
}

fn rounds(
    place: &Place,
    off: &Instance,
    on: &Instance,
    before: &mut Vec<f64>,
    after: &mut Vec<f64>,
) -> Result<()> {
    for round in 0..=ROUNDS {
        // Who follows whom must not matter; the first round warms both up.
        let order = if round % 2 == 0 { [off, on] } else { [on, off] };
        for pgimbal in order {
            let cpu = cpu_per_transaction(place, pgimbal)?;
            let list = if std::ptr::eq(pgimbal, off) { &mut *before } else { &mut *after };
            if round > 0 {
                list.push(cpu);
            }
        }
    }
    Ok(())
}

/// Rotates, and reads the metrics once a second.
fn keep_busy(vault: &StandIn, pgimbal: &Instance, stop: &AtomicBool) {
    let mut next = Instant::now();
    let mut second = 0;
    while !stop.load(Ordering::Relaxed) {
        sleep(Duration::from_millis(50));
        if Instant::now() < next {
            continue;
        }
        next += Duration::from_secs(1);
        second += 1;
        let _ = pgimbal.http.request("GET", "/metrics", "");
        if second % ROTATION.as_secs() == 0 {
            vault.rotate(ROLE, &format!("rotation-{second}"), ROTATION);
        }
    }
}

fn cpu_per_transaction(place: &Place, pgimbal: &Instance) -> Result<f64> {
    let load =
        Load { port: pgimbal.port, protocol: Protocol::Simple, clients: 64, duration: DURATION };
    let before = Cpu::of(pgimbal.pid());
    let outcome = load.run(place)?;
    let spent = Cpu::of(pgimbal.pid()).since(before).total;
    Ok(spent.as_secs_f64() * 1e6 / outcome.transactions as f64)
}
