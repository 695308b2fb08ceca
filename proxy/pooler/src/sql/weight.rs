//! How much memory what is known of a text takes.

use std::mem::size_of;

use super::classified::{Assignment, Classified, Form, Operand, Step, Steps};

/// What the allocator takes for an allocation besides its bytes: header and rounding of glibc's.
const ALLOCATION: usize = 24;

impl Classified {
    /// Returns the memory that the classification takes, in bytes, its own size and the allocator's
    /// headers included: a text of 2 KiB may have a thousand statements, of 32 bytes each.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let steps = match &self.steps {
            Steps::None | Steps::Plain | Steps::Unreadable => 0,
            Steps::One(step) => step.form.bytes(),
            Steps::Several(steps) => {
                steps.iter().map(|step| size_of::<Step>() + step.form.bytes()).sum()
            }
        };
        size_of::<Self>() + ALLOCATION + steps
    }
}

impl Form {
    fn bytes(&self) -> usize {
        match self {
            Form::Savepoint(name)
            | Form::RollbackTo(name)
            | Form::Release(name)
            | Form::Reset(name, _)
            | Form::Prepare(name)
            | Form::Execute(name)
            | Form::Deallocate(name)
            | Form::Listen(name)
            | Form::Unlisten(name) => ALLOCATION + name.len(),
            Form::Set(list, _) => ALLOCATION + list.iter().map(Assignment::bytes).sum::<usize>(),
            _ => 0,
        }
    }
}

impl Assignment {
    fn bytes(&self) -> usize {
        size_of::<Self>() + self.name.bytes() + self.value.bytes()
    }
}

impl Operand {
    fn bytes(&self) -> usize {
        match self {
            Operand::Text(text) => ALLOCATION + text.len(),
            Operand::Null | Operand::Parameter(_) => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Calls, Readings, classify};

    fn bytes(text: &str) -> usize {
        classify(text.as_bytes(), Readings::Any, Calls::Functions).bytes()
    }

    #[test]
    fn statements_and_their_values_count() {
        let (plain, steps) = (bytes("select 1"), bytes(&"listen a;".repeat(1000)));
        assert!(plain < 200, "{plain}");
        assert!((30_000..100_000).contains(&steps), "{steps}");
        let (short, long) =
            ("set a.b = 'x'".to_owned(), format!("set a.b = '{}'", "x".repeat(999)));
        assert_eq!(bytes(&long) - bytes(&short), 998);
        let calls = format!("select {} 1", "set_config('a.b', 'x', true),".repeat(99));
        let calls = bytes(calls.trim_end_matches(", 1"));
        assert!(calls > 99 * 100, "{calls}");
    }
}
