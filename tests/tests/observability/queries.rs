//! The queries of the dashboard and of the recording rules, ready to be asked.

use std::fs;

use pgimbal_tests::charts::objects;
use pgimbal_tests::prometheus::Prometheus;
use pgimbal_tests::sources::root;
use serde_json::Value;

/// A query of a panel, or of a recording rule.
#[derive(Clone, Debug)]
pub(super) struct Query {
    /// The panel's title, or the rule's name.
    pub(super) title: String,
    /// The legend, with the names of labels in braces; empty for a rule.
    pub(super) legend: String,
    expr: String,
}

/// The queries of all panels, in order.
pub(super) fn panels() -> Vec<Query> {
    let text = fs::read_to_string(root().join("deploy/observability/dashboard.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let of_panel = |panel: &Value| -> Vec<Query> {
        let targets = panel["targets"].as_array().into_iter().flatten();
        let word = |value: &Value| value.as_str().unwrap().to_owned();
        let query = |target: &Value| Query {
            title: word(&panel["title"]),
            legend: word(&target["legendFormat"]),
            expr: word(&target["expr"]).replace("$job", ".*").replace("$instance", ".*"),
        };
        targets.map(query).collect()
    };
    panels.flat_map(of_panel).collect()
}

/// The recording rules.
pub(super) fn records() -> Vec<Query> {
    let text = fs::read_to_string(root().join("deploy/observability/rules.yaml")).unwrap();
    let groups = objects(&text)[0]["groups"].as_array().unwrap().clone();
    let rules = groups.iter().flat_map(|group| group["rules"].as_array().unwrap());
    let record = |rule: &Value| {
        let title = rule["record"].as_str()?.to_owned();
        let expr = rule["expr"].as_str()?.to_owned();
        Some(Query { title, legend: String::new(), expr })
    };
    rules.filter_map(record).collect()
}

impl Query {
    /// The query as Grafana sends it, over `window` seconds where the panel leaves that open.
    pub(super) fn over(&self, window: f64) -> String {
        self.expr.replace("$__rate_interval", &format!("{:.0}ms", window * 1e3))
    }

    /// Whether it is about something that grows, or that is counted in buckets.
    pub(super) fn grows(&self) -> bool {
        self.expr.contains("rate(") || self.expr.contains("increase(")
    }

    /// The same query with the exact growth between two moments in place of each `rate` and
    /// `increase`, which extrapolate. A series that begins in between grew from 0.
    pub(super) fn growth(&self, from: f64, to: f64) -> String {
        let mut rest = self.expr.as_str();
        let mut made = String::new();
        let begins = |text: &str| {
            let found = ["rate(", "increase("].map(|word| (text.find(word), word.len()));
            found.into_iter().filter_map(|(at, length)| Some((at?, length))).min()
        };
        while let Some((at, length)) = begins(rest) {
            made.push_str(&rest[..at]);
            let (series, after) = rest[at + length..].split_once('[').expect("a range");
            let (_, after) = after.split_once("])").expect("the end of a range");
            made.push_str(&format!(
                "({series} @ {to:.3} - ({series} @ {from:.3} or {series} @ {to:.3} * 0))"
            ));
            rest = after;
        }
        made + rest
    }
}

/// Whether a recorded series is what its query says at the moment at which it was recorded.
pub(super) fn is_recorded_right(prometheus: &Prometheus, record: &Query) -> bool {
    let now = pgimbal_tests::prometheus::now();
    let Some(moment) = prometheus.at(&format!("timestamp({})", record.title), now).pop() else {
        return false;
    };
    let recorded = prometheus.at(&record.title, moment.value);
    let computed = prometheus.at(&record.expr, moment.value);
    let pairs = recorded.iter().zip(&computed);
    let is_equal = |a: f64, b: f64| (a - b).abs() <= 1e-9 * a.abs().max(1.0);
    recorded.len() == computed.len()
        && pairs.into_iter().all(|(recorded, computed)| {
            let mut labels = recorded.labels.clone();
            labels.remove("__name__");
            labels == computed.labels && is_equal(recorded.value, computed.value)
        })
}
