//! The values of a Bind, as far as a `set_config` needs them.

use crate::sql::{Assignment, Operand, Scope, ScopeOperand};

/// The parameters of one Bind.
pub(super) struct BoundValues<'a> {
    values: Vec<(Format, Option<&'a [u8]>)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Text,
    Binary,
}

impl<'a> BoundValues<'a> {
    /// Reads what stands behind the names: format codes, then the values, each with its length.
    /// `None` if it is not of that form.
    pub(super) fn read(mut rest: &'a [u8]) -> Option<Self> {
        let count = take_u16(&mut rest)?;
        let codes = (0..count).map(|_| take_u16(&mut rest)).collect::<Option<Vec<u16>>>()?;
        let format = |at: usize| match (&codes[..], at) {
            ([], _) => Some(Format::Text),
            ([one], _) => format_of(*one),
            (several, at) => format_of(*several.get(at)?),
        };
        let count = usize::from(take_u16(&mut rest)?);
        let mut values = Vec::with_capacity(count);
        for at in 0..count {
            let (length, more) = rest.split_first_chunk::<4>()?;
            rest = more;
            let value = match usize::try_from(i32::from_be_bytes(*length)) {
                Err(_) => None,
                Ok(length) => {
                    let value = rest.get(..length)?;
                    rest = &rest[length..];
                    Some(value)
                }
            };
            values.push((format(at)?, value));
        }
        Some(Self { values })
    }

    /// The assignment with its parameters filled in; `None` if one of them cannot be told.
    pub(super) fn bind(&self, assignment: &Assignment) -> Option<Assignment> {
        Some(Assignment {
            name: self.text(&assignment.name)?,
            value: self.text(&assignment.value)?,
            scope: match assignment.scope {
                ScopeOperand::Parameter(number) => ScopeOperand::Is(self.scope(number)?),
                is => is,
            },
        })
    }

    /// Text has the same bytes in both formats.
    fn text(&self, operand: &Operand) -> Option<Operand> {
        Some(match operand {
            Operand::Parameter(number) => match self.value(*number)?.1 {
                Some(value) => Operand::Text(value.into()),
                None => Operand::Null,
            },
            operand => operand.clone(),
        })
    }

    fn scope(&self, number: u16) -> Option<Scope> {
        let (format, value) = self.value(number)?;
        let local = match (format, value?) {
            (Format::Binary, [byte]) => *byte != 0,
            (Format::Binary, _) => return None,
            (Format::Text, text) => match &text.trim_ascii().to_ascii_lowercase()[..] {
                b"t" | b"true" | b"1" | b"on" | b"yes" | b"y" => true,
                b"f" | b"false" | b"0" | b"off" | b"no" | b"n" => false,
                _ => return None,
            },
        };
        Some(if local { Scope::Local } else { Scope::Session })
    }

    fn value(&self, number: u16) -> Option<(Format, Option<&'a [u8]>)> {
        self.values.get(usize::from(number).checked_sub(1)?).copied()
    }
}

fn format_of(code: u16) -> Option<Format> {
    match code {
        0 => Some(Format::Text),
        1 => Some(Format::Binary),
        _ => None,
    }
}

fn take_u16(rest: &mut &[u8]) -> Option<u16> {
    let (bytes, more) = rest.split_first_chunk::<2>()?;
    *rest = more;
    Some(u16::from_be_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assignment() -> Assignment {
        Assignment {
            name: Operand::Text(b"app.x"[..].into()),
            value: Operand::Parameter(1),
            scope: ScopeOperand::Parameter(2),
        }
    }

    #[test]
    fn values_are_read_in_both_formats() {
        let text = b"\0\0\0\x02\0\0\0\x01a\0\0\0\x05false\0\0";
        let bound = BoundValues::read(text).unwrap().bind(&assignment()).unwrap();
        assert_eq!(bound.value, Operand::Text(b"a"[..].into()));
        assert_eq!(bound.scope, ScopeOperand::Is(Scope::Session));
        let binary = b"\0\x01\0\x01\0\x02\xff\xff\xff\xff\0\0\0\x01\x01\0\0";
        let bound = BoundValues::read(binary).unwrap().bind(&assignment()).unwrap();
        assert_eq!((bound.value, bound.scope), (Operand::Null, ScopeOperand::Is(Scope::Local)));
    }

    #[test]
    fn what_is_not_there_cannot_be_told() {
        let one = b"\0\0\0\x01\0\0\0\x01a\0\0";
        assert_eq!(BoundValues::read(one).unwrap().bind(&assignment()), None);
        assert!(BoundValues::read(b"\0\0\0\x01\0\0\0\x09a").is_none());
        assert!(BoundValues::read(b"\0\x01\0\x07\0\x01\0\0\0\x01a").is_none());
    }
}
