//! Runs pgbench and reads its per-transaction log.

use crate::postgres::{DATABASE, ROLE};
use crate::{During, Error, Result};
use pgimbal_tests::pgimbal::undisturbed;
use pgimbal_tests::postgres::bin;
use pgimbal_tests::process::directory;
use pgimbal_tests::program;
use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

/// pgbench's scale: 1,000,000 accounts, 150 MB, which fits the server's buffers.
const SCALE: u32 = 10;
/// Time limit of making the tables.
const FILL: Duration = Duration::from_secs(120);

/// The ways in which pgbench sends a statement (option `-M`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// One Query message.
    Simple,
    /// Parse, Bind, Describe, Execute, Sync.
    Extended,
    /// Bind, Describe, Execute, Sync for a named statement.
    Prepared,
}

impl Protocol {
    /// All three, in the order of the report.
    pub const ALL: [Self; 3] = [Self::Simple, Self::Extended, Self::Prepared];

    /// pgbench's name for the protocol: `simple`, `extended` or `prepared`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Simple => "simple",
            Self::Extended => "extended",
            Self::Prepared => "prepared",
        }
    }
}

/// A run of `pgbench -S`: each transaction is one SELECT of an account.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// The port on 127.0.0.1 to which pgbench connects.
    pub port: u16,
    /// How pgbench sends its statements.
    pub protocol: Protocol,
    /// Number of clients that pgbench plays; from 64 on it uses two threads.
    pub clients: u32,
    /// Length of the run, of which pgbench takes whole seconds, at least one.
    pub duration: Duration,
}

/// The result of a run of pgbench.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Number of transactions in the whole run.
    pub transactions: u64,
    /// Transactions per second, without the time of connecting.
    pub per_second: f64,
    /// Median latency of the transactions in microseconds; 0 when none was logged.
    pub p50_us: f64,
    /// 99th percentile of the latency in microseconds; 0 when none was logged.
    pub p99_us: f64,
}

impl Load {
    /// The same load with another length.
    #[must_use]
    pub fn lasting(self, duration: Duration) -> Self {
        Self { duration, ..self }
    }

    /// Runs pgbench to its end, and reads its log of transactions.
    ///
    /// # Errors
    /// When pgbench fails or a client of it was aborted.
    pub fn run(self) -> Result<Outcome> {
        let logs = directory("pgbench");
        let output = pgbench(self.port, ROLE)
            .args(["-S", "-n", "-M", self.protocol.name(), "-c", &self.clients.to_string()])
            .args(["-j", if self.clients < 64 { "1" } else { "2" }])
            .args(["-T", &self.duration.as_secs().max(1).to_string()])
            .args(["-l", "--sampling-rate", if self.clients == 1 { "1" } else { "0.25" }])
            .arg("--log-prefix")
            .arg(logs.join("transactions"))
            .stdin(Stdio::null())
            .output()
            .during("running pgbench")?;
        outcome(&output, &latencies(&logs)?)
    }
}

/// A run of pgbench with chosen scripts, as the tests' user `app` with a password.
#[derive(Clone, Copy, Debug)]
pub struct Scripts<'a> {
    port: u16,
    database: &'a str,
    arguments: &'a [&'a str],
    clients: u32,
    protocol: Protocol,
}

impl<'a> Scripts<'a> {
    /// So many clients that connect to a database at `port` on 127.0.0.1; `arguments` are the
    /// options of pgbench that name the scripts.
    #[must_use]
    pub fn new(port: u16, database: &'a str, arguments: &'a [&'a str], clients: u32) -> Self {
        Self { port, database, arguments, clients, protocol: Protocol::Simple }
    }

    /// The same with this protocol.
    #[must_use]
    pub fn protocol(self, protocol: Protocol) -> Self {
        Self { protocol, ..self }
    }

    /// Runs pgbench for so long; latencies are not logged.
    ///
    /// # Errors
    /// When pgbench fails or a client of it was aborted.
    pub fn run(self, duration: Duration) -> Result<Outcome> {
        let output = pgbench_for(self.port, ROLE, self.database)
            .env("PGPASSWORD", "app-secret")
            .args(["-n", "-M", self.protocol.name(), "-c", &self.clients.to_string()])
            .args(["-j", if self.clients < 64 { "1" } else { "2" }])
            .args(["-T", &duration.as_secs().max(1).to_string()])
            .args(self.arguments)
            .stdin(Stdio::null())
            .output()
            .during("running pgbench")?;
        outcome(&output, &[])
    }
}

/// Makes pgbench's tables on the server at `port` of 127.0.0.1.
///
/// # Panics
/// When pgbench fails or takes longer than 120 s.
pub fn fill(port: u16) {
    let mut command = pgbench(port, "postgres");
    command.args(["-i", "-q", "-I", "dtgvp", "-s", &SCALE.to_string()]);
    let _ = program::run(&mut command, FILL).succeeded();
}

fn pgbench(port: u16, role: &str) -> Command {
    pgbench_for(port, role, DATABASE)
}

fn pgbench_for(port: u16, role: &str, database: &str) -> Command {
    let mut command = undisturbed(bin().join("pgbench"));
    command.args(["-h", "127.0.0.1", "-U", role, "-p", &port.to_string(), "-d", database]);
    command
}

/// The microseconds of the transactions that are logged in `folder`, sorted.
fn latencies(folder: &Path) -> Result<Vec<u32>> {
    let mut latencies = Vec::new();
    for entry in fs::read_dir(folder).during("looking for pgbench's logs")?.flatten() {
        let text = fs::read_to_string(entry.path()).during("reading pgbench's log")?;
        // client_id transaction_no time script_no time_epoch time_us
        latencies
            .extend(text.lines().filter_map(|line| line.split(' ').nth(2)?.parse::<u32>().ok()));
    }
    latencies.sort_unstable();
    Ok(latencies)
}

/// The value below which `share` (0 to 1) of the sorted values lie; 0 when there are none.
#[must_use]
pub fn percentile(sorted: &[u32], share: f64) -> f64 {
    let last = sorted.len().saturating_sub(1) as f64;
    sorted.get((last * share).round() as usize).map_or(0.0, |value| f64::from(*value))
}

fn outcome(output: &Output, latencies: &[u32]) -> Result<Outcome> {
    let text = String::from_utf8_lossy(&output.stdout);
    let number = |before: &str| {
        let rest = &text[text.find(before)? + before.len()..];
        rest.split([' ', '/', '\n']).next()?.parse::<f64>().ok()
    };
    let counted = number("number of transactions actually processed: ").zip(number("tps = "));
    match counted {
        Some((transactions, per_second)) if output.status.success() && transactions > 0.0 => {
            Ok(Outcome {
                transactions: transactions as u64,
                per_second,
                p50_us: percentile(latencies, 0.50),
                p99_us: percentile(latencies, 0.99),
            })
        }
        _ => {
            let errors = String::from_utf8_lossy(&output.stderr);
            let tail: Vec<&str> = errors.lines().rev().take(5).collect();
            Err(Error::Program(format!("pgbench: {}\n{}", output.status, tail.join("\n"))))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_of_few_values_are_among_them() {
        assert_eq!(percentile(&[], 0.5), 0.0);
        assert_eq!(percentile(&[7], 0.99), 7.0);
        assert_eq!(percentile(&[1, 2, 3, 4, 100], 0.5), 3.0);
        assert_eq!(percentile(&[1, 2, 3, 4, 100], 0.99), 100.0);
    }
}
