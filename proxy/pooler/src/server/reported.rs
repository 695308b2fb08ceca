//! Values of the settings that a server reports (ParameterStatus), shared between connections.
//!
//! Equal sets are one allocation, so that "does the client see what this server says" is a
//! comparison of two pointers.

use std::rc::Rc;

use foldhash::fast::RandomState;
use hashbrown::HashSet;

/// The name and the value of a setting, in this order, as a server or client has sent them; without
/// NULs.
pub type NamedValue = (Box<[u8]>, Box<[u8]>);

/// A set of settings that a server has reported by ParameterStatus, sorted by name. Empty by
/// default.
#[derive(Debug, Default, PartialEq, Eq, Hash)]
pub struct Reported {
    values: Vec<NamedValue>,
}

impl Reported {
    /// The value of `name`, compared without regard to ASCII case; `None` if it was not reported. A
    /// value may be empty.
    #[must_use]
    pub fn get(&self, name: &[u8]) -> Option<&[u8]> {
        self.values.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| &**v)
    }

    /// Names and values of the set, sorted by name, the names in the server's spelling.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.values.iter().map(|(name, value)| (&**name, &**value))
    }

    /// The names and values that a client must be told (ParameterStatus) when it was last told
    /// `known`: those of `self` that are new or whose value differs in any byte, sorted by name.
    /// Settings that only `known` has are left out, because a client cannot be told of their end.
    /// Used when a session is linked to another server connection.
    pub fn changes_since<'a>(
        &'a self,
        known: &'a Self,
    ) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        self.iter().filter(|(name, value)| known.get(name) != Some(value))
    }
}

/// A worker's sets of reported settings, each held once, so that equal sets are one allocation. A
/// set that nobody refers to any more is dropped in a later sweep.
#[derive(Debug, Default)]
pub struct ReportedTable {
    sets: HashSet<Rc<Reported>, RandomState>,
    sweep_at: usize,
}

impl ReportedTable {
    /// The table's one set with these values, added if there is none. The order of the values does
    /// not matter; a name that is given twice stays there twice. No values give an empty set.
    pub fn intern(&mut self, values: impl IntoIterator<Item = NamedValue>) -> Rc<Reported> {
        let mut values: Vec<_> = values.into_iter().collect();
        values.sort();
        self.hold(Reported { values })
    }

    /// The table's one set that equals `set`, but with `name` (in any case) at `value`, added if
    /// there is none: for a ParameterStatus that has come. `set` itself is not changed; it is
    /// returned if it has this value already. A name that `set` lacks is added.
    pub fn with(&mut self, set: &Rc<Reported>, name: &[u8], value: &[u8]) -> Rc<Reported> {
        if set.get(name) == Some(value) {
            return Rc::clone(set);
        }
        let mut values: Vec<_> =
            set.values.iter().filter(|(n, _)| !n.eq_ignore_ascii_case(name)).cloned().collect();
        values.push((name.into(), value.into()));
        values.sort();
        self.hold(Reported { values })
    }

    fn hold(&mut self, set: Reported) -> Rc<Reported> {
        if let Some(held) = self.sets.get(&set) {
            return Rc::clone(held);
        }
        if self.sets.len() >= self.sweep_at.max(64) {
            self.sets.retain(|held| Rc::strong_count(held) > 1);
            self.sweep_at = self.sets.len() * 2;
        }
        let set = Rc::new(set);
        self.sets.insert(Rc::clone(&set));
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(name: &str, value: &str) -> NamedValue {
        (name.as_bytes().into(), value.as_bytes().into())
    }

    #[test]
    fn equal_sets_are_one_allocation() {
        let mut table = ReportedTable::default();
        let a = table.intern([pair("TimeZone", "UTC"), pair("DateStyle", "ISO, MDY")]);
        let b = table.intern([pair("DateStyle", "ISO, MDY"), pair("TimeZone", "UTC")]);
        assert!(Rc::ptr_eq(&a, &b));
        let c = table.with(&a, b"timezone", b"CET");
        assert_eq!(c.changes_since(&a).collect::<Vec<_>>(), [(&b"timezone"[..], &b"CET"[..])]);
        assert!(Rc::ptr_eq(&c, &table.with(&c, b"TimeZone", b"CET")));
    }

    #[test]
    fn sets_that_nobody_holds_are_swept() {
        let mut table = ReportedTable::default();
        for n in 0..1000 {
            let _ = table.intern([pair("application_name", &n.to_string())]);
        }
        assert!(table.sets.len() <= 65, "{} held", table.sets.len());
    }
}
