//! The report as Markdown, for the terminal and for docs/benchmarks.md.

use crate::report::{Figure, Row};
use crate::state;
use std::fmt::Write;

/// All tables, with `about` (one line each) above them.
#[must_use]
pub fn markdown(about: &[String], rows: &[Row]) -> String {
    let mut text = String::new();
    for line in about {
        let _ = writeln!(text, "- {line}");
    }
    for table in TABLES {
        table.write(&mut text, rows);
    }
    text
}

/// A table: which scenarios it shows, and a column per figure.
struct Table {
    title: &'static str,
    scenarios: &'static [&'static str],
    columns: &'static [Column],
}

struct Column {
    title: &'static str,
    figure: Figure,
    /// What a value is divided by before it is shown.
    unit: f64,
    decimals: usize,
}

const fn column(title: &'static str, figure: Figure, unit: f64, decimals: usize) -> Column {
    Column { title, figure, unit, decimals }
}

const TABLES: [Table; 5] = [
    Table {
        title: "`pgbench -S`",
        scenarios: &["select"],
        columns: &[
            column("tx/s", Figure::TransactionsPerSecond, 1.0, 0),
            column("p50 µs", Figure::P50, 1.0, 0),
            column("p99 µs", Figure::P99, 1.0, 0),
            column("CPU µs/tx", Figure::CpuPerTransaction, 1.0, 1),
            column("of it user", Figure::UserCpuPerTransaction, 1.0, 1),
            column("calls/tx", Figure::CallsPerTransaction, 1.0, 2),
        ],
    },
    Table {
        title: "Logins",
        scenarios: &["login_trust", "login_scram"],
        columns: &[
            column("logins/s", Figure::LoginsPerSecond, 1.0, 0),
            column("p50 µs", Figure::P50, 1.0, 0),
            column("p99 µs", Figure::P99, 1.0, 0),
            column("CPU µs/login", Figure::CpuPerLogin, 1.0, 1),
            column("of it user", Figure::UserCpuPerLogin, 1.0, 1),
        ],
    },
    Table {
        title: "Idle clients",
        scenarios: &["idle"],
        columns: &[
            column("KiB/client", Figure::ResidentPerIdleClient, 1024.0, 2),
            column("logins/s while they came", Figure::LoginsPerSecond, 1.0, 0),
        ],
    },
    Table {
        title: "Large results",
        scenarios: &["rows_1gb", "row_200mb"],
        columns: &[
            column("GB/s", Figure::GigabytesPerSecond, 1.0, 2),
            column("CPU s/GB", Figure::CpuPerGigabyte, 1.0, 3),
            column("peak RSS MB", Figure::PeakResident, 1e6, 1),
        ],
    },
    Table {
        title: "Session state: one turn of each case",
        scenarios: &state::NAMES,
        columns: &[
            column("p50 µs", Figure::P50, 1.0, 0),
            column("p99 µs", Figure::P99, 1.0, 0),
            column("CPU µs", Figure::CpuPerTransaction, 1.0, 1),
            column("server's CPU µs", Figure::ServerCpuPerTransaction, 1.0, 1),
        ],
    },
];

impl Table {
    fn write(&self, text: &mut String, rows: &[Row]) {
        let shown: Vec<&Row> =
            rows.iter().filter(|row| self.scenarios.contains(&row.scenario.name)).collect();
        if shown.is_empty() {
            return;
        }
        let _ = writeln!(text, "\n{} (in brackets: ratio to PgBouncer)\n", self.title);
        let titles: Vec<&str> = self.columns.iter().map(|column| column.title).collect();
        let _ = writeln!(text, "| what | clients | pooler | {} |", titles.join(" | "));
        let _ = writeln!(text, "|---|--:|---|{}", "--:|".repeat(titles.len()));
        for row in shown {
            let cells: Vec<String> = self.columns.iter().map(|column| column.cell(row)).collect();
            let what = match row.scenario.name {
                "select" => row.scenario.protocol,
                other => other,
            };
            let _ = writeln!(
                text,
                "| {what} | {} | {} | {} |",
                row.scenario.clients,
                row.pooler,
                cells.join(" | ")
            );
        }
    }
}

impl Column {
    fn cell(&self, row: &Row) -> String {
        let Some(value) = row.value(self.figure) else { return "–".to_owned() };
        let shown = format!("{:.*}", self.decimals, value / self.unit);
        match row.ratio(self.figure) {
            Some(ratio) => format!("{shown} ({ratio:.2})"),
            None => shown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Scenario;

    #[test]
    fn a_row_shows_value_and_ratio_and_a_dash_where_nothing_was_measured() {
        let scenario = Scenario { name: "select", protocol: "simple", clients: 64 };
        let figures = vec![(Figure::TransactionsPerSecond, 1234.4, Some(1.1))];
        let row = Row { pooler: "pgimbal".into(), scenario, rounds: 3, figures };
        let text = markdown(&["a machine".into()], &[row]);
        assert!(text.contains("- a machine\n"));
        assert!(text.contains("| simple | 64 | pgimbal | 1234 (1.10) | – |"), "{text}");
        assert!(!text.contains("Logins"));
    }
}
