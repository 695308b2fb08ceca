//! What each part of following session state costs, taken out of the cases of `state`.

use crate::report::{Figure, Sample};
use crate::state::{CASES, Case};
use std::fmt::Write;

/// A cost: what one case takes beyond another.
struct Cost {
    what: &'static str,
    case: &'static str,
    /// The same without it.
    plain: &'static str,
    /// How often it is paid in one turn.
    times: f64,
    /// Whether what PostgreSQL itself takes longer for the case is taken off. It is not where the
    /// statements are the same, nor where direct clients meet a server process that has just
    /// started.
    less_direct: bool,
}

/// The statement itself takes longer than a plain one, which is no cost.
const fn statement(what: &'static str, case: &'static str) -> Cost {
    Cost { what, case, plain: "plain", times: 1.0, less_direct: true }
}

const fn cost(what: &'static str, case: &'static str, plain: &'static str, times: f64) -> Cost {
    Cost { what, case, plain, times, less_direct: false }
}

const COSTS: [Cost; 10] = [
    statement("a question of every kind (`DO`)", "do"),
    statement("a question about locks", "advisory_lock"),
    cost("a plain statement under `verify = \"calls\"`", "plain_calls", "plain", 1.0),
    cost("a plain statement under `verify = \"always\"`", "plain_always", "plain", 1.0),
    cost("the next client's settings", "two_settings", "two_clients", 2.0),
    cost("a reset ahead of them", "two_settings_reset", "two_settings", 1.0),
    cost("putting in a statement that the server lacks", "named_put_in", "named_kept", 2.0),
    cost("Django's opening, 5 statements", "opening_django", "plain", 1.0),
    cost("ActiveRecord's opening, 7 statements", "opening_activerecord", "plain", 1.0),
    cost("pgjdbc's opening, 5 statements", "opening_pgjdbc", "plain", 1.0),
];

/// Whose part of a cost is PostgreSQL's own.
const DIRECT: &str = "direct";

/// The costs as a table of Markdown; empty if none was measured. Each is the difference of the
/// fastest rounds: one client at a time waits for nobody of the benchmark, so whatever makes a
/// round slower is the machine's, and would drown a cost of microseconds.
#[must_use]
pub fn table(samples: &[Sample]) -> String {
    let mut poolers: Vec<&str> = Vec::new();
    for sample in samples.iter().filter(|sample| case(sample.scenario.name).is_some()) {
        if sample.pooler != DIRECT && !poolers.contains(&sample.pooler.as_str()) {
            poolers.push(&sample.pooler);
        }
    }
    if poolers.is_empty() {
        return String::new();
    }
    let titles: Vec<String> =
        poolers.iter().map(|pooler| format!("{pooler} p50 | CPU | server's CPU")).collect();
    let mut text = format!(
        "\nWhat following session state costs: microseconds beyond plain statements, of the fastest \
         rounds\n\n| what | {} |\n|---|{}\n",
        titles.join(" | "),
        "--:|--:|--:|".repeat(poolers.len())
    );
    for cost in &COSTS {
        let cells: Vec<String> = poolers.iter().map(|pooler| cost.cells(samples, pooler)).collect();
        let _ = writeln!(text, "| {} | {} |", cost.what, cells.join(" | "));
    }
    text
}

fn case(name: &str) -> Option<&'static Case> {
    CASES.iter().find(|case| case.name == name)
}

impl Cost {
    fn cells(&self, samples: &[Sample], pooler: &str) -> String {
        [Figure::P50, Figure::CpuPerTransaction, Figure::ServerCpuPerTransaction]
            .map(|figure| {
                let own = self.beyond(samples, pooler, figure);
                // Direct clients have no pooler that could spend CPU time.
                let direct = match self.less_direct && figure != Figure::CpuPerTransaction {
                    true => self.beyond(samples, DIRECT, figure),
                    false => Some(0.0),
                };
                let cost = own.zip(direct).map(|(own, direct)| own - direct);
                cost.map_or_else(|| "–".to_owned(), |cost| format!("{cost:+.1}"))
            })
            .join(" | ")
    }

    /// What one pooler takes for it, PostgreSQL's own part included.
    fn beyond(&self, samples: &[Sample], pooler: &str, figure: Figure) -> Option<f64> {
        let fastest = |name: &str| {
            let own =
                samples.iter().filter(|one| one.pooler == pooler && one.scenario.name == name);
            let values = own.filter_map(|one| one.value(figure));
            values.min_by(f64::total_cmp)
        };
        let statements = |name: &str| case(name).map_or(1, Case::statements) as f64;
        let plain = fastest(self.plain)? * statements(self.case) / statements(self.plain);
        Some((fastest(self.case)? - plain) / self.times)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Scenario;

    fn sample(pooler: &str, round: u32, name: &'static str, p50: f64, cpu: f64) -> Sample {
        let scenario = Scenario { name, protocol: "simple", clients: 1 };
        let figures = vec![(Figure::P50, p50), (Figure::CpuPerTransaction, cpu)];
        Sample { pooler: pooler.into(), scenario, round, figures }
    }

    #[test]
    fn what_postgresql_takes_itself_is_no_cost() {
        let samples = [
            sample("direct", 0, "plain", 50.0, 0.0),
            sample("direct", 0, "do", 70.0, 0.0),
            sample("pgimbal", 0, "plain", 80.0, 30.0),
            sample("pgimbal", 0, "do", 220.0, 52.0),
            sample("pgimbal", 0, "plain_always", 230.0, 53.0),
            // Six statements.
            sample("pgimbal", 0, "opening_django", 550.0, 180.0),
            // A round in which somebody else was at work.
            sample("direct", 1, "plain", 100.0, 0.0),
            sample("direct", 1, "do", 70.0, 0.0),
            sample("pgimbal", 1, "plain", 80.0, 60.0),
            sample("pgimbal", 1, "do", 500.0, 90.0),
        ];
        let text = table(&samples);
        assert!(
            text.contains("| a question of every kind (`DO`) | +120.0 | +22.0 | – |"),
            "{text}"
        );
        let always = "`verify = \"always\"` | +150.0 | +23.0 | – |";
        assert!(text.contains(always), "{text}");
        assert!(text.contains("opening, 5 statements | +70.0 | +0.0 | – |"), "{text}");
        assert!(text.contains("| a question about locks | – | – | – |"), "{text}");
        assert_eq!(table(&samples[..2]), "");
    }

    #[test]
    fn a_cost_is_that_of_cases_which_exist() {
        for cost in &COSTS {
            assert!(case(cost.case).is_some() && case(cost.plain).is_some(), "{}", cost.what);
        }
    }
}
