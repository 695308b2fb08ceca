//! EXPLAIN ROUTE: where a statement would go, and why.

use super::answer::{Column, Fault, Row, text};
use super::control::Control;

/// The columns of the answer.
pub(super) const COLUMNS: &[Column] =
    &[text("database"), text("user"), text("route"), text("node"), text("why")];

/// The statement of an EXPLAIN ROUTE; `None` for any other command, and without a statement.
pub(super) fn parse(command: &str) -> Option<Box<str>> {
    let mut rest = command;
    for word in ["EXPLAIN", "ROUTE"] {
        rest = rest.trim_start();
        let (first, behind) = rest.split_at_checked(word.len())?;
        let ends = behind.starts_with(|next: char| next.is_ascii_whitespace());
        if !first.eq_ignore_ascii_case(word) || !ends {
            return None;
        }
        rest = behind;
    }
    let statement = rest.trim();
    (!statement.is_empty()).then(|| statement.into())
}

/// Answers with a row for each database and user whose pool has replicas.
pub(super) async fn run(statement: &str, control: &Control) -> Result<Vec<Row>, Fault> {
    let routes = control.explain_route(statement).await?;
    let row = |route: pgimbal_pooler::cluster::explain::ExplainedRoute| {
        vec![
            route.database.into(),
            route.user.into(),
            route.route.into(),
            route.node.as_deref().into(),
            route.why.into(),
        ]
    };
    Ok(routes.into_iter().map(row).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_follows_the_two_words() {
        for (command, statement) in [
            ("EXPLAIN ROUTE select 1", Some("select 1")),
            ("explain\n route  /* a */ select 'b' ", Some("/* a */ select 'b'")),
            ("EXPLAIN ROUTE", None),
            ("EXPLAIN ROUTES select 1", None),
            ("EXPLAIN select 1", None),
            ("SHOW POOLS", None),
        ] {
            assert_eq!(parse(command).as_deref(), statement, "{command}");
        }
    }
}
