//! The plan of a comparison: how much is measured.

use crate::{Error, Result};
use std::env;
use std::str::FromStr;
use std::time::Duration;

/// The size of a comparison: which scenarios, how often and how long.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The name of the plan: `full`, `quick` or `state`.
    pub name: &'static str,
    /// Names of the scenarios that are measured; all when it is empty.
    pub scenarios: Vec<String>,
    /// Number of interleaved rounds; every figure is the median over them.
    pub rounds: u32,
    /// The numbers of clients with which `pgbench -S` runs.
    pub clients: Vec<u32>,
    /// Length of each run of pgbench and of the login scenarios.
    pub duration: Duration,
    /// Length of each scenario of session state.
    pub state: Duration,
    /// Length of each load whose system calls are counted, in a run of its own.
    pub counted: Duration,
    /// Number of clients of the idle scenario.
    pub idle_clients: u32,
}

impl Plan {
    /// The plan that the variable `BENCH` names (`full` when it is not set), narrowed by
    /// `BENCH_SCENARIOS`, `BENCH_CLIENTS` and `BENCH_ROUNDS`, which are lists of words.
    ///
    /// # Errors
    /// When one of them cannot be understood.
    pub fn from_environment() -> Result<Self> {
        let mut plan = match env::var("BENCH").as_deref() {
            Ok("quick") => Self::quick(),
            Ok("state") => Self::of_state(),
            Ok("" | "full") | Err(_) => Self::full(),
            Ok(other) => {
                return Err(Error::Program(format!(
                    "BENCH={other} is none of full, quick, state and figures"
                )));
            }
        };
        let scenarios = list("BENCH_SCENARIOS")?;
        if !scenarios.is_empty() {
            plan.scenarios = scenarios;
        }
        let clients = list("BENCH_CLIENTS")?;
        if !clients.is_empty() {
            plan.clients = clients;
        }
        if let Some(rounds) = list("BENCH_ROUNDS")?.first() {
            plan.rounds = *rounds;
        }
        Ok(plan)
    }

    /// Whether the scenario of this name is measured.
    #[must_use]
    pub fn measures(&self, scenario: &str) -> bool {
        self.scenarios.is_empty() || self.scenarios.iter().any(|wanted| wanted == scenario)
    }

    /// The full comparison, about 15 minutes with three targets.
    #[must_use]
    pub fn full() -> Self {
        Self {
            name: "full",
            scenarios: Vec::new(),
            rounds: 3,
            clients: vec![1, 16, 64, 256],
            duration: Duration::from_secs(5),
            state: Duration::from_secs(1),
            counted: Duration::from_secs(4),
            idle_clients: 10_000,
        }
    }

    /// One short round, under 3 minutes with three targets.
    #[must_use]
    pub fn quick() -> Self {
        Self {
            name: "quick",
            scenarios: Vec::new(),
            rounds: 1,
            clients: vec![1, 64],
            duration: Duration::from_secs(3),
            state: Duration::from_millis(300),
            counted: Duration::from_secs(2),
            idle_clients: 10_000,
        }
    }

    /// Session state alone, about a minute with three targets.
    #[must_use]
    pub fn of_state() -> Self {
        Self {
            name: "state",
            scenarios: vec!["state".into()],
            // Short and many: each case must meet the machine while it is free.
            rounds: 9,
            duration: Duration::from_millis(120),
            state: Duration::from_millis(120),
            ..Self::full()
        }
    }
}

/// The words of a variable; none when it is not set.
fn list<T: FromStr>(name: &str) -> Result<Vec<T>> {
    let text = env::var(name).unwrap_or_default();
    let words = text.split([' ', ',']).filter(|word| !word.is_empty());
    words
        .map(|word| {
            word.parse()
                .map_err(|_| Error::Program(format!("{name}={text}: {word} makes no sense")))
        })
        .collect()
}
