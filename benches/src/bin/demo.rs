//! `make demo`: pgimbal before a primary and a replica, with applications that notice nothing.

use pgimbal_benches::demo::applications::Applications;
use pgimbal_benches::demo::credentials::Credentials;
use pgimbal_benches::demo::listeners::{self, Notifications};
use pgimbal_benches::demo::pgimbal::{POOL_SIZE, Pgimbal};
use pgimbal_benches::demo::report::Report;
use pgimbal_benches::demo::scenario::{Events, Scenario};
use pgimbal_benches::demo::schedule::Schedule;
use pgimbal_benches::demo::{APPLICATION, OPERATOR, cluster};
use pgimbal_benches::pgbench::percentile;
use pgimbal_benches::postgres::DATABASE;
use pgimbal_benches::threads::RaiseOnDrop;
use pgimbal_benches::{Error, Result, open_files};
use pgimbal_tests::{Cluster, Login, WireClient};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::io::{IsTerminal, Write};
use std::panic::resume_unwind;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicUsize, Ordering};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

/// Applications: ten for each server connection.
const CLIENTS: u32 = 200;

/// What shells give for Ctrl-C: 128 and the signal's number.
const INTERRUPTED: u8 = 130;

fn main() -> ExitCode {
    match demonstrate_unless_interrupted() {
        Ok(Some(true)) => ExitCode::SUCCESS,
        Ok(Some(false)) => ExitCode::FAILURE,
        Ok(None) => {
            eprintln!("\ndemo: interrupted before it began");
            ExitCode::from(INTERRUPTED)
        }
        Err(error) => {
            eprintln!("demo: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether all is well; `None` when it was interrupted before there was anything to report. Nobody
/// waits then for what has begun to start: when this program ends, the leashes of the servers end
/// them and remove their files.
fn demonstrate_unless_interrupted() -> Result<Option<bool>> {
    let schedule = Schedule::from_environment()?;
    let enough = interrupted()?;
    let started = Arc::new(AtomicBool::new(false));
    let flags = (Arc::clone(&started), Arc::clone(&enough));
    let demonstration = thread::spawn(move || demonstrate(schedule, &flags.0, &flags.1));
    while !demonstration.is_finished() {
        if enough.load(Ordering::Relaxed) && !started.load(Ordering::Relaxed) {
            return Ok(None);
        }
        sleep(Duration::from_millis(10));
    }
    demonstration.join().unwrap_or_else(|panic| resume_unwind(panic)).map(Some)
}

/// Whether all is well. `started` is raised when its servers run, `enough` ends it.
fn demonstrate(schedule: Schedule, started: &AtomicBool, enough: &AtomicBool) -> Result<bool> {
    let _ = open_files::raise(2 * u64::from(CLIENTS) + 200);
    println!("starting a throwaway primary and its streaming replica ...");
    let mut cluster = cluster::start();
    let credentials = Credentials::start(&cluster, schedule.rotation)?;
    let pgimbal = Pgimbal::start(&cluster, &credentials, CLIENTS)?;
    started.store(true, Ordering::Relaxed);
    introduce(&pgimbal, &cluster, &credentials, schedule);
    let shown = show(&mut cluster, &credentials, &pgimbal, schedule, enough);
    if !matches!(shown, Ok(true)) {
        eprintln!("\nthe end of its log:\n{}", pgimbal.log_tail());
    }
    shown
}

fn introduce(pgimbal: &Pgimbal, cluster: &Cluster, credentials: &Credentials, schedule: Schedule) {
    let [primary, replica] = [&cluster.nodes[0], &cluster.nodes[1]].map(|node| node.port);
    println!(
        "\n{version} listens on 127.0.0.1:{port} before the primary n1 (port {primary}) and its replica n2 \
         (port {replica}).\nLook around from another terminal:\n\n  export PGPASSFILE={}\n  \
         psql -h 127.0.0.1 -p {port} -U {APPLICATION} {DATABASE}   # as an application\n  \
         psql -h 127.0.0.1 -p {port} -U {OPERATOR} pgimbal -c 'SHOW NODES'   # the console\n",
        pgimbal.pgpass.display(),
        version = pgimbal.version,
        port = pgimbal.port(),
    );
    let ends =
        schedule.end.map_or("Ctrl-C ends it".to_owned(), |end| format!("{} s", end.as_secs()));
    println!(
        "{CLIENTS} applications over {POOL_SIZE} server connections; their password comes from {} and \
         rotates every {} s; the primary dies after {} s; {ends}:",
        credentials.name(),
        schedule.rotation.as_secs(),
        schedule.kill.as_secs()
    );
}

/// A flag that Ctrl-C, a closed terminal and SIGTERM raise.
fn interrupted() -> Result<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&flag))
            .map_err(|error| Error::Io("catching signals".into(), error))?;
    }
    Ok(flag)
}

