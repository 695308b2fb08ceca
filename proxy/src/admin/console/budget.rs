//! SHOW BUDGET.

use pgimbal_replicas::budget::Standing;

use super::answer::{Cell, Column, Row, int, text};
use crate::budget::{ServerStatus, Tokens};

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
    int("slot"),
    int("share"),
    int("borrowed"),
    int("lent"),
    text("state"),
];

/// The rows of SHOW BUDGET.
pub(super) fn rows(servers: &[ServerStatus]) -> Vec<Row> {
    servers.iter().map(row).collect()
}

/// What the limit comes from.
fn state(status: &ServerStatus) -> &'static str {
    let Some(tokens) = status.tokens else { return "alone" };
    match tokens.node.standing {
        Standing::Usable => "shared",
        Standing::NoSlot => "no slot",
        Standing::Unconfirmed => "the store is to confirm the slot",
        Standing::Unproven => "a silent replica may be connected",
        Standing::Unsettled => "another replica has not answered",
    }
}

fn row(status: &ServerStatus) -> Row {
    let (numbers, tokens) = (&status.numbers, status.tokens);
    let of = |value: fn(Tokens) -> u32| tokens.map_or(Cell::Null, |tokens| value(tokens).into());
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
        tokens.and_then(|tokens| tokens.slot).map_or(Cell::Null, |slot| u32::from(slot).into()),
        of(|tokens| tokens.node.share),
        of(|tokens| tokens.node.borrowed),
        of(|tokens| tokens.node.lent),
        state(status).into(),
    ]
}
