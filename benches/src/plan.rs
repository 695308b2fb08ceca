//! How much is measured: the full comparison or a quick look.

use crate::{Error, Result};
use std::env;
use std::str::FromStr;
use std::time::Duration;

/// The size of a comparison.
#[derive(Clone, Debug)]
pub struct Plan {
    /// `full`, `quick` or `state`.
    pub name: &'static str,
    /// Only these scenarios; all when it is empty.
    pub scenarios: Vec<String>,
    /// Interleaved rounds; every figure is the median over them.
    pub rounds: u32,
    /// Client counts of `pgbench -S`.
    pub clients: Vec<u32>,
    /// How long each load runs.
    pub duration: Duration,
    /// How long each scenario of session state runs.
    pub state: Duration,
    /// How long each load runs whose system calls are counted, a run of its own.
    pub counted: Duration,
    /// Clients of the idle scenario.
    pub idle_clients: u32,
}

impl Plan {
    /// What `BENCH` asks for, narrowed by `BENCH_SCENARIOS`, `BENCH_CLIENTS` and `BENCH_ROUNDS`.
    ///
    /// # Errors
    /// When one of them makes no sense.
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

    /// Whether a scenario is measured.
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
