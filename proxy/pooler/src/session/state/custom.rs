//! Names of custom settings (`app.tenant`): no list of PostgreSQL's shows them, it has to be asked
//! by name.

use crate::session::effect::Bytes;
use crate::sql::{Assignment, Operand};

/// The most names that are remembered for one session until it is asked. If a text names more, the
/// others are not asked about: they are reset.
const LIMIT: usize = 64;

/// The longest name in bytes that is remembered: several times the 127 that SET takes of two
/// identifiers. `set_config` takes any number; a setting with a longer name is reset.
const LONGEST: usize = 1024;

/// The custom settings (such as `app.tenant`) that a session may have set since it was last asked.
/// At most 64 names of 1024 bytes each; further and longer ones are dropped.
#[derive(Debug, Default)]
#[allow(clippy::box_collection, reason = "a session is small, and few have any")]
pub struct CustomNames(Option<Box<Vec<Bytes>>>);

impl CustomNames {
    /// Adds a name, in any case; nothing if it is not that of a custom setting (has no dot), not
    /// ASCII, has a comma (which separates names in the question), is longer than 1024 bytes, is
    /// known already, or there are 64 names.
    pub fn add(&mut self, name: &[u8]) {
        if !is_custom(name) || name.len() > LONGEST {
            return;
        }
        let name = name.to_ascii_lowercase();
        let names = self.0.get_or_insert_default();
        if names.len() < LIMIT && !names.iter().any(|known| **known == *name) {
            names.push(name.into());
        }
    }

    /// Adds the name of each setting in the list (of a SET or `set_config`), where the text shows
    /// it and not a parameter. [`Self::add`] applies its limits and passes over names without a
    /// dot.
    pub fn add_all(&mut self, list: &[Assignment]) {
        for assignment in list {
            if let Operand::Text(name) = &assignment.name {
                self.add(name);
            }
        }
    }

    /// Adds every word of an SQL text that looks like the name of a custom setting (parts of ASCII
    /// letters, digits and underscores with dots between them, such as `app.tenant`), wherever it
    /// stands, also in comments and literals: to ask for a name that is none costs little.
    pub fn add_from(&mut self, text: &[u8]) {
        let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.');
        for word in text.split(|byte| !is_part(byte)) {
            let is_name = |part: &[u8]| {
                part.first().is_some_and(|byte| byte.is_ascii_alphabetic() || *byte == b'_')
            };
            if word.contains(&b'.') && word.split(|byte| *byte == b'.').all(is_name) {
                self.add(word);
            }
        }
    }

    /// The remembered names, in lower case and without doubles, in the order in which they were
    /// added; none if no custom setting was named.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.0.iter().flat_map(|names| names.iter()).map(|name| &**name)
    }

    /// Forgets all names, because the server was asked about all of them or nothing was set.
    #[inline]
    pub fn clear(&mut self) {
        self.0 = None;
    }
}

/// Whether a setting of this name may be a custom one, and the name can be asked for.
pub(crate) fn is_custom(name: &[u8]) -> bool {
    name.contains(&b'.') && name.is_ascii() && !name.contains(&b',')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_wherever_they_stand() {
        let mut names = CustomNames::default();
        names.add_from(
            b"DO $$BEGIN PERFORM set_config('App.Tenant', x.y::text, 1.5); SET a.b.c = 1; END$$",
        );
        assert!(names.iter().eq([&b"app.tenant"[..], b"x.y", b"a.b.c"]));
        names.add(b"work_mem");
        names.add(b"APP.tenant");
        assert_eq!(names.iter().count(), 3);
        names.clear();
        assert_eq!(names.iter().count(), 0);
    }

    #[test]
    fn a_text_of_many_names_does_not_fill_memory() {
        let text: String = (0..1000).map(|n| format!("a.b{n} ")).collect();
        let mut names = CustomNames::default();
        names.add_from(text.as_bytes());
        assert_eq!(names.iter().count(), LIMIT);
    }

    #[test]
    fn nor_does_one_of_an_enormous_name() {
        let mut names = CustomNames::default();
        names.add_from(format!("a.{} a.{}", "x".repeat(LONGEST), "y".repeat(100)).as_bytes());
        assert_eq!(names.iter().map(<[u8]>::len).collect::<Vec<_>>(), [102]);
    }
}
