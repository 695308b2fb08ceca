//! Random sequences of one client on the pool and on PostgreSQL side by side: the replies and the
//! session's state must be equal, and no other client may see anything of it. Statement 35.
//!
//! From a seed it makes a sequence of one client's messages. Other clients must stand where a new
//! session does, and the client must not be pinned where PostgreSQL shows nothing. There are four
//! kinds of pool, by the seed modulo 4: with and without code that sets what no text shows, and
//! with one or two server connections. `exceptions` lists what is not asked or compared, with the
//! reason. A difference is made small and printed as a script; those that were found are kept in
//! `found` and `fuzzed`, and run each time (`state_fuzz_what_was_found_once`). To run it alone:
//! `cargo test -p pgimbal-tests --test behaviours state_fuzz_the_pool -- --nocapture`, with
//!
//! - `PGIMBAL_STATE_SEED=7` replays a seed and prints its script,
//! - `PGIMBAL_STATE_SCRIPT=file` runs the script in a file on every kind of pool,
//! - `PGIMBAL_STATE_SEEDS=100000` is a long run, `PGIMBAL_STATE_FIRST=1` where it begins,
//! - `PGIMBAL_STATE_KEEP=20` goes on until so many differences are found (otherwise 3),
//! - `PGIMBAL_STATE_VERIFY=text|calls|always` is pgimbal's option (otherwise by the seed),
//! - `PGIMBAL_STATE_PREPARED=1` is pgimbal's `max_prepared_statements` (otherwise 4 in every other),
//! - `PGIMBAL_STATE_LISTEN=share|close|pin` is pgimbal's `listen_mode` (otherwise `share`),
//! - `PGIMBAL_STATE_PINS=0` does not mind pins that outlive their state,
//! - `PGIMBAL_STATE_DIRECT=1` has PostgreSQL on both sides, which checks the fuzzer itself.

mod database;
mod exceptions;
mod found;
mod fuzzed;
mod generate;
mod idioms;
mod lane;
mod look;
mod objects;
mod random;
mod run;
mod script;
mod shrink;
mod side;
mod texts;

use std::any::Any;
use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use pgimbal_tests::{Login, Postgres, WireClient};

use generate::Kind;
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
const SEEDS: u64 = 1500;
/// The same where PostgreSQL is on both sides.
const DIRECT_SEEDS: u64 = 400;

/// How many sequences before one are looked at when it does not show its difference by itself.
const BEFORE: usize = 6;

/// A difference with the smallest script that shows it.
struct Found {
    seed: u64,
    difference: Difference,
    script: Script,
    note: &'static str,
}

/// A server with everything that sequences use, and databases for `lanes`.
fn server(settings: &[&str], lanes: usize) -> Postgres {
    let pg = Postgres::in_memory(settings);
    pg.run(database::TEMPLATE);
    let mut client = WireClient::unix(&pg.socket());
    client.log_in(&Login::new("postgres", "postgres", "")).expect("a superuser's login");
    for name in (0..lanes).flat_map(databases) {
        client.ok(&format!("create database {name} template app"));
    }
    pg
}

/// What the lanes share.
struct Fuzz {
    verify: Option<Verify>,
    seeds: std::ops::Range<u64>,
    /// How many differences end the run.
    enough: usize,
    done: AtomicU64,
    found: Mutex<Vec<Found>>,
    /// How often each kind of difference was seen: more than twice and it is not made small.
    alike: Mutex<BTreeMap<String, usize>>,
}

impl Fuzz {
    fn new(count: u64, verify: Option<Verify>) -> Self {
        let one = number("PGIMBAL_STATE_SEED");
        let first = one.or_else(|| number("PGIMBAL_STATE_FIRST")).unwrap_or(1);
        let count = if one.is_some() { 1 } else { number("PGIMBAL_STATE_SEEDS").unwrap_or(count) };
        let keep = number("PGIMBAL_STATE_KEEP").unwrap_or(3);
        Self {
            verify,
            seeds: first..first + count,
            enough: usize::try_from(keep).expect("few"),
            done: AtomicU64::new(0),
            found: Mutex::default(),
            alike: Mutex::default(),
        }
    }

