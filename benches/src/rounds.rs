//! The interleaved rounds: every scenario, every target, again and again.

use crate::calls::Counter;
use crate::pgbench::{Load, Protocol};
use crate::plan::Plan;
use crate::report::{Figure, Sample, Scenario};
use crate::settings::Login;
use crate::state::{CASES, Case};
use crate::target::{Running, Target};
use crate::usage::Cpu;
use crate::{Error, Result, bulk, idle, login, state};
use pgimbal_tests::Postgres;
use std::time::Duration;

/// Everything that a comparison needs.
pub struct Comparison<'a> {
    /// The PostgreSQL behind all targets.
    pub postgres: &'a Postgres,
    /// The targets that are compared.
    pub targets: &'a [Target],
    /// The plan: how much is measured.
    pub plan: &'a Plan,
    /// The tool that counts system calls; `None` when there is none, so that they are left out.
    pub counter: Option<Counter>,
}

impl Comparison<'_> {
    /// Runs all rounds of the plan, and calls `progress` with each measurement. In each round
    /// another target begins, so that the order does not matter.
    ///
    /// # Errors
    /// When a target or a load fails; nothing is left out silently.
    pub fn run(&self, mut progress: impl FnMut(&Sample)) -> Result<Vec<Sample>> {
        let running: Vec<Running> = self
            .targets
            .iter()
            .map(|target| target.start(self.postgres, Login::Trust))
            .collect::<Result<_>>()?;
        for each in &running {
            self.load(each, Protocol::Simple, 16).lasting(Duration::from_secs(1)).run()?;
        }
        let mut samples = Vec::new();
        for round in 0..self.plan.rounds {
            for step in self.steps() {
                for turn in 0..self.targets.len() {
                    // Another one begins in each round: who follows whom must not matter.
                    let index = (turn + round as usize) % self.targets.len();
                    let Some(figures) = self.measure(step, round, index, &running[index])? else {
                        continue;
                    };
                    let pooler = self.targets[index].name.clone();
                    let sample =
                        Sample { pooler, scenario: step.scenario(self.plan), round, figures };
                    progress(&sample);
                    samples.push(sample);
                }
            }
        }
        Ok(samples)
    }

    fn steps(&self) -> Vec<Step> {
        let selects = Protocol::ALL.into_iter().flat_map(|protocol| {
            self.plan.clients.iter().map(move |clients| Step::Select(protocol, *clients))
        });
        selects
            .chain([Step::LoginTrust, Step::LoginScram, Step::Idle, Step::Rows, Step::LongRow])
            .chain(CASES.iter().map(Step::State))
            .filter(|step| {
                let group = matches!(step, Step::State(_)) && self.plan.measures(state::GROUP);
                group || self.plan.measures(step.scenario(self.plan).name)
            })
            .collect()
    }

    /// Measures one step at one target; `None` where a scenario makes no sense for the target.
    fn measure(
        &self,
        step: Step,
        round: u32,
        index: usize,
        running: &Running,
    ) -> Result<Option<Vec<(Figure, f64)>>> {
        let target = &self.targets[index];
        let fresh = |login| target.start(self.postgres, login);
        let figures = match step {
            Step::Select(protocol, clients) => self.select(running, protocol, clients, round == 0),
            Step::LoginTrust => login::measure(running, self.plan.duration),
            Step::LoginScram if target.knows_scram() => {
                login::measure(&fresh(Login::Scram)?, self.plan.duration)
            }
            Step::Idle if running.pid().is_some() => {
                idle::measure(&fresh(Login::Trust)?, self.plan.idle_clients)
            }
            // PostgreSQL has a process per client: 10,000 of them are what a pooler is for.
            Step::LoginScram | Step::Idle => return Ok(None),
            Step::Rows => bulk::measure(running, bulk::GIGABYTE_OF_ROWS),
            Step::LongRow => bulk::measure(running, bulk::LONG_ROW),
            Step::State(case) if !target.takes(case.tuning()) => return Ok(None),
            Step::State(case) => {
                let tuned = target.start_tuned(self.postgres, Login::Trust, case.tuning())?;
                match case.measure(&tuned, self.postgres.id(), self.plan.state) {
                    Ok(None) => return Ok(None),
                    measured => measured.map(Option::unwrap_or_default),
                }
            }
        };
        figures.map(Some).map_err(|error| {
            let scenario = step.scenario(self.plan).name;
            let words = running.log_tail();
            Error::Program(format!("{} in {scenario}: {error}\n{words}", target.name))
        })
    }

    fn select(
        &self,
        running: &Running,
        protocol: Protocol,
        clients: u32,
        count: bool,
    ) -> Result<Vec<(Figure, f64)>> {
        let load = self.load(running, protocol, clients);
        let before = running.pid().map(Cpu::of);
        let outcome = load.run()?;
        let mut figures = vec![
            (Figure::TransactionsPerSecond, outcome.per_second),
            (Figure::P50, outcome.p50_us),
            (Figure::P99, outcome.p99_us),
        ];
        let Some((pid, before)) = running.pid().zip(before) else { return Ok(figures) };
        let spent = Cpu::of(pid).since(before);
        let transactions = outcome.transactions as f64;
        figures.push((Figure::CpuPerTransaction, spent.total.as_secs_f64() * 1e6 / transactions));
        figures
            .push((Figure::UserCpuPerTransaction, spent.user.as_secs_f64() * 1e6 / transactions));
        // Counting slows the pooler, so it has a run of its own; it varies little, so one round
        // does.
        if let Some(counter) = self.counter.filter(|_| count) {
            let counting = counter.attach(pid)?;
            let counted = load.lasting(self.plan.counted).run()?;
            let calls = counting.finish()? as f64 / counted.transactions as f64;
            figures.push((Figure::CallsPerTransaction, calls));
        }
        Ok(figures)
    }

    fn load(&self, running: &Running, protocol: Protocol, clients: u32) -> Load {
        Load { port: running.port, protocol, clients, duration: self.plan.duration }
    }
}

#[derive(Clone, Copy)]
enum Step {
    Select(Protocol, u32),
    LoginTrust,
    LoginScram,
    Idle,
    Rows,
    LongRow,
    State(&'static Case),
}

impl Step {
    fn scenario(self, plan: &Plan) -> Scenario {
        let (name, protocol, clients) = match self {
            Self::Select(protocol, clients) => ("select", protocol.name(), clients),
            Self::LoginTrust => ("login_trust", "simple", login::CLIENTS),
            Self::LoginScram => ("login_scram", "simple", login::CLIENTS),
            Self::Idle => ("idle", "simple", plan.idle_clients),
            Self::Rows => ("rows_1gb", "simple", 1),
            Self::LongRow => ("row_200mb", "simple", 1),
            Self::State(case) => (case.name, case.protocol(), case.clients()),
        };
        Scenario { name, protocol, clients }
    }
}
