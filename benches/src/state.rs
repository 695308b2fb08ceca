//! The cost of following session state: a case is a few statements of one or two clients over one
//! server connection, repeated one after the other.

use crate::client::{Client, Endpoint};
use crate::pgbench::percentile;
use crate::report::Figure;
use crate::settings::Tuning;
use crate::target::Running;
use crate::usage::Cpu;
use crate::{Error, Result};
use std::time::{Duration, Instant};

/// The word by which `BENCH_SCENARIOS` selects all cases together.
pub const GROUP: &str = "state";
/// A statement that leaves nothing.
const PLAIN: &str = "SELECT 1";
/// Turns before the first that counts: connections open, statements get known.
const WARM_UP: u32 = 20;

/// Statements whose cost is measured, and the pooler's settings for them.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// The case's name in the report.
    pub name: &'static str,
    turn: Turn,
    verify: &'static str,
}

/// What is done in one turn.
#[derive(Clone, Copy, Debug)]
enum Turn {
    /// One client runs a statement.
    One(&'static str),
    /// Two clients each run one; what they have set before differs.
    Two { settings: [&'static str; 2], texts: [&'static str; 2] },
    /// One client runs two named statements, over a server connection that keeps so many.
    Named { kept: u32 },
    /// A client logs in, which does not count, and runs these and a plain statement.
    Opening(&'static [&'static str]),
}

const fn case(name: &'static str, turn: Turn) -> Case {
    Case { name, turn, verify: "text" }
}

/// What an application prepares.
const NAMED: [(&str, &str); 2] = [
    ("account", "SELECT abalance FROM pgbench_accounts WHERE aid = 1"),
    ("branch", "SELECT bbalance FROM pgbench_branches WHERE bid = 1"),
];
/// Time zones are what PgBouncer follows too.
const ZONES: [&str; 2] = ["SET TimeZone TO 'Asia/Tokyo'", "SET TimeZone TO 'UTC'"];

/// All cases, in the order of the report.
pub const CASES: [Case; 13] = [
    case("plain", Turn::One(PLAIN)),
    Case { name: "plain_calls", turn: Turn::One(PLAIN), verify: "calls" },
    Case { name: "plain_always", turn: Turn::One(PLAIN), verify: "always" },
    // An empty block does nothing, but nobody can read that from outside: it raises every kind.
    case("do", Turn::One("DO $$BEGIN END$$")),
    case(
        "advisory_lock",
        Turn::One("SELECT pg_catalog.pg_advisory_lock(1), pg_catalog.pg_advisory_unlock(1)"),
    ),
    case("two_clients", Turn::Two { settings: ["SELECT 1"; 2], texts: [PLAIN; 2] }),
    case("two_settings", Turn::Two { settings: ZONES, texts: [PLAIN; 2] }),
    // What a seed was before cannot be asked: it is taken off ahead of the next client's settings.
    case(
        "two_settings_reset",
        Turn::Two { settings: ZONES, texts: ["SELECT pg_catalog.setseed(0.5)", PLAIN] },
    ),
    case("named_kept", Turn::Named { kept: 200 }),
    case("named_put_in", Turn::Named { kept: 1 }),
    case("opening_django", Turn::Opening(&DJANGO)),
    case("opening_activerecord", Turn::Opening(&ACTIVE_RECORD)),
    case("opening_pgjdbc", Turn::Opening(&PGJDBC)),
];

/// The names of all cases, in the order of [`CASES`].
pub const NAMES: [&str; CASES.len()] = {
    let mut names = [""; CASES.len()];
    let mut index = 0;
    while index < CASES.len() {
        names[index] = CASES[index].name;
        index += 1;
    }
    names
};

/// Django with psycopg, and what projects add in `connection_created`.
const DJANGO: [&str; 5] = [
    "SELECT set_config('TimeZone', 'Europe/Berlin', false)",
    "SET default_transaction_isolation TO 'read committed'",
    "SET statement_timeout TO 30000",
    "SET idle_in_transaction_session_timeout TO 60000",
    "SET search_path TO tenant, public",
];
/// Rails' `configure_connection`, with two `variables` of database.yml.
const ACTIVE_RECORD: [&str; 7] = [
    "SET client_min_messages TO 'warning'",
    "SET standard_conforming_strings = on",
    "SET intervalstyle = iso_8601",
    "SET SESSION timezone TO 'UTC'",
    "SET SESSION statement_timeout TO '30000'",
    "SET SESSION lock_timeout TO '5000'",
    "SET search_path TO public",
];
/// pgjdbc's own, and what a pool of connections and Hibernate add.
const PGJDBC: [&str; 5] = [
    "SET extra_float_digits = 3",
    "SET application_name = 'PostgreSQL JDBC Driver'",
    "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL READ COMMITTED",
    "SET search_path TO 'public'",
    "SET statement_timeout = 30000",
];

impl Case {
    /// The pooler's settings for this case: one server connection, and what the case needs.
    #[must_use]
    pub fn tuning(&self) -> Tuning {
        let tuning = Tuning { pool_size: 1, verify: self.verify, ..Tuning::default() };
        match self.turn {
            Turn::Named { kept } => Tuning { statements: kept, ..tuning },
            _ => tuning,
        }
    }