    /// Runs the seeds and fails with what was found.
    fn run(self) {
        let pg = server(&["shared_preload_libraries=plpgsql"], KINDS.len());
        let start = Instant::now();
        std::thread::scope(|scope| {
            for (number, kind) in KINDS.into_iter().enumerate() {
                let (pg, fuzz) = (&pg, &self);
                scope.spawn(move || fuzz.lane(pg, number, kind));
            }
        });
        let (done, seconds) = (self.done.into_inner(), start.elapsed().as_secs_f64());
        eprintln!("{done} sequences in {seconds:.1} s");
        for (alike, count) in self.alike.into_inner().unwrap_or_else(PoisonError::into_inner) {
            eprintln!("{count} times {alike}");
        }
        let found = self.found.into_inner().unwrap_or_else(PoisonError::into_inner);
        let lines: Vec<String> = found.iter().map(Found::line).collect();
        assert!(found.is_empty(), "{} differences, see above:\n{}", found.len(), lines.join("\n"));
    }

    fn lane(&self, pg: &Postgres, number: usize, kind: Kind) {
        let mut seeds = self.seeds.clone().filter(|seed| seed % 4 == number as u64).peekable();
        if seeds.peek().is_none() {
            return;
        }
        let mut lane = Lane::new(pg, number, kind, self.verify.as_ref());
        let hidden = kind.hidden && self.verify.as_ref().is_none_or(Verify::may_hide);
        let mut before = VecDeque::new();
        for seed in seeds {
            if lock(&self.found).len() >= self.enough {
                return;
            }
            let script = generate::script(seed, Kind { hidden, ..kind });
            if self.seeds.end - self.seeds.start == 1 {
                eprintln!("seed {seed}, {kind:?}:\n{script}");
            }
            let now = Now(seed, &script);
            let difference = run(&mut lane, &script);
            drop(now);
            if let Some(difference) = difference {
                if self.is_new(&difference) {
                    let found = check(&mut lane, seed, &script, &before, difference);
                    eprintln!("{found}");
                    lock(&self.found).push(found);
                }
                lane.renew();
                before.clear();
            }
            self.done.fetch_add(1, Ordering::Relaxed);
            before.truncate(BEFORE - 1);
            before.push_front(script);
        }
    }

    fn is_new(&self, difference: &Difference) -> bool {
        let mut alike = lock(&self.alike);
        let count = alike.entry(difference.alike()).or_default();
        *count += 1;
        *count <= 2
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|value| value.parse().ok())
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

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Finds out whether `script` shows the difference by itself, and makes it small.
fn check(
    lane: &mut Lane,
    seed: u64,
    script: &Script,
    before: &VecDeque<Script>,
    seen: Difference,
) -> Found {
    let _now = Now(seed, script);
    if let Some(difference) = fresh(lane, script) {
        let (script, difference) = shrink(lane, script.clone(), difference);
        return Found { seed, difference, script, note: "" };
    }
    for count in [1, before.len()] {
        let mut both = Script { login: script.login.clone(), steps: Vec::new() };
        for earlier in before.iter().take(count).rev() {
            both.steps.extend(earlier.steps.clone());
            both.steps.push(Step::Relog);
        }
        both.steps.extend(script.steps.clone());
        if let Some(difference) = fresh(lane, &both) {
            let (script, difference) = shrink(lane, both, difference);
            return Found { seed, difference, script, note: ", behind those before it" };
        }
    }
    let script = script.clone();
    Found { seed, difference: seen, script, note: ", which it did not show again by itself" }
}

impl Found {
    /// It on one line, without the script.
    fn line(&self) -> String {
        format!("PGIMBAL_STATE_SEED={}{}: {}", self.seed, self.note, self.difference.text)
            .replace('\n', " ")
    }
}

impl std::fmt::Display for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (seed, note) = (self.seed, self.note);
        writeln!(f, "--- PGIMBAL_STATE_SEED={seed}{note}\n{}", self.difference.text)?;
        write!(f, "{}---", self.script)
    }
}

/// Whether the pool should be checked: once it has the option, or when somebody asks.
fn is_asked() -> bool {
    let asked = ["PGIMBAL_STATE_SEED", "PGIMBAL_STATE_SEEDS", "PGIMBAL_STATE_SCRIPT"];
    Verify::is_known() || asked.iter().any(|name| std::env::var_os(name).is_some())
}

