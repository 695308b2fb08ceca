//! Statements about texts.

mod access;
mod calls;
mod cases;
mod forms;
mod names;
mod pieces;
mod raises;
mod readings;

use super::*;

/// What `text` is with PostgreSQL's defaults.
fn classified(text: &str) -> Classified {
    read(text.as_bytes(), Reading::default())
}

fn read(text: &[u8], reading: Reading) -> Classified {
    classify(text, Readings::One(reading), Calls::Text)
}

/// The only statement of `text`.
fn only(text: &str) -> Step {
    match classified(text).steps {
        Steps::Plain => Step::PLAIN,
        Steps::One(step) => step,
        other => panic!("{text}: {other:?}"),
    }
}

/// The statements of `text`.
fn steps(text: &str) -> Vec<Step> {
    classified(text).steps().to_vec()
}

fn forms(text: &str) -> Vec<Form> {
    steps(text).into_iter().map(|step| step.form).collect()
}

fn bytes(text: &str) -> Bytes {
    text.as_bytes().into()
}

fn text(text: &str) -> Operand {
    Operand::Text(bytes(text))
}

fn assign(name: Operand, value: Operand, scope: Scope) -> Assignment {
    Assignment { name, value, scope: ScopeOperand::Is(scope) }
}

fn set(name: &str, value: &str, scope: Scope) -> Form {
    Form::Set(Box::new([assign(text(name), text(value), scope)]), SetBy::Statement)
}

/// A followed step, which raises nothing.
fn followed(form: Form) -> Step {
    Step { form, raises: Kinds::NONE, local: false }
}

fn other(raises: Kinds) -> Step {
    Step { form: Form::Other, raises, local: false }
}

const ANYTHING: Kinds = Kinds::ANYTHING.union(Kinds::ASKED);
const IDENTITY: Kinds = Kinds::SETTINGS.union(Kinds::ROLE);
const ANY_SETTING: Kinds = IDENTITY.union(Kinds::UNNAMED_SETTINGS);
