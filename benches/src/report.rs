//! The measurements as rows: medians over rounds, and ratios to PgBouncer.

use crate::target::REFERENCE;
use serde_json::{Map, Value, json};

/// A measured quantity. The order is that of the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Figure {
    /// Transactions per second.
    TransactionsPerSecond,
    /// Logins per second.
    LoginsPerSecond,
    /// Gigabytes (10^9 bytes) per second.
    GigabytesPerSecond,
    /// Median latency in microseconds.
    P50,
    /// 99th percentile of latency in microseconds.
    P99,
    /// The pooler's CPU microseconds per transaction.
    CpuPerTransaction,
    /// The part of [`Self::CpuPerTransaction`] in user space.
    UserCpuPerTransaction,
    /// The pooler's system calls per transaction.
    CallsPerTransaction,
    /// PostgreSQL's CPU microseconds per transaction.
    ServerCpuPerTransaction,
    /// The pooler's CPU microseconds per login.
    CpuPerLogin,
    /// The part of [`Self::CpuPerLogin`] in user space.
    UserCpuPerLogin,
    /// The pooler's CPU seconds per gigabyte of rows.
    CpuPerGigabyte,
    /// The pooler's resident bytes per idle client.
    ResidentPerIdleClient,
    /// The pooler's largest resident size in bytes.
    PeakResident,
}

impl Figure {
    /// The name of the figure's field in report.json, which has its unit.
    #[must_use]
    pub fn field(self) -> &'static str {
        match self {
            Self::TransactionsPerSecond => "transactions_per_s",
            Self::LoginsPerSecond => "logins_per_s",
            Self::GigabytesPerSecond => "throughput_gb_per_s",
            Self::P50 => "p50_us",
            Self::P99 => "p99_us",
            Self::CpuPerTransaction => "cpu_us_per_transaction",
            Self::UserCpuPerTransaction => "cpu_user_us_per_transaction",
            Self::CallsPerTransaction => "system_calls_per_transaction",
            Self::ServerCpuPerTransaction => "server_cpu_us_per_transaction",
            Self::CpuPerLogin => "cpu_us_per_login",
            Self::UserCpuPerLogin => "cpu_user_us_per_login",
            Self::CpuPerGigabyte => "cpu_s_per_gb",
            Self::ResidentPerIdleClient => "rss_bytes_per_idle_client",
            Self::PeakResident => "peak_rss_bytes",
        }
    }
}

/// A load, with its protocol and number of clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scenario {
    /// The scenario's name: `select`, `login_trust`, `login_scram`, `idle`, `rows_1gb`,
    /// `row_200mb`, or a case of session state.
    pub name: &'static str,
    /// pgbench's protocol, or `simple` where nothing else is possible.
    pub protocol: &'static str,
    /// Number of clients at the same time.
    pub clients: u32,
}

/// One measurement of one target in one round.
#[derive(Clone, Debug)]
pub struct Sample {
    /// The target's name, for example `direct`, `pgbouncer` or `pgimbal`.
    pub pooler: String,
    /// The scenario that was run.
    pub scenario: Scenario,
    /// Number of the round, from 0.
    pub round: u32,
    /// The figures that were measured, in no particular order.
    pub figures: Vec<(Figure, f64)>,
}

impl Sample {
    /// The value of a figure; `None` when it was not measured.
    #[must_use]
    pub fn value(&self, figure: Figure) -> Option<f64> {
        self.figures.iter().find(|(known, _)| *known == figure).map(|(_, value)| *value)
    }
}

/// The medians of one target in one scenario, a row of the tables.
#[derive(Clone, Debug)]
pub struct Row {
    /// The target's name, for example `direct`, `pgbouncer` or `pgimbal`.
    pub pooler: String,
    /// The scenario that was run.
    pub scenario: Scenario,
    /// Number of rounds over which the medians were taken.
    pub rounds: usize,
    /// Each figure's median and, where PgBouncer was measured in the same rounds, its ratio.
    pub figures: Vec<(Figure, f64, Option<f64>)>,
}

impl Row {
    /// The median of a figure; `None` when it was not measured.
    #[must_use]
    pub fn value(&self, figure: Figure) -> Option<f64> {
        self.figures.iter().find(|(known, _, _)| *known == figure).map(|(_, value, _)| *value)
    }

    /// The ratio of a figure to PgBouncer's; `None` when PgBouncer was not measured in the same
    /// rounds.
    #[must_use]
    pub fn ratio(&self, figure: Figure) -> Option<f64> {
        self.figures.iter().find(|(known, _, _)| *known == figure).and_then(|(_, _, ratio)| *ratio)
    }

