//! `make demo`: pgimbal before a throwaway PostgreSQL, with a crowd of clients to watch.

use pgimbal_benches::client::{Client, Door};
use pgimbal_benches::contender::Contender;
use pgimbal_benches::crowd::Crowd;
use pgimbal_benches::pgbench::percentile;
use pgimbal_benches::place::{Place, raise_open_files};
use pgimbal_benches::postgres::{DATABASE, Postgres, ROLE};
use pgimbal_benches::settings::{Login, POOL_SIZE};
use pgimbal_benches::{Error, Result};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::env;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Clients of the crowd: twenty for each server connection.
const CLIENTS: u32 = 400;

fn main() -> ExitCode {
    match demonstrate() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("demo: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether everything went well.
fn demonstrate() -> Result<bool> {
    let limit = seconds()?;
    let enough = interrupted()?;
    let _ = raise_open_files(2 * u64::from(CLIENTS) + 200);
    let place = Place::new("demo")?;
    println!("starting a throwaway PostgreSQL with pgbench's tables ...");
    let postgres = Postgres::start(&place)?;
    let contender = contender(&place)?;
    let running = contender.start(&place, &postgres, Login::Trust)?;
    println!(
        "\n{} {} listens on 127.0.0.1:{} before PostgreSQL {} on port {}.\nLook around from another terminal:\n\n  \
         psql -h 127.0.0.1 -p {port} -U {ROLE} {DATABASE}   # as an application\n  \
         psql -h 127.0.0.1 -p {port} -U {ROLE} pgimbal -c 'SHOW POOLS'   # the console\n",
        contender.name,
        contender.version,
        running.port,
        postgres.version,
        postgres.port,
        port = running.port,
    );
    let ends =
        limit.map_or("Ctrl-C ends it".to_owned(), |limit| format!("for {} s", limit.as_secs()));
    println!("{CLIENTS} clients over {POOL_SIZE} server connections, {ends}:");
    let crowd = Crowd::default();
    let door = Door::new(running.port, running.role);
    let mut eye = Eye::new(Door::new(postgres.port, ROLE).enter()?);
    crowd.run(&door, CLIENTS, || eye.watch(&crowd, limit, &enough))?;
    Ok(eye.report(&crowd))
}

/// `DEMO_SECONDS`, if it is set.
fn seconds() -> Result<Option<Duration>> {
    match env::var("DEMO_SECONDS").as_deref() {
        Ok("") | Err(_) => Ok(None),
        Ok(text) => match text.parse::<u64>() {
            Ok(seconds) if seconds > 0 => Ok(Some(Duration::from_secs(seconds))),
            _ => Err(Error::Program(format!("DEMO_SECONDS={text} is not a number of seconds"))),
        },
    }
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

fn contender(place: &Place) -> Result<Contender> {
    let target = env::var("CARGO_TARGET_DIR").unwrap_or_else(|_| "target".into());
    let program = env::var("PGIMBAL")
        .map_or_else(|_| Path::new(&target).join("release/pgimbal"), PathBuf::from);
    Contender::pgimbal(place, &program)
}

/// Watches the crowd and, from PostgreSQL's side, the pool.
struct Eye {
    server: Client,
    latencies: Vec<u32>,
    most_clients: usize,
    most_servers: u32,
    elapsed: Duration,
}

impl Eye {
    fn new(server: Client) -> Self {
        Self {
            server,
            latencies: Vec::new(),
            most_clients: 0,
            most_servers: 0,
            elapsed: Duration::ZERO,
        }
    }

    fn watch(&mut self, crowd: &Crowd, limit: Option<Duration>, enough: &AtomicBool) -> Result<()> {
        let start = Instant::now();
        let mut last = start;
        while !enough.load(Ordering::Relaxed) && limit.is_none_or(|limit| start.elapsed() < limit) {
            sleep(Duration::from_millis(100));
            if last.elapsed() >= Duration::from_secs(1) {
                self.look(crowd, start.elapsed(), last.elapsed())?;
                last = Instant::now();
            }
        }
        self.elapsed = start.elapsed();
        Ok(())
    }

    fn look(&mut self, crowd: &Crowd, since_start: Duration, since_last: Duration) -> Result<()> {
        let servers =
            self.server.ask(SERVER_CONNECTIONS)?.and_then(|count| count.parse().ok()).unwrap_or(0);
        let clients = crowd.connected();
        self.most_clients = self.most_clients.max(clients);
        self.most_servers = self.most_servers.max(servers);
        let mut fresh = crowd.take_latencies();
        fresh.sort_unstable();
        // On a terminal one line is kept up to date, in a log each has its own.
        let (begin, end) =
            if std::io::stdout().is_terminal() { ("\r\x1b[K", "") } else { ("", "\n") };
        print!(
            "{begin}{:>4} s  {clients} clients on {servers:>2} server connections  {:>6.0} transactions/s  \
             p50 {:.2} ms  p99 {:.2} ms  {} errors{end}",
            since_start.as_secs(),
            fresh.len() as f64 / since_last.as_secs_f64(),
            percentile(&fresh, 0.50) / 1e3,
            percentile(&fresh, 0.99) / 1e3,
            crowd.errors(),
        );
        let _ = std::io::stdout().flush();
        self.latencies.append(&mut fresh);
        Ok(())
    }

    /// Prints the summary and judges it.
    fn report(mut self, crowd: &Crowd) -> bool {
        self.latencies.append(&mut crowd.take_latencies());
        self.latencies.sort_unstable();
        let transactions = self.latencies.len();
        println!(
            "\n\n  seconds             {:.1}\n  clients             {}\n  server connections  {} at most\n  \
             transactions        {transactions}\n  errors              {}\n  latency             \
             p50 {:.2} ms, p99 {:.2} ms\n",
            self.elapsed.as_secs_f64(),
            self.most_clients,
            self.most_servers,
            crowd.errors(),
            percentile(&self.latencies, 0.50) / 1e3,
            percentile(&self.latencies, 0.99) / 1e3,
        );
        for message in crowd.messages() {
            println!("  error: {message}");
        }
        let within_pool = self.most_servers <= POOL_SIZE;
        if !within_pool {
            println!("  error: more server connections than the pool's {POOL_SIZE}");
        }
        transactions > 0 && crowd.errors() == 0 && within_pool
    }
}

/// Everybody else's connections, as PostgreSQL itself counts them.
const SERVER_CONNECTIONS: &str = "SELECT count(*) FROM pg_stat_activity \
     WHERE backend_type = 'client backend' AND datname = current_database() AND pid <> pg_backend_pid()";
