//! `make bench`: direct PostgreSQL, PgBouncer, pgimbal and poolers named in the environment.

use pgimbal_benches::calls::Counter;
use pgimbal_benches::plan::Plan;
use pgimbal_benches::report::{self, Sample};
use pgimbal_benches::rounds::Comparison;
use pgimbal_benches::settings::{OPEN_FILES, POOL_SIZE};
use pgimbal_benches::target::Target;
use pgimbal_benches::{Error, Result, chart, costs, open_files, postgres, table};
use pgimbal_tests::Postgres;
use serde_json::{Map, Value, json};
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

const USAGE: &str = "\
usage: compare

Environment:
  BENCH=quick                     one short round instead of three long ones
  BENCH=state                     only what following session state costs, about a minute
  BENCH_ONLY=\"direct pgbouncer\"   only these targets; the default is all
  BENCH_SCENARIOS=\"select idle\" only these scenarios
  BENCH_CLIENTS=\"64\"            only these client counts of `select`
  BENCH_ROUNDS=5                  so many rounds
  BENCH_OUT=FOLDER                where report.json, report.md and report.svg go (target/bench)
  PGIMBAL_BIN=PROGRAM             the pgimbal to measure (the one built beside this program)
  PGBOUNCER=FOLDER                a folder with an executable `pgbouncer` (benches/fetch-pgbouncer)
  PGIMBAL_PG_BIN=FOLDER           PostgreSQL's programs (the newest of /usr/lib/postgresql)
  PGIMBAL_KEEP=1                  keep the temporary folders with all logs
  BENCH_POOLER_<name>=COMMAND     another pooler, for example
                                  BENCH_POOLER_other='/opt/other/bin/other {config}'
  BENCH_POOLER_<name>_CONFIG=FILE its configuration, copied to {config}
Both may hold {port} {server_host} {server_port} {database} {user} {password} {verifier}
{pool_size} {auth}; a pooler without {auth} (trust or scram-sha-256) is left out of SCRAM logins.";

fn main() -> ExitCode {
    if env::args().len() > 1 {
        println!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    match compare() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn compare() -> Result<()> {
    let mut plan = Plan::from_environment()?;
    let files = open_files::raise(OPEN_FILES);
    if files < OPEN_FILES {
        plan.idle_clients = u32::try_from(files.saturating_sub(500)).unwrap_or(0);
        eprintln!("only {files} open files are allowed: {} idle clients", plan.idle_clients);
    }
    eprintln!("starting PostgreSQL");
    let postgres = postgres::start();
    let targets = targets(&postgres)?;
    let counter = Counter::find();
    let comparison = Comparison { postgres: &postgres, targets: &targets, plan: &plan, counter };
    let samples = comparison.run(show)?;
    publish(&about(&plan, &postgres, &targets, counter), &samples)
}

fn targets(postgres: &Postgres) -> Result<Vec<Target>> {
    let only = env::var("BENCH_ONLY").unwrap_or_default();
    let wanted = |name: &str| only.is_empty() || only.split([' ', ',']).any(|each| each == name);
    let mut found = Vec::new();
    if wanted("direct") {
        found.push(Target::direct(postgres));
    }
    if wanted("pgbouncer") {
        found.push(Target::pgbouncer(&pgbouncer_folder()?)?);
    }
    if wanted("pgimbal") {
        found.push(Target::pgimbal()?);
    }
    found.extend(Target::from_environment()?.into_iter().filter(|target| wanted(&target.name)));
    Ok(found)
}

fn pgbouncer_folder() -> Result<PathBuf> {
    if let Some(folder) = env::var_os("PGBOUNCER") {
        return Ok(folder.into());
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/fetch-pgbouncer");
    let output = Command::new(script).stderr(std::process::Stdio::inherit()).output();
    let output = output.map_err(|error| Error::Io(format!("running {script}"), error))?;
    if !output.status.success() {
        return Err(Error::Program(format!("{script}: {}", output.status)));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().into())
}

fn show(sample: &Sample) {
    let scenario = sample.scenario;
    let figures: Vec<String> = sample
        .figures
        .iter()
        .map(|(figure, value)| format!("{} {value:.1}", figure.field()))
        .collect();
    eprintln!(
        "round {} {:<11} {:<8} {:>5} clients {:<10} {}",
        sample.round + 1,
        scenario.name,
        scenario.protocol,
        scenario.clients,
        sample.pooler,
        figures.join("  ")
    );
}

/// What a reader must know to process the figures: each key with its sentence.
fn about(
    plan: &Plan,
    postgres: &Postgres,
    targets: &[Target],
    counter: Option<Counter>,
) -> Vec<(String, String)> {
    let versions: Vec<String> =
        targets.iter().map(|each| format!("{} {}", each.name, each.version)).collect();
    let counted = match counter {
        Some(Counter::Perf) => "perf stat -e raw_syscalls:sys_enter, in a run of its own",
        Some(Counter::Strace) => {
            "strace -c, in a run of its own, which slows the pooler and flatters it"
        }
        None => "nothing: neither perf nor strace works here",
    };
    let line = |key: &str, text: String| (key.to_owned(), text);
    vec![
        line("machine", machine()),
        line(
            "postgresql",
            format!(
                "PostgreSQL {}, pgbench scale 10, all on 127.0.0.1 over TCP",
                postgres.value("show server_version")
            ),
        ),
        line("targets", versions.join(", ").trim().to_owned()),
        line(
            "pools",
            format!(
                "transaction pooling over {POOL_SIZE} server connections (session state: one), no TLS"
            ),
        ),
        line("pgbouncer", "pkt_buf = 4096 (its default), max_prepared_statements = 200".into()),
        line(
            "plan",
            format!(
                "{}: medians of {} interleaved rounds of {} s",
                plan.name,
                plan.rounds,
                plan.duration.as_secs_f64()
            ),
        ),
        line(
            "cpu",
            "/proc/PID/task/*/schedstat, split into user and system by the ticks of stat".into(),
        ),
        line("system_calls", counted.into()),
    ]
}

fn machine() -> String {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("unknown", |(_, name)| name);
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib: u64 = memory.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).unwrap_or(0);
    format!("{cores} cores of {model}, {} GB, Linux {}", kib / 1_000_000, kernel.trim())
}

fn publish(about: &[(String, String)], samples: &[Sample]) -> Result<()> {
    let rows = &report::rows(samples);
    let target = env::var("CARGO_TARGET_DIR").unwrap_or_else(|_| "target".into());
    let out =
        env::var_os("BENCH_OUT").map_or_else(|| Path::new(&target).join("bench"), PathBuf::from);
    let lines: Vec<String> = about.iter().map(|(key, text)| format!("{key}: {text}")).collect();
    let markdown = table::markdown(&lines, rows) + &costs::table(samples);
    let fields: Map<String, Value> =
        about.iter().map(|(key, text)| (key.clone(), json!(text))).collect();
    let json = format!("{:#}\n", report::json(&fields, rows));
    let sentence =
        |key: &str| about.iter().find(|(known, _)| known == key).map_or("", |(_, text)| text);
    let svg = chart::svg(&format!("{} on {}", sentence("targets"), sentence("machine")), rows);
    let files = [("report.json", &json), ("report.md", &markdown), ("report.svg", &svg)];
    let written = fs::create_dir_all(&out)
        .and_then(|()| files.iter().try_for_each(|(name, text)| fs::write(out.join(name), text)));
    written.map_err(|error| Error::Io(format!("writing to {}", out.display()), error))?;
    println!("{markdown}\nreport.json, report.md and report.svg are in {}", out.display());
    Ok(())
}
