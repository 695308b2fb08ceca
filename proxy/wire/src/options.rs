//! The startup parameter `options`: settings in the form of command-line switches of a server
//! process.
//!
//! This module owns the splitting and unescaping that PostgreSQL does in `pg_split_opts` and
//! `ParseLongOption`; it does not know which settings exist.

use thiserror::Error;

/// A setting of an `options` string, in the client's bytes with backslashes removed. Whether the
/// server knows it is not checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Name of the setting, never empty. Each `-` has been replaced by `_`, as in PostgreSQL.
    pub name: Vec<u8>,
    /// Value of the setting; may be empty.
    pub value: Vec<u8>,
}

/// The reason for which the `options` string of a startup packet is refused. The texts have their
/// backslashes removed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum OptionsError {
    /// A switch other than `-c name=value`, `-cname=value` and `--name=value`: the whole word.
    #[error("invalid command-line argument for server process: {}", .0.escape_ascii())]
    Switch(Vec<u8>),
    /// A `-c` or `--` whose setting has no `=`, or no name before it: the text after the switch,
    /// empty for a bare `--`; `-c` itself if it is the last word.
    #[error("{} requires a value", .0.escape_ascii())]
    NoValue(Vec<u8>),
}

/// Splits `options` into settings, which have the forms `-c name=value`, `-cname=value` and
/// `--name=value` and are separated by white space. A backslash makes the next byte literal.
/// Settings keep their order, and a name may occur again: in PostgreSQL the last one counts. An
/// empty or blank string has no settings.
///
/// # Errors
/// [`OptionsError`] for a switch that is no setting, because such switches change the server
/// process, which pooled connections share; and for a setting without a value.
pub fn parse(options: &[u8]) -> Result<Vec<Setting>, OptionsError> {
    let mut settings = Vec::new();
    let mut words = Words { rest: options };
    while let Some(word) = words.next() {
        let assignment = if let Some(long) = word.strip_prefix(b"--") {
            long.to_vec()
        } else if word == b"-c" {
            words.next().ok_or_else(|| OptionsError::NoValue(word.clone()))?
        } else if let Some(short) = word.strip_prefix(b"-c") {
            short.to_vec()
        } else {
            return Err(OptionsError::Switch(word));
        };
        settings.push(split_assignment(assignment)?);
    }
    Ok(settings)
}

fn split_assignment(assignment: Vec<u8>) -> Result<Setting, OptionsError> {
    match assignment.iter().position(|byte| *byte == b'=') {
        Some(at) if at > 0 => {
            let name = assignment[..at].iter().map(|b| if *b == b'-' { b'_' } else { *b });
            Ok(Setting { name: name.collect(), value: assignment[at + 1..].to_vec() })
        }
        _ => Err(OptionsError::NoValue(assignment)),
    }
}

/// Words between white space, with backslashes removed.
struct Words<'a> {
    rest: &'a [u8],
}

impl Iterator for Words<'_> {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        let start = self.rest.iter().position(|byte| !is_space(*byte))?;
        self.rest = &self.rest[start..];
        let mut word = Vec::new();
        while let [byte, tail @ ..] = self.rest {
            match (*byte, tail) {
                (space, _) if is_space(space) => break,
                (b'\\', [literal, after @ ..]) => {
                    word.push(*literal);
                    self.rest = after;
                }
                // PostgreSQL drops a backslash at the very end.
                (b'\\', []) => self.rest = tail,
                (plain, _) => {
                    word.push(plain);
                    self.rest = tail;
                }
            }
        }
        Some(word)
    }
}

/// C's `isspace` in the C locale.
const fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\x0b' | b'\x0c' | b'\r')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(options: &str) -> Vec<(String, String)> {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let found = parse(options.as_bytes()).unwrap();
        found.into_iter().map(|s| (text(s.name), text(s.value))).collect()
    }

    #[test]
    fn behaviour_31_every_form_of_a_setting() {
        let expected = [("work_mem".to_owned(), "1MB".to_owned())];
        for form in ["-c work_mem=1MB", "-cwork_mem=1MB", "--work-mem=1MB", "  --work_mem=1MB\t"] {
            assert_eq!(pairs(form), expected, "{form}");
        }
        assert_eq!(
            pairs(r"-c search_path=a,\ b\\c -c x="),
            [("search_path".to_owned(), r"a, b\c".to_owned()), ("x".to_owned(), String::new())]
        );
        assert_eq!(pairs("   "), []);
    }

    #[test]
    fn other_switches_and_missing_values_are_refused() {
        assert_eq!(parse(b"-e"), Err(OptionsError::Switch(b"-e".to_vec())));
        assert_eq!(parse(b"plain"), Err(OptionsError::Switch(b"plain".to_vec())));
        assert_eq!(parse(b"-c"), Err(OptionsError::NoValue(b"-c".to_vec())));
        assert_eq!(parse(b"-c work_mem"), Err(OptionsError::NoValue(b"work_mem".to_vec())));
        assert_eq!(parse(b"--=1"), Err(OptionsError::NoValue(b"=1".to_vec())));
    }
}
