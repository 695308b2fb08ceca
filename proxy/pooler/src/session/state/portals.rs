//! What a client's portals will do to its session when they are run.

use crate::session::effect::{Bytes, Script};
use crate::sql::{Assignment, Kinds};

/// The most portals that are followed whose statement is not plain; drivers have one at a time. A
/// portal beyond the limit counts as able to do anything.
const LIMIT: usize = 32;

/// Whether a statement, when it runs, may change the settings by which the server reads the texts
/// behind it (such as `standard_conforming_strings`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rereads {
    /// The statement does not: the reading of later texts stays as it is.
    No,
    /// The statement may, because it sets or resets settings or rolls back: later texts are
    /// classified by all their possible readings until it is answered.
    Perhaps,
}

/// The portals of one session whose statements have effects that the proxy follows (SET, RESET,
/// PREPARE and the like). At most 32; all end with the transaction.
/// Most sessions have none, which takes 8 bytes.
#[derive(Debug, Default)]
pub struct Portals(Option<Box<Followed>>);

#[derive(Debug, Default)]
struct Followed {
    list: Vec<(Bytes, Script, Rereads)>,
    /// What cursors of this transaction may leave when they are fetched from.
    cursors: Kinds,
}

impl Portals {
    /// Notes a Bind of `portal`, which replaces one of the same name. `script` is what the portal
    /// runs; `None` if nothing of that is followed. Returns the kinds of state that the portal may
    /// leave unseen, which the caller raises: none, or any ([`Kinds::ANYTHING`]) if there are 32
    /// other portals already; the portal is then not followed, and FETCH may leave any kind too.
    pub fn bind(&mut self, portal: &[u8], script: Option<(Script, Rereads)>) -> Kinds {
        self.close(portal);
        let Some((script, rereads)) = script else { return Kinds::NONE };
        let followed = self.0.get_or_insert_default();
        if followed.list.len() >= LIMIT {
            followed.cursors.insert(Kinds::ANYTHING);
            return Kinds::ANYTHING;
        }
        followed.list.push((portal.into(), script, rereads));
        Kinds::NONE
    }

    /// Notes that a portal was closed (message Close): it is no longer followed; an unknown name is
    /// passed over.
    pub fn close(&mut self, portal: &[u8]) {
        if let Some(followed) = &mut self.0 {
            followed.list.retain(|(name, ..)| **name != *portal);
        }
    }

    /// Takes what the portal runs, when the client's Execute names it; `None` if that is not
    /// followed, or the name is unknown. The empty name is the unnamed portal. A second Execute of
    /// the portal finds nothing.
    pub fn take(&mut self, portal: &[u8]) -> Option<(Script, Rereads)> {
        let list = &mut self.0.as_mut()?.list;
        let at = list.iter().position(|(name, ..)| **name == *portal)?;
        let (_, script, rereads) = list.swap_remove(at);
        Some((script, rereads))
    }

    /// Whether no portal is followed, as in most transactions; declared cursors do not count. Texts
    /// that may close portals then need no further look.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.as_ref().is_none_or(|followed| followed.list.is_empty())
    }

    /// Stops following all portals, because code may have closed them and put others in their
    /// place. From now on, until the transaction ends, FETCH may leave any kind of state. The
    /// caller raises [`Kinds::ANYTHING`].
    pub fn forget(&mut self) {
        let followed = self.0.get_or_insert_default();
        followed.list.clear();
        followed.cursors.insert(Kinds::ANYTHING);
    }

    /// Notes that a cursor was declared (DECLARE) for a query that may leave `kinds` of state when
    /// it is fetched from; nothing if `kinds` is empty. They count for every FETCH until the
    /// transaction ends, whichever cursor it names.
    pub fn declare(&mut self, kinds: Kinds) {
        if !kinds.is_empty() {
            self.0.get_or_insert_default().cursors.insert(kinds);
        }
    }

    /// The kinds of state that FETCH and MOVE may leave: those of all declared cursors, and any
    /// ([`Kinds::ANYTHING`]) while a portal is followed or after [`Self::forget`], because FETCH
    /// runs portals by their names too. Empty if there are neither.
    #[must_use]
    pub fn fetched(&self) -> Kinds {
        match &self.0 {
            None => Kinds::NONE,
            Some(followed) if followed.list.is_empty() => followed.cursors,
            Some(followed) => followed.cursors.union(Kinds::ANYTHING),
        }
    }

    /// The settings that the followed portals set when they are run, one list per SET statement, in
    /// no order of the portals. Custom ones among them are asked about where FETCH may run them.
    pub fn assignments(&self) -> impl Iterator<Item = &[Assignment]> {
        let list = self.0.iter().flat_map(|followed| &followed.list);
        list.flat_map(|(_, script, _)| script.assignments())
    }

    /// Forgets all portals and cursors, because the transaction has ended and closed them, or the
    /// server connection went back to the pool or is gone.
    #[inline]
    pub fn clear(&mut self) {
        self.0 = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::{Form, Step};

    fn reset() -> Option<(Script, Rereads)> {
        let step = Step { form: Form::ResetAll, ..Step::PLAIN };
        Some((Script::new(vec![step], b""), Rereads::Perhaps))
    }

    #[test]
    fn a_portal_that_was_closed_or_bound_again_does_what_it_is_now_bound_to() {
        let mut portals = Portals::default();
        assert!(portals.bind(b"p", reset()).is_empty());
        portals.close(b"p");
        assert!(portals.take(b"p").is_none());
        portals.bind(b"p", reset());
        portals.bind(b"p", None);
        assert!(portals.take(b"p").is_none());
        assert_eq!(portals.fetched(), Kinds::NONE);
        portals.bind(b"q", reset());
        assert!(portals.fetched().meets(Kinds::ROLE), "FETCH FROM q runs it");
        assert!(portals.take(b"q").is_some());
        portals.declare(Kinds::SETTINGS);
        assert_eq!(portals.fetched(), Kinds::SETTINGS);
        portals.clear();
        assert_eq!(portals.fetched(), Kinds::NONE);
    }

    #[test]
    fn what_is_beyond_the_limit_may_do_anything() {
        let mut portals = Portals::default();
        for n in 0..LIMIT {
            assert!(portals.bind(n.to_string().as_bytes(), reset()).is_empty());
        }
        assert!(!portals.bind(b"more", reset()).is_empty());
        assert!(portals.take(b"more").is_none());
    }
}
