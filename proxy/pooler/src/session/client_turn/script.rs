//! The statements of a text that the books follow.

use super::turn::ClientTurn;
use crate::session::effect::Script;
use crate::sql::{self, Classified, Followed, Form, Kinds, Operand, SetBy};

/// The statements of a text, if the books follow one of them. `text` is empty where a PREPARE
/// is not followed.
pub(super) fn script_of(
    turn: &mut ClientTurn<'_>,
    classified: &Classified,
    text: &[u8],
) -> Option<Script> {
    let open = turn.session.changed_in_transaction();
    let is_followed = |step: &sql::Step| match step.form.followed() {
        Followed::No => false,
        Followed::WithSettings => open,
        Followed::Always => true,
    };
    let steps = classified.steps();
    let runs = |step: &sql::Step| run_by_execute(turn, step).is_some();
    if !steps.iter().any(|step| is_followed(step) || runs(step)) {
        return None;
    }
    let mut steps = steps.to_vec();
    for step in &mut steps {
        if let Some(form) = run_by_execute(turn, step) {
            step.form = form.clone();
        }
    }
    let mut script = Script::new(steps, text);
    if turn.session.refused.is_none() && script.resets() {
        let base = turn.tables.settings.settings(turn.session.settings.base());
        let base: Vec<&[u8]> = base.iter().map(|setting| &*setting.name).collect();
        let left = script.leave_resets(&base, |step, name| may_set_unseen(turn, step, name));
        if left {
            turn.session.raised.insert(Kinds::SETTINGS.union(Kinds::ROLE));
        }
    }
    Some(script)
}

/// The DEALLOCATE that a statement runs by SQL EXECUTE, whose tag says so.
fn run_by_execute<'a>(turn: &'a ClientTurn<'_>, step: &sql::Step) -> Option<&'a Form> {
    let Form::Execute(name) = &step.form else { return None };
    let statement = turn.session.statements.as_ref()?.get(name)?;
    let form = statement.class.not_plain()?.only()?;
    matches!(form, Form::Deallocate(_) | Form::DeallocateAll).then_some(form)
}

/// Whether a statement may set `name` without being followed.
fn may_set_unseen(turn: &ClientTurn<'_>, step: &sql::Step, name: &[u8]) -> bool {
    match &step.form {
        // A function of the name that is not PostgreSQL's and sets something else than it is
        // told is not thought of.
        Form::Set(list, SetBy::UnqualifiedFunction) => {
            !turn.pool.shared().database.facts.set_config_is_builtin(turn.now)
                && list.iter().any(|assignment| match &assignment.name {
                    Operand::Text(set) => set.eq_ignore_ascii_case(name),
                    _ => true,
                })
        }
        Form::Execute(_) | Form::Fetch => true,
        _ => step.raises.meets(Kinds::SETTINGS),
    }
}