#[test]
fn state_fuzz_the_pool_is_a_postgresql_of_ones_own() {
    if is_asked() && number("PGIMBAL_STATE_DIRECT").is_none() {
        Fuzz::new(SEEDS, Some(Verify::asked())).run();
    }
}

#[test]
fn state_fuzz_two_sessions_of_postgresql_show_no_difference() {
    if !is_asked()
        || number("PGIMBAL_STATE_DIRECT").is_some()
        || number("PGIMBAL_STATE_SEEDS").is_none()
    {
        replay(&known(), None);
        Fuzz::new(DIRECT_SEEDS, None).run();
    }
}

/// Runs scripts on every kind of pool, each on connections that nobody has used.
fn replay(scripts: &[(String, Script)], verify: Option<&Verify>) {
    // Where no library is loaded ahead, since that is a state of the connection, too.
    let pg = server(&[], KINDS.len());
    let failed: Vec<Failed> = std::thread::scope(|scope| {
        let lanes = KINDS.into_iter().enumerate().map(|(number, kind)| {
            let pg = &pg;
            scope.spawn(move || replay_on(pg, number, kind, scripts, verify))
        });
        let lanes: Vec<_> = lanes.collect();
        lanes.into_iter().flat_map(|lane| lane.join().expect("it catches what fails")).collect()
    });
    // What differs comes first: of a long message not all is shown everywhere.
    let count = failed.len();
    let lines: Vec<String> = failed.iter().map(|one| one.text.replace('\n', " ")).collect();
    let scripts: Vec<String> = failed.iter().map(ToString::to_string).collect();
    assert!(count == 0, "{count} differ:\n{}\n\n{}", lines.join("\n"), scripts.join("\n"));
}

/// A script that did not run as it should.
struct Failed {
    /// Its name, the kind of pool, and what was seen.
    text: String,
    script: Option<Script>,
}

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let script = self.script.as_ref().map(ToString::to_string).unwrap_or_default();
        write!(f, "{}\n{script}", self.text)
    }
}

/// Runs scripts on one kind of pool. Ends where the harness itself fails.
fn replay_on(
    pg: &Postgres,
    number: usize,
    kind: Kind,
    scripts: &[(String, Script)],
    verify: Option<&Verify>,
) -> Vec<Failed> {
    let mut failed = Vec::new();
    let lane = catch_unwind(AssertUnwindSafe(|| Lane::new(pg, number, kind, verify)));
    let mut lane = match lane {
        Ok(lane) => lane,
        Err(panic) => {
            let text = format!("{kind:?}: no pool: {}", words(&*panic));
            return vec![Failed { text, script: None }];
        }
    };
    for (name, script) in scripts {
        let text = match catch_unwind(AssertUnwindSafe(|| fresh(&mut lane, script))) {
            Ok(None) => continue,
            Ok(Some(difference)) => format!("{name}, {kind:?}: {}", difference.text),
            Err(panic) => {
                let text = format!("{name}, {kind:?}: the harness failed: {}", words(&*panic));
                failed.push(Failed { text, script: Some(script.clone()) });
                break;
            }
        };
        failed.push(Failed { text, script: Some(script.clone()) });
    }
    failed
}

/// The words of a panic.
fn words(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without words")
}

fn known() -> Vec<(String, Script)> {
    if let Some(file) = std::env::var_os("PGIMBAL_STATE_SCRIPT") {
        let text = std::fs::read_to_string(&file).expect("a script");
        return vec![(file.to_string_lossy().into_owned(), Script::read(&text))];
    }
    let scenario = |known: &found::Scenario| {
        let mut script = Script::read(known.script);
        // Once more when others have used the connection.
        script.steps.extend([Step::Beside(true), Step::Own]);
        (known.name.to_owned(), script)
    };
    found::STATE.iter().chain(found::KEPT).chain(fuzzed::FUZZED).map(scenario).collect()
}

#[test]
fn state_fuzz_what_was_found_once_stays_right() {
    if is_asked() {
        replay(&known(), Some(&Verify::asked()));
    }
}

#[test]
fn state_fuzz_a_script_is_what_its_text_says() {
    for (_, script) in known() {
        assert_eq!(Script::read(&script.to_string()), script);
    }
    for seed in 1..200 {
        let script = generate::script(seed, Kind { hidden: true, two: true });
        assert_eq!(Script::read(&script.to_string()), script, "{script}");
    }
}
