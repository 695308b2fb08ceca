//! What `route = "auto"` costs, and how many reads it sends to replicas.

use crate::Result;
use crate::figures::{Figure, PATIENCE, median};
use crate::pgbench::{self, Protocol, Scripts};
use crate::usage::Cpu;
use pgimbal_tests::pgimbal::Config;
use pgimbal_tests::{Cluster, Pgimbal, eventually};
use std::fs;
use std::time::Duration;

/// Number of times that each of the two is measured, in turn.
const ROUNDS: usize = 5;
/// Length of each measurement.
const DURATION: Duration = Duration::from_secs(4);
/// Length of each load whose reads are counted.
const LOAD: Duration = Duration::from_secs(8);

/// The databases: `app` has the route `primary`.
const DATABASES: &str = "\
[databases.auto]
cluster = \"c\"
dbname = \"app\"
route = \"auto\"

[databases.waiting]
cluster = \"c\"
dbname = \"app\"
route = \"auto\"
read_wait = \"200ms\"
";

/// A request of a web application that reads: its session, its user and a page, as Django asks for
/// them outside of a transaction. Requests of a client follow on each other after 50 ms or more.
const READING_REQUEST: &str = "\
\\set id random(1, 1000000)
SELECT \"session\".\"aid\", \"session\".\"filler\" FROM \"pgbench_accounts\" \"session\" \
WHERE \"session\".\"aid\" = :id LIMIT 21;
SELECT \"user\".\"bid\", \"user\".\"bbalance\" FROM \"pgbench_branches\" \"user\" \
WHERE \"user\".\"bid\" = 1 LIMIT 21;
SELECT \"item\".\"aid\", \"item\".\"abalance\" FROM \"pgbench_accounts\" \"item\" \
WHERE \"item\".\"aid\" BETWEEN :id AND :id + 20 ORDER BY \"item\".\"aid\" ASC LIMIT 20;
SELECT COUNT(*) AS \"__count\" FROM \"pgbench_tellers\";
SELECT \"item\".\"tid\", \"item\".\"tbalance\" FROM \"pgbench_tellers\" \"item\" \
WHERE \"item\".\"bid\" IN (1, 2, 3);
\\sleep :pause ms
";

/// A request that writes what it was posted and redirects: the browser then asks for a page.
const WRITING_REQUEST: &str = "\
\\set id random(1, 1000000)
SELECT \"session\".\"aid\", \"session\".\"filler\" FROM \"pgbench_accounts\" \"session\" \
WHERE \"session\".\"aid\" = :id LIMIT 21;
BEGIN;
UPDATE \"pgbench_accounts\" SET \"abalance\" = :id WHERE \"aid\" = :id;
INSERT INTO pgbench_history (tid, bid, aid, delta, mtime) VALUES (1, 1, :id, 1, now());
COMMIT;
\\sleep :pause ms
";

/// Measures the CPU time of routed transactions, and counts reads by the node that has served them.
///
/// # Errors
/// When pgbench fails.
pub fn measure() -> Result<Vec<Figure>> {
    let cluster = Cluster::with(1, &["max_connections=200"]);
    pgbench::fill(cluster.nodes[0].port);
    cluster.nodes[0].run("grant all on all tables in schema public to app");
    cluster.settle(0);
    let pgimbal = Config::before_cluster(&cluster)
        .without(&["workers", "pool_size"])
        .set("pool_size", 20)
        .tables(DATABASES)
        .start();
    eventually("the replica is known", PATIENCE, || {
        let cells = pgimbal.console("show nodes").into_iter().flatten();
        cells.filter(|(name, value)| name == "state" && value == "replica").count() == 1
    });
    let mut figures = Vec::new();
    for protocol in [Protocol::Simple, Protocol::Prepared] {
        figures.extend(cost(&pgimbal, protocol)?);
    }
    figures.extend(shares(&pgimbal)?);
    Ok(figures)
}

