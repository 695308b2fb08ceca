//! SHOW BUDGET.

use super::answer::{Cell, Column, Row, int, text};
use crate::budget::ServerStatus;

pub(super) const BUDGET: &[Column] = &[
    text("server"),
    int("budget"),
    int("limit"),
    int("used"),
    int("reserved"),
    int("waiting"),
    int("pools"),
    int("given_up"),
    int("refused"),
];

/// The rows of SHOW BUDGET.
pub(super) fn rows(servers: &[ServerStatus]) -> Vec<Row> {
    servers.iter().map(row).collect()
}

fn row(status: &ServerStatus) -> Row {
    let numbers = &status.numbers;
    let limit = (numbers.limit < u32::MAX).then_some(numbers.limit);
    vec![
        (*status.server).into(),
        numbers.budget.map_or(Cell::Null, Cell::from),
        limit.map_or(Cell::Null, Cell::from),
        numbers.used.into(),
        numbers.reserved.into(),
        numbers.waiting.into(),
        numbers.pools.into(),
        numbers.given_up.into(),
        numbers.refused.into(),
    ]
}