    /// How the statements are sent: `prepared` or `simple`.
    #[must_use]
    pub fn protocol(&self) -> &'static str {
        if matches!(self.turn, Turn::Named { .. }) { "prepared" } else { "simple" }
    }

    /// Number of clients that take turns, 1 or 2.
    #[must_use]
    pub fn clients(&self) -> u32 {
        if matches!(self.turn, Turn::Two { .. }) { 2 } else { 1 }
    }

    /// Number of statements in one turn.
    #[must_use]
    pub fn statements(&self) -> usize {
        match self.turn {
            Turn::One(_) => 1,
            Turn::Two { .. } | Turn::Named { .. } => 2,
            Turn::Opening(texts) => texts.len() + 1,
        }
    }

    /// Repeats the case for `duration`, and returns latencies and CPU times; `postgres` is the
    /// process id of the server. `None`, with a line on stderr, when the pooler has no server
    /// connection for one of the clients (SQLSTATE class 53): an older pgimbal keeps it with the
    /// other one.
    ///
    /// # Errors
    /// When a statement fails otherwise.
    pub fn measure(
        &self,
        running: &Running,
        postgres: u32,
        duration: Duration,
    ) -> Result<Option<Vec<(Figure, f64)>>> {
        let endpoint = Endpoint::new(running.port, running.role);
        let measured = match self.turn {
            Turn::Opening(texts) => {
                openings(&endpoint, texts, duration).map(|times| figures(&times))
            }
            _ => self.turns(&endpoint, running, postgres, duration),
        };
        match measured {
            Err(Error::Server(text)) if text.contains(" C53") => {
                eprintln!("{} is not measured: {text}", self.name);
                Ok(None)
            }
            measured => measured.map(Some),
        }
    }

    fn turns(
        &self,
        endpoint: &Endpoint,
        running: &Running,
        postgres: u32,
        duration: Duration,
    ) -> Result<Vec<(Figure, f64)>> {
        let mut clients = Vec::new();
        for index in 0..self.clients() as usize {
            let mut client = endpoint.log_in()?;
            match self.turn {
                Turn::Two { settings, .. } => drop(client.value(settings[index])?),
                Turn::Named { .. } => {
                    for (name, text) in NAMED {
                        client.prepare(name, text)?;
                    }
                }
                _ => {}
            }
            clients.push(client);
        }
        for _ in 0..WARM_UP {
            self.turn(&mut clients)?;
        }
        let before = running.pid().map(Cpu::of);
        let server_before = Cpu::of(postgres);
        let (mut times, end) = (Vec::new(), Instant::now() + duration);
        while Instant::now() < end {
            let start = Instant::now();
            self.turn(&mut clients)?;
            times.push(micros(start));
        }
        let each = |spent: Duration| spent.as_secs_f64() * 1e6 / times.len() as f64;
        let mut figures = figures(&times);
        if let Some((pid, before)) = running.pid().zip(before) {
            let spent = Cpu::of(pid).since(before).total;
            figures.push((Figure::CpuPerTransaction, each(spent)));
        }
        let spent = Cpu::of(postgres).since(server_before).total;
        figures.push((Figure::ServerCpuPerTransaction, each(spent)));
        clients.into_iter().try_for_each(Client::close)?;
        Ok(figures)
    }

    fn turn(&self, clients: &mut [Client]) -> Result<()> {
        match (self.turn, clients) {
            (Turn::One(text), [one]) => one.value(text).map(drop),
            (Turn::Two { texts: [first, second], .. }, [one, other]) => {
                one.value(first)?;
                other.value(second).map(drop)
            }
            (Turn::Named { .. }, [one]) => NAMED.iter().try_for_each(|(name, _)| one.execute(name)),
            _ => Err(Error::Program(format!("{} has other clients", self.name))),
        }
    }
}

/// Microseconds of each opening.
fn openings(endpoint: &Endpoint, texts: &[&str], duration: Duration) -> Result<Vec<u32>> {
    let (mut times, end) = (Vec::new(), Instant::now() + duration);
    // The first login opens the pooler's server connection, which is not the question.
    open(endpoint, texts)?;
    while Instant::now() < end {
        times.push(open(endpoint, texts)?);
    }
    Ok(times)
}

fn open(endpoint: &Endpoint, texts: &[&str]) -> Result<u32> {
    let mut client = endpoint.log_in()?;
    let start = Instant::now();
    for text in texts.iter().chain(&[PLAIN]) {
        client.value(text)?;
    }
    let time = micros(start);
    client.close()?;
    Ok(time)
}

fn micros(start: Instant) -> u32 {
    u32::try_from(start.elapsed().as_micros()).unwrap_or(u32::MAX)
}

fn figures(times: &[u32]) -> Vec<(Figure, f64)> {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    vec![(Figure::P50, percentile(&sorted, 0.50)), (Figure::P99, percentile(&sorted, 0.99))]
}
