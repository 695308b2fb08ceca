//! What the statements of one message will do to their session, each once the server has said that
//! it is done.

use crate::sql::{Assignment, Form, Step};

/// A name or value, as bytes.
pub type Bytes = Box<[u8]>;

/// The statements of a text that is on its way, in order; the server answers each with one
/// CommandComplete.
#[derive(Debug)]
pub struct Script {
    steps: Vec<Step>,
    done: usize,
    /// The text, where a statement of it is kept by that.
    text: Option<Bytes>,
}

impl Script {
    /// The statements of one text. `text` is kept if it is one SQL PREPARE, and not empty.
    #[must_use]
    pub fn new(steps: Vec<Step>, text: &[u8]) -> Self {
        let is_kept = matches!(&steps[..], [Step { form: Form::Prepare(_), .. }]);
        let is_kept = is_kept && !text.is_empty();
        Self { steps, done: 0, text: is_kept.then(|| text.into()) }
    }

    /// Does not follow a RESET in front of a statement that `may_set` what it resets, of what its
    /// client came with (`base`): that would be brought back behind both. Returns whether there is
    /// such a statement; what it has left is to be asked.
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

    /// The statement that the next CommandComplete answers; `None` if there is none left.
    pub fn next_step(&mut self) -> Option<Step> {
        let step = self.steps.get(self.done).cloned();
        self.done += 1;
        step
    }

    /// Whether the statement at which the text failed may have prepared or taken away one of SQL's
    /// nevertheless: the last of several, whose commit has failed.
    #[must_use]
    pub fn may_have_prepared(&self) -> bool {
        let failed = self.steps.get(self.done).map(|step| &step.form);
        let names = matches!(
            failed,
            Some(Form::Prepare(_) | Form::Deallocate(_) | Form::DeallocateAll | Form::Execute(_))
        );
        names && self.done > 0 && self.done + 1 == self.steps.len()
    }

    /// The text, if it is one SQL PREPARE.
    #[must_use]
    pub fn prepared_text(&self) -> Option<&[u8]> {
        self.text.as_deref()
    }

    /// The names that its statements prepare.
    pub fn prepares(&self) -> impl Iterator<Item = &[u8]> {
        self.steps.iter().filter_map(|step| match &step.form {
            Form::Prepare(name) => Some(&name[..]),
            _ => None,
        })
    }

    /// What its statements set.
    pub fn assignments(&self) -> impl Iterator<Item = &[Assignment]> {
        self.steps.iter().filter_map(|step| match &step.form {
            Form::Set(list, _) => Some(&list[..]),
            _ => None,
        })
    }

    /// Whether one of its statements brings settings to their defaults.
    #[must_use]
    pub fn resets(&self) -> bool {
        let resets =
            |step: &Step| matches!(step.form, Form::Reset(..) | Form::ResetAll | Form::DiscardAll);
        self.steps.iter().any(resets)
    }
}
