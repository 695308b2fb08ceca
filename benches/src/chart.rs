//! The report as a picture for docs/benchmarks.md: four small bar charts, laid out by hand.

use crate::report::{Figure, Row};
use std::fmt::Write;

const WIDTH: f64 = 920.0;
const PANEL_WIDTH: f64 = 440.0;
const PANEL_HEIGHT: f64 = 230.0;
const CHART_HEIGHT: f64 = 140.0;
/// One colour per target, in their order; readable for the colour-blind.
const COLOURS: [&str; 6] = ["#9aa5b1", "#e69f00", "#0072b2", "#009e73", "#cc79a7", "#d55e00"];
/// Select figures are shown for this many clients, or the most that were measured below it.
const CLIENTS: u32 = 64;

/// The report as a picture in SVG: `rows` as four bar charts under `title`.
#[must_use]
pub fn svg(title: &str, rows: &[Row]) -> String {
    let mut poolers: Vec<&str> = Vec::new();
    for row in rows {
        if !poolers.contains(&row.pooler.as_str()) {
            poolers.push(&row.pooler);
        }
    }
    let mut text = String::new();
    let height = 90.0 + 2.0 * PANEL_HEIGHT;
    let _ = writeln!(
        text,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"system-ui, sans-serif\" font-size=\"12\" fill=\"#1f2933\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n\
         <text x=\"20\" y=\"28\" font-size=\"14\" font-weight=\"600\">{}</text>",
        escape(title)
    );
    for (index, pooler) in poolers.iter().enumerate() {
        let x = 20.0 + 110.0 * index as f64;
        let _ = writeln!(
            text,
            "<rect x=\"{x}\" y=\"42\" width=\"12\" height=\"12\" fill=\"{}\"/><text x=\"{}\" y=\"52\">{}</text>",
            colour(index),
            x + 18.0,
            escape(pooler)
        );
    }
    for (index, panel) in panels(rows).iter().enumerate() {
        let x = 20.0 + (PANEL_WIDTH + 20.0) * (index % 2) as f64;
        let y = 80.0 + PANEL_HEIGHT * (index / 2) as f64;
        panel.write(&mut text, x, y, &poolers);
    }
    text.push_str("</svg>\n");
    text
}

/// A chart: groups of bars, a bar per target.
struct Panel {
    title: String,
    groups: Vec<Group>,
}

struct Group {
    label: String,
    bars: Vec<(String, f64)>,
}

impl Panel {
    fn write(&self, text: &mut String, x: f64, y: f64, poolers: &[&str]) {
        let _ = writeln!(
            text,
            "<text x=\"{x}\" y=\"{y}\" font-weight=\"600\">{}</text>",
            escape(&self.title)
        );
        let bars = self.groups.iter().flat_map(|group| &group.bars);
        let largest = bars.map(|(_, value)| *value).fold(0.0, f64::max).max(f64::MIN_POSITIVE);
        let group_width = PANEL_WIDTH / self.groups.len().max(1) as f64;
        let base = y + 30.0 + CHART_HEIGHT;
        for (index, group) in self.groups.iter().enumerate() {
            let left = x + group_width * index as f64;
            let bar_width = ((group_width - 30.0) / group.bars.len().max(1) as f64).min(60.0);
            for (place, (pooler, value)) in group.bars.iter().enumerate() {
                let height = value / largest * CHART_HEIGHT;
                let bar = left + bar_width * place as f64;
                let fill = colour(poolers.iter().position(|known| known == pooler).unwrap_or(0));
                let _ = writeln!(
                    text,
                    "<rect x=\"{bar:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{height:.1}\" fill=\"{fill}\"/>\
                     <text x=\"{:.1}\" y=\"{:.1}\" font-size=\"10\" text-anchor=\"middle\">{}</text>",
                    base - height,
                    bar_width - 4.0,
                    bar + (bar_width - 4.0) / 2.0,
                    base - height - 4.0,
                    number(*value)
                );
            }
            let _ = writeln!(
                text,
                "<text x=\"{left:.1}\" y=\"{:.1}\">{}</text>",
                base + 16.0,
                escape(&group.label)
            );
        }
        let _ = writeln!(
            text,
            "<line x1=\"{x}\" y1=\"{base}\" x2=\"{}\" y2=\"{base}\" stroke=\"#9aa5b1\"/>",
            x + PANEL_WIDTH - 20.0
        );
    }
}

fn panels(rows: &[Row]) -> Vec<Panel> {
    let clients = rows
        .iter()
        .filter(|row| row.scenario.name == "select" && row.scenario.clients <= CLIENTS)
        .map(|row| row.scenario.clients)
        .max()
        .unwrap_or(CLIENTS);
    let select = |title: &str, figure: Figure| Panel {
        title: format!("{title}, pgbench -S, {clients} clients"),
        groups: ["simple", "extended", "prepared"]
            .into_iter()
            .map(|protocol| {
                let of = |row: &&Row| {
                    row.scenario.name == "select"
                        && row.scenario.clients == clients
                        && row.scenario.protocol == protocol
                };
                group(protocol, rows.iter().filter(of), figure, 1.0)
            })
            .collect(),
    };
    let single = |label: &str, scenario: &str, figure: Figure, unit: f64| {
        group(label, rows.iter().filter(|row| row.scenario.name == scenario), figure, unit)
    };
    vec![
        select("CPU µs of the pooler per transaction", Figure::CpuPerTransaction),
        select("Transactions per second", Figure::TransactionsPerSecond),
        Panel {
            title: "Logins per second".into(),
            groups: vec![
                single("trust", "login_trust", Figure::LoginsPerSecond, 1.0),
                single("SCRAM-SHA-256", "login_scram", Figure::LoginsPerSecond, 1.0),
            ],
        },
        Panel {
            title: "KiB of memory per idle client".into(),
            groups: vec![single("10,000 clients", "idle", Figure::ResidentPerIdleClient, 1024.0)],
        },
    ]
}

fn group<'a>(label: &str, rows: impl Iterator<Item = &'a Row>, figure: Figure, unit: f64) -> Group {
    let bars =
        rows.filter_map(|row| Some((row.pooler.clone(), row.value(figure)? / unit))).collect();
    Group { label: label.to_owned(), bars }
}

fn colour(index: usize) -> &'static str {
    COLOURS[index % COLOURS.len()]
}

fn number(value: f64) -> String {
    if value < 100.0 { format!("{value:.1}") } else { format!("{value:.0}") }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Scenario;

    #[test]
    fn every_bar_says_its_value_and_names_are_escaped() {
        let scenario = Scenario { name: "select", protocol: "simple", clients: 64 };
        let figures = vec![(Figure::CpuPerTransaction, 13.25, None)];
        let row = Row { pooler: "a<b".into(), scenario, rounds: 1, figures };
        let text = svg("t", &[row]);
        assert!(text.contains(">13.2<") || text.contains(">13.3<"), "{text}");
        assert!(text.contains("a&lt;b") && !text.contains("a<b"));
    }
}
