//! Random sequences of one client on the pool and on PostgreSQL side by side: the replies and the
//! session's state must be equal, and no other client may see anything of it. Statement 35.
//!
//! - `PGIMBAL_STATE_SEED=7` replays a seed and prints its script,
//! - `PGIMBAL_STATE_SCRIPT=file` runs the script in a file on every kind of pool,
//! - `PGIMBAL_STATE_SEEDS=100000` is a long run, `PGIMBAL_STATE_FIRST=1` where it begins,
//! - `PGIMBAL_STATE_KEEP=20` goes on until so many differences are found (otherwise 3),
//! - `PGIMBAL_STATE_VERIFY=text|calls|always` is pgimbal's option (otherwise by the seed),
//! - `PGIMBAL_STATE_DIRECT=1` has PostgreSQL on both sides, which judges the fuzzer itself.

mod database;
mod dice;
mod exceptions;
mod found;
mod generate;
mod lane;
mod look;
mod objects;
mod run;
mod script;
mod shrink;
mod side;
mod texts;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use pgimbal_tests::{Login, Postgres, WireClient};

use generate::{Kind, script};
use lane::{Lane, Verify, databases};
use run::{Difference, run};
use script::{Script, Step};
use shrink::{fresh, shrink};

/// Each lane's kind of pool, by the seed modulo their count.
const KINDS: [Kind; 4] = [
    Kind { hidden: false, two: false },
    Kind { hidden: true, two: false },
    Kind { hidden: false, two: true },
    Kind { hidden: true, two: true },
];
/// How many sequences `make test` runs.
const SEEDS: u64 = 2000;
/// The same where PostgreSQL is on both sides.
const DIRECT_SEEDS: u64 = 400;

/// A difference with the smallest script that shows it.
struct Found {
    seed: u64,
    difference: Difference,
    script: Script,
    note: &'static str,
}

/// A server with everything that sequences use, and databases for `lanes`.
fn server(settings: &[&str], lanes: usize) -> Postgres {
    let pg = Postgres::with(settings);
    pg.run(database::TEMPLATE);
    let mut client = WireClient::unix(&pg.socket());
    client.log_in(&Login::new("postgres", "postgres", "")).expect("a superuser's login");
    for name in (0..lanes).flat_map(databases) {
        client.ok(&format!("create database {name} template app"));
    }
    pg
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|value| value.parse().ok())
}

/// Runs the seeds and fails with what was found.
fn fuzz(count: u64, verify: Option<&Verify>) {
    let one = number("PGIMBAL_STATE_SEED");
    let first = one.or_else(|| number("PGIMBAL_STATE_FIRST")).unwrap_or(1);
    let count = if one.is_some() { 1 } else { number("PGIMBAL_STATE_SEEDS").unwrap_or(count) };
    let enough = number("PGIMBAL_STATE_KEEP").map_or(3, |keep| usize::try_from(keep).expect("few"));
    let pg = server(&["shared_preload_libraries=plpgsql"], KINDS.len());
    let found = Mutex::new(Vec::new());
    let done = AtomicU64::new(0);
    let start = Instant::now();
    std::thread::scope(|scope| {
        for (lane, kind) in KINDS.into_iter().enumerate() {
            let (pg, found, done) = (&pg, &found, &done);
            scope.spawn(move || {
                let seeds = (first..first + count).filter(|seed| seed % 4 == lane as u64);
                let mut seeds = seeds.peekable();
                if seeds.peek().is_none() {
                    return;
                }
                let mut lane = Lane::new(pg, lane, kind, verify);
                let mut before = None;
                for seed in seeds {
                    if lock(found).len() >= enough {
                        return;
                    }
                    let script = sequence(seed, kind, verify);
                    if one.is_some() {
                        eprintln!("seed {seed}, {kind:?}:\n{script}");
                    }
                    let now = Now(seed, &script);
                    let difference = run(&mut lane, &script);
                    drop(now);
                    if let Some(difference) = difference {
                        let told = judge(&mut lane, seed, &script, before, difference);
                        eprintln!("{told}");
                        lock(found).push(told);
                        lane.renew();
                    }
                    done.fetch_add(1, Ordering::Relaxed);
                    before = Some(script);
                }
            });
        }
    });
    let (done, seconds) = (done.into_inner(), start.elapsed().as_secs_f64());
    eprintln!("{done} sequences in {seconds:.1} s");
    let found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    assert!(found.is_empty(), "{} differences, see above", found.len());
}

/// Says which sequence it was when the harness itself fails.
struct Now<'a>(u64, &'a Script);

impl Drop for Now<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the harness failed in PGIMBAL_STATE_SEED={}:\n{}", self.0, self.1);
        }
    }
}

fn lock(found: &Mutex<Vec<Found>>) -> std::sync::MutexGuard<'_, Vec<Found>> {
    found.lock().unwrap_or_else(PoisonError::into_inner)
}

fn sequence(seed: u64, kind: Kind, verify: Option<&Verify>) -> Script {
    let hidden = kind.hidden && verify.is_none_or(Verify::may_hide);
    script(seed, Kind { hidden, ..kind })
}

/// Finds out whether `script` shows the difference by itself, and makes it small.
fn judge(
    lane: &mut Lane,
    seed: u64,
    script: &Script,
    before: Option<Script>,
    seen: Difference,
) -> Found {
    let _now = Now(seed, script);
    if let Some(difference) = fresh(lane, script) {
        let (script, difference) = shrink(lane, script.clone(), difference);
        return Found { seed, difference, script, note: "" };
    }
    if let Some(mut both) = before {
        both.steps.push(Step::Relog);
        both.steps.extend(script.steps.clone());
        if let Some(difference) = fresh(lane, &both) {
            let (script, difference) = shrink(lane, both, difference);
            return Found { seed, difference, script, note: ", behind the sequence before it" };
        }
    }
    let script = script.clone();
    Found { seed, difference: seen, script, note: ", which it did not show again by itself" }
}

impl std::fmt::Display for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (seed, note) = (self.seed, self.note);
        writeln!(f, "--- PGIMBAL_STATE_SEED={seed}{note}\n{}", self.difference.text)?;
        write!(f, "{}---", self.script)
    }
}

/// Whether the pool should be judged: once it has the option, or when somebody asks.
fn is_asked() -> bool {
    let asked = ["PGIMBAL_STATE_SEED", "PGIMBAL_STATE_SEEDS", "PGIMBAL_STATE_SCRIPT"];
    Verify::is_known() || asked.iter().any(|name| std::env::var_os(name).is_some())
}

#[test]
fn state_fuzz_the_pool_is_a_postgresql_of_ones_own() {
    if is_asked() && number("PGIMBAL_STATE_DIRECT").is_none() {
        fuzz(SEEDS, Some(&Verify::asked()));
    }
}

#[test]
fn state_fuzz_two_sessions_of_postgresql_show_no_difference() {
    if !is_asked()
        || number("PGIMBAL_STATE_DIRECT").is_some()
        || number("PGIMBAL_STATE_SEEDS").is_none()
    {
        fuzz(DIRECT_SEEDS, None);
    }
}
