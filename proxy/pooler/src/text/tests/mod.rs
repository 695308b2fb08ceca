//! Statements about texts.

mod forms;
mod pieces;
mod taints;

use super::*;

/// The verdict on `text` with PostgreSQL's defaults.
fn judged(text: &str) -> Verdict<'_> {
    judge(text.as_bytes(), Reading::default())
}

/// The only statement of `text`.
fn single(text: &str) -> Statement<'_> {
    match judged(text).statements {
        Statements::One(statement) => statement,
        other => panic!("{text}: {other:?}"),
    }
}

fn taints(text: &str) -> Vec<Taint> {
    judged(text).taints.iter().collect()
}

fn set(name: &str, value: &str, scope: Scope) -> Statement<'static> {
    let name = name.as_bytes().to_vec().into();
    Statement::Set { name, value: value.as_bytes().to_vec(), scope }
}