    fn json(&self) -> Value {
        let mut fields = Map::new();
        fields.insert("pooler".into(), json!(self.pooler));
        fields.insert("scenario".into(), json!(self.scenario.name));
        fields.insert("protocol".into(), json!(self.scenario.protocol));
        fields.insert("clients".into(), json!(self.scenario.clients));
        fields.insert("rounds".into(), json!(self.rounds));
        for (figure, value, ratio) in &self.figures {
            fields.insert(figure.field().into(), json!(round(*value)));
            if let Some(ratio) = ratio {
                fields
                    .insert(format!("{}_ratio_to_pgbouncer", figure.field()), json!(round(*ratio)));
            }
        }
        Value::Object(fields)
    }
}

/// Groups samples into rows, in the order in which scenarios and targets first appeared.
///
/// A ratio is the median of each round's own ratio, because the two measurements of one round
/// share the machine's mood.
#[must_use]
pub fn rows(samples: &[Sample]) -> Vec<Row> {
    let mut keys: Vec<(Scenario, &str)> = Vec::new();
    for sample in samples {
        if !keys.contains(&(sample.scenario, &sample.pooler)) {
            keys.push((sample.scenario, &sample.pooler));
        }
    }
    let mut scenarios: Vec<Scenario> = Vec::new();
    for (scenario, _) in &keys {
        if !scenarios.contains(scenario) {
            scenarios.push(*scenario);
        }
    }
    keys.sort_by_key(|(scenario, _)| scenarios.iter().position(|known| known == scenario));
    keys.into_iter().map(|(scenario, pooler)| row(samples, scenario, pooler)).collect()
}

/// report.json: the machine, how it was measured, and one object per row.
#[must_use]
pub fn json(about: &Map<String, Value>, rows: &[Row]) -> Value {
    let mut report = about.clone();
    report.insert("rows".into(), rows.iter().map(Row::json).collect());
    Value::Object(report)
}

fn row(samples: &[Sample], scenario: Scenario, pooler: &str) -> Row {
    let of = |name: &str| -> Vec<&Sample> {
        samples
            .iter()
            .filter(|sample| sample.scenario == scenario && sample.pooler == name)
            .collect()
    };
    let (own, reference) = (of(pooler), of(REFERENCE));
    let mut known: Vec<Figure> =
        own.iter().flat_map(|sample| &sample.figures).map(|(figure, _)| *figure).collect();
    known.sort_unstable();
    known.dedup();
    let figures = known.into_iter().map(|figure| {
        let values = own.iter().filter_map(|sample| sample.value(figure)).collect();
        let ratios: Vec<f64> = own
            .iter()
            .filter_map(|sample| {
                let other = reference.iter().find(|other| other.round == sample.round)?;
                let base = other.value(figure).filter(|base| *base > 0.0)?;
                Some(sample.value(figure)? / base)
            })
            .collect();
        let ratio = (!ratios.is_empty()).then(|| median(ratios));
        (figure, median(values), ratio)
    });
    Row { pooler: pooler.to_owned(), scenario, rounds: own.len(), figures: figures.collect() }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => 0.0,
        odd if odd % 2 == 1 => values[odd / 2],
        even => f64::midpoint(values[even / 2 - 1], values[even / 2]),
    }
}

/// Three decimals: what is behind them is noise.
fn round(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCENARIO: Scenario = Scenario { name: "select", protocol: "simple", clients: 64 };

    fn sample(pooler: &str, round: u32, value: f64) -> Sample {
        let figures = vec![(Figure::TransactionsPerSecond, value)];
        Sample { pooler: pooler.into(), scenario: SCENARIO, round, figures }
    }

    #[test]
    fn a_ratio_compares_within_a_round() {
        let samples = [
            sample("pgbouncer", 0, 100.0),
            sample("pgimbal", 0, 110.0),
            sample("pgbouncer", 1, 50.0),
            sample("pgimbal", 1, 60.0),
            sample("pgbouncer", 2, 200.0),
            sample("pgimbal", 2, 210.0),
        ];
        let rows = rows(&samples);
        assert_eq!(rows.len(), 2);
        assert_eq!(rows[1].value(Figure::TransactionsPerSecond), Some(110.0));
        assert_eq!(rows[1].ratio(Figure::TransactionsPerSecond), Some(1.1));
        let report = json(&Map::new(), &rows);
        assert_eq!(report["rows"][1]["transactions_per_s_ratio_to_pgbouncer"], 1.1);
    }
}
