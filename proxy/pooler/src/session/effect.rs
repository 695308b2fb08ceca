//! What the statements of one message will do to their session, each once the server has said that
//! it is done.

use crate::sql::{Assignment, Form, Step};

/// A name or value as a client or server has sent it, in bytes of its encoding, without a NUL.
pub type Bytes = Box<[u8]>;

/// The statements of one SQL text that was sent to the server, in order. The server answers each
/// with one CommandComplete, whereupon its effect on the session is noted.
#[derive(Debug)]
pub struct Script {
    steps: Vec<Step>,
    done: usize,
    /// The text, where a statement of it is kept by that.
    text: Option<Bytes>,
}

impl Script {
    /// The statements `steps` of one text, in its order, none of which is done. The `text` (SQL
    /// without the NUL) is kept if its only statement is SQL PREPARE and it is not empty; an empty
    /// `text` stands for one that is not known.
    #[must_use]
    pub fn new(steps: Vec<Step>, text: &[u8]) -> Self {
        let is_kept = matches!(&steps[..], [Step { form: Form::Prepare(_), .. }]);
        let is_kept = is_kept && !text.is_empty();
        Self { steps, done: 0, text: is_kept.then(|| text.into()) }
    }

    /// Stops following each RESET in the text that stands before a statement which may set the same
    /// setting, if `base`, the names of the client's startup settings, has it: otherwise the
    /// startup value would be brought back behind both. `may_set` says whether a statement may set
    /// a name. Returns whether there was such a RESET; the server is then to be asked what its
    /// settings are.
    pub fn leave_resets(&mut self, base: &[&[u8]], may_set: impl Fn(&Step, &[u8]) -> bool) -> bool {
        let last_set = |name: &[u8]| self.steps.iter().rposition(|step| may_set(step, name));
        let last_set: Vec<(&[u8], usize)> =
            base.iter().filter_map(|name| Some((*name, last_set(name)?))).collect();
        let mut left = false;
        for (at, step) in self.steps.iter_mut().enumerate() {
            let is_left = match &step.form {
                Form::Reset(reset, _) => {
                    last_set.iter().any(|(name, last)| **name == **reset && at < *last)
                }
                Form::ResetAll => last_set.iter().any(|(_, last)| at < *last),
                _ => false,
            };
            if is_left {
                step.form = Form::Other;
                left = true;
            }
        }
        left
    }

    /// Returns the statement that the next CommandComplete answers, in order, and counts it as
    /// done; the caller notes its effect. `None` if all are done, and for a text without
    /// statements.
    pub fn next_step(&mut self) -> Option<Step> {
        let step = self.steps.get(self.done).cloned();
        self.done += 1;
        step
    }

    /// Whether the text, which has failed, may have prepared or deallocated an SQL statement all
    /// the same: it failed at its last statement of several, and that is PREPARE, DEALLOCATE or
    /// EXECUTE, which may have run before the commit failed. If true, the caller raises
    /// [`Kinds::STATEMENTS`](crate::sql::Kinds::STATEMENTS), so that the server is asked. False for
    /// a text of one statement.
    #[must_use]
    pub fn may_have_prepared(&self) -> bool {
        let failed = self.steps.get(self.done).map(|step| &step.form);
        let names = matches!(
            failed,
            Some(Form::Prepare(_) | Form::Deallocate(_) | Form::DeallocateAll | Form::Execute(_))
        );
        names && self.done > 0 && self.done + 1 == self.steps.len()
    }

    /// The text, if it is one SQL PREPARE and was given; `None` otherwise. By it the prepared
    /// statement is made again on another server connection.
    #[must_use]
    pub fn prepared_text(&self) -> Option<&[u8]> {
        self.text.as_deref()
    }

    /// The names of the statements that the text's SQL PREPAREs make, in order; empty if it has
    /// none.
    pub fn prepares(&self) -> impl Iterator<Item = &[u8]> {
        self.steps.iter().filter_map(|step| match &step.form {
            Form::Prepare(name) => Some(&name[..]),
            _ => None,
        })
    }

    /// The settings that each SET (or `set_config`) of the text sets, one list per statement in
    /// order, whether done or not; empty if it sets none. RESET is not among them.
    pub fn assignments(&self) -> impl Iterator<Item = &[Assignment]> {
        self.steps.iter().filter_map(|step| match &step.form {
            Form::Set(list, _) => Some(&list[..]),
            _ => None,
        })
    }

    /// Whether a statement of the text is RESET, RESET ALL or DISCARD ALL, which bring back the
    /// server's defaults and not the client's startup values. SET … TO DEFAULT counts as RESET. If
    /// so, ParameterStatus is told to the client only when its startup values are set again.
    #[must_use]
    pub fn resets(&self) -> bool {
        let resets =
            |step: &Step| matches!(step.form, Form::Reset(..) | Form::ResetAll | Form::DiscardAll);
        self.steps.iter().any(resets)
    }
}
