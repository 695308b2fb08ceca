//! Metrics of the budgets of servers.

use super::sample::{Counters, Gauges, label};
use crate::budget::ServerStatus;

type Value = fn(&ServerStatus) -> Option<u32>;

const GAUGES: &[(&str, &str, Value)] = &[
    (
        "pgimbal_budget_connections",
        "Connections that the deployment may have to the server.",
        |status| status.numbers.budget,
    ),
    ("pgimbal_budget_limit", "Connections that this process may have to the server.", |status| {
        Some(status.numbers.limit).filter(|limit| *limit < u32::MAX)
    }),
    ("pgimbal_budget_used", "Connections of pools to the server.", |status| {
        Some(status.numbers.used)
    }),
    ("pgimbal_budget_share", "Connections that go with this replica's slot.", |status| {
        status.tokens.map(|tokens| tokens.node.share)
    }),
    ("pgimbal_budget_borrowed", "Connections borrowed from other replicas.", |status| {
        status.tokens.map(|tokens| tokens.node.borrowed)
    }),
    ("pgimbal_budget_lent", "Connections lent to other replicas.", |status| {
        status.tokens.map(|tokens| tokens.node.lent)
    }),
    ("pgimbal_budget_waiting", "Pools that wait for a part of the server's budget.", |status| {
        Some(status.numbers.waiting)
    }),
];

/// Records the samples of all servers.
pub(super) fn record(servers: &[ServerStatus]) {
    for (name, help, value) in GAUGES {
        let family = Gauges::described(name, help);
        for status in servers {
            if let Some(value) = value(status) {
                family.sample(vec![label("server", &status.server)], value);
            }
        }
    }
    let given_up = Counters::described(
        "pgimbal_budget_given_up_total",
        "Connections that were closed so that another pool or replica could have one.",
    );
    for status in servers {
        given_up.sample(vec![label("server", &status.server)], status.numbers.given_up);
    }
    let refused = Counters::described(
        "pgimbal_budget_refused_total",
        "Connections that the server refused because it had too many (53300).",
    );
    for status in servers {
        refused.sample(vec![label("server", &status.server)], status.numbers.refused);
    }
}