/// Lets the applications work while the scenario is told, and reports.
fn show(
    cluster: &mut Cluster,
    credentials: &Credentials,
    pgimbal: &Pgimbal,
    schedule: Schedule,
    enough: &AtomicBool,
) -> Result<bool> {
    let applications = Applications::default();
    let (rotations, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let primary = AtomicU16::new(cluster.nodes[0].port);
    let ports = [cluster.nodes[0].port, cluster.nodes[1].port];
    let start = Instant::now();
    let mut monitor = Monitor { ports, ..Monitor::default() };
    let (told, notifications) = thread::scope(|scope| -> Result<(Events, Notifications)> {
        scope.spawn(|| credentials.rotate(&primary, &rotations, &stop));
        scope.spawn(|| monitor.watch(&applications, &rotations, start, &stop));
        let endpoint = pgimbal.endpoint(credentials);
        let observations = &applications.observations;
        let flag = &stop;
        let listening = scope.spawn(move || listeners::run(&endpoint, observations, flag));
        let stop = RaiseOnDrop(&stop);
        let told = applications.run(
            CLIENTS,
            || pgimbal.endpoint(credentials),
            || {
                Scenario {
                    cluster: &mut *cluster,
                    pgimbal,
                    applications: &applications,
                    schedule,
                    primary: &primary,
                    enough,
                    start,
                }
                .run()
            },
        )?;
        drop(stop);
        Ok((told, listening.join().unwrap_or_else(|panic| resume_unwind(panic))?))
    })?;
    let elapsed = start.elapsed();
    let rows = cluster.nodes[usize::from(told.promoted.is_some())].superuser().ok(ALL_WORK).texts();
    let mut seen = applications.observations.seen();
    let rest = std::mem::take(&mut seen.latencies);
    monitor.latencies.extend(rest);
    monitor.latencies.sort_unstable();
    let report = Report {
        elapsed,
        clients: CLIENTS,
        credentials,
        rotations: (rotations.load(Ordering::Relaxed), pgimbal.generations(APPLICATION)),
        told: &told,
        failover: pgimbal.failover(),
        discrepancies: seen
            .discrepancies(rows.iter().filter_map(|row| row.first()).map(String::as_str)),
        seen: &seen,
        notifications: &notifications,
        latencies: &monitor.latencies,
        most_servers: monitor.most_servers,
    };
    Ok(report.print())
}

/// What the applications have written, as the primary has it.
const ALL_WORK: &str = "SELECT id FROM work";

/// Watches the applications and, from the servers' side, pgimbal's connections.
#[derive(Default)]
struct Monitor {
    ports: [u16; 2],
    latencies: Vec<u32>,
    most_servers: [u32; 2],
}

impl Monitor {
    fn watch(
        &mut self,
        applications: &Applications,
        rotations: &AtomicUsize,
        start: Instant,
        stop: &AtomicBool,
    ) {
        let mut last = start;
        while !stop.load(Ordering::Relaxed) {
            sleep(Duration::from_millis(100));
            if last.elapsed() >= Duration::from_secs(1) {
                let since_last = last.elapsed();
                last = Instant::now();
                let rotations = rotations.load(Ordering::Relaxed);
                self.record(applications, rotations, start.elapsed(), since_last);
            }
        }
    }

    fn record(
        &mut self,
        applications: &Applications,
        rotations: usize,
        since_start: Duration,
        since_last: Duration,
    ) {
        for (most, port) in self.most_servers.iter_mut().zip(self.ports) {
            // A node that is down has none.
            *most = (*most).max(servers(port).unwrap_or(0));
        }
        let mut seen = applications.observations.seen();
        let mut fresh = std::mem::take(&mut seen.latencies);
        let told: u64 = seen.errors.values().map(|(count, _)| count).sum();
        let accidents = seen.accidents;
        drop(seen);
        fresh.sort_unstable();
        // On a terminal one line is kept up to date, in a log each has its own.
        let (begin, end) =
            if std::io::stdout().is_terminal() { ("\r\x1b[K", "") } else { ("", "\n") };
        print!(
            "{begin}{:>4} s  {} applications  {:>5.0} transactions/s  p50 {:.2} ms  p99 {:.2} ms  \
             {rotations} rotations  {told} errors explained, {accidents} not{end}",
            since_start.as_secs(),
            applications.connected(),
            fresh.len() as f64 / since_last.as_secs_f64(),
            percentile(&fresh, 0.50) / 1e3,
            percentile(&fresh, 0.99) / 1e3,
        );
        let _ = std::io::stdout().flush();
        self.latencies.append(&mut fresh);
    }
}

/// The applications' server connections on a node, as PostgreSQL itself counts them; `None` while
/// it is down.
fn servers(port: u16) -> Option<u32> {
    let mut client = WireClient::try_tcp(port).ok()?;
    client.log_in(&Login::new("postgres", DATABASE, "")).ok()?;
    let sql = format!("select count(*) from pg_stat_activity where usename = '{APPLICATION}'");
    client.try_query(&sql).ok()?.texts().first()?.first()?.parse().ok()
}