/// What routing costs: `pgbench -S` with 64 clients, at the primary without being looked at, and
/// at the replica.
fn cost(pgimbal: &Pgimbal, protocol: Protocol) -> Result<[Figure; 2]> {
    let (mut off, mut on) = (Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        // Who follows whom must not matter; the first round warms both up.
        let order = if round % 2 == 0 { ["app", "auto"] } else { ["auto", "app"] };
        for database in order {
            let cpu = cpu_per_transaction(pgimbal, database, protocol)?;
            if round > 0 {
                if database == "app" { &mut off } else { &mut on }.push(cpu);
            }
        }
    }
    let what = format!("CPU time of pgbench -S ({}), route auto instead of off", protocol.name());
    let more = median(&on) - median(&off);
    let each = format!("a cached statement ({}) costs more by", protocol.name());
    Ok([Figure::growth(&what, "us", 5.0, &off, &on), Figure::number(&each, "us", 1.0, more)])
}

fn cpu_per_transaction(pgimbal: &Pgimbal, database: &str, protocol: Protocol) -> Result<f64> {
    let scripts = Scripts::new(pgimbal.port, database, &["-S"], 64).protocol(protocol);
    let before = Cpu::of(pgimbal.process().id());
    let outcome = scripts.run(DURATION)?;
    let spent = Cpu::of(pgimbal.process().id()).since(before).total;
    Ok(spent.as_secs_f64() * 1e6 / outcome.transactions as f64)
}

/// How many reads replicas serve under loads that also write.
fn shares(pgimbal: &Pgimbal) -> Result<Vec<Figure>> {
    let folder = pgimbal_tests::process::directory("requests");
    let (reading, writing) = (folder.join("reading.sql"), folder.join("writing.sql"));
    for (path, text) in [(&reading, READING_REQUEST), (&writing, WRITING_REQUEST)] {
        fs::write(path, text).map_err(|error| crate::Error::Program(error.to_string()))?;
    }
    let requests = [format!("{}@9", reading.display()), format!("{}@1", writing.display())];
    let web = ["-D", "pause=50", "-f", &requests[0], "-f", &requests[1]];
    let mixed = ["-b", "select-only@9", "-b", "tpcb-like@1"];
    let mut figures = Vec::new();
    for (database, how) in [("waiting", "read_wait = 200ms"), ("auto", "read_wait = off")] {
        let load = format!("TPC-B-like, nine selects to one, without a pause, {how}");
        let scripts = Scripts::new(pgimbal.port, database, &mixed, 10);
        figures.push(match database {
            // What is read within 20 ms after an own write the primary serves then, as it must.
            "auto" => {
                let (what, share) = share(pgimbal, &load, scripts)?;
                Figure::unbounded(&what, "%", share)
            }
            _ => bounded(share(pgimbal, &load, scripts)?),
        });
    }
    for (load, protocol) in
        [("Django-like requests", Protocol::Simple), ("Rails-like requests", Protocol::Prepared)]
    {
        let scripts = Scripts::new(pgimbal.port, "auto", &web, 20).protocol(protocol);
        figures.push(bounded(share(pgimbal, &format!("{load}, read_wait = off"), scripts)?));
    }
    Ok(figures)
}

fn bounded((what, share): (String, f64)) -> Figure {
    Figure::at_least(&what, "%", 95.0, share)
}

/// The share of the reads of a load, in percent, that a replica has served, and its name.
fn share(pgimbal: &Pgimbal, what: &str, scripts: Scripts<'_>) -> Result<(String, f64)> {
    let before = reads(pgimbal);
    let outcome = scripts.run(LOAD)?;
    let after = reads(pgimbal);
    let (replica, primary) = (after.0 - before.0, after.1 - before.1);
    let share = 100.0 * replica / (replica + primary).max(1.0);
    let what = format!("{what}: reads on replicas ({:.0} transactions/s)", outcome.per_second);
    Ok((what, share))
}

/// How many texts that only read a replica and the primary have served.
fn reads(pgimbal: &Pgimbal) -> (f64, f64) {
    let page = pgimbal.metrics();
    let counted = |role: &str, reasons: &[&str]| -> f64 {
        let is = |line: &&str| {
            line.starts_with("pgimbal_routed_total{")
                && line.contains(&format!("role=\"{role}\""))
                && reasons.iter().any(|reason| line.contains(&format!("reason=\"{reason}\"")))
        };
        let values = page.lines().filter(is).filter_map(|line| line.rsplit(' ').next());
        values.filter_map(|value| value.parse::<f64>().ok()).sum()
    };
    (counted("replica", &["read"]), counted("primary", &["no_fresh_replica", "refused"]))
}
