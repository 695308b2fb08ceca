//! Which prepared statements a server connection has, and which goes when there are too many.

use foldhash::fast::RandomState;
use hashbrown::HashMap;

use crate::server::prepared::StatementId;

/// The named prepared statements that one server connection has; the least recently used is closed
/// first.
///
/// A request in a pipeline is noted before it is answered, and an error in front of it makes the
/// server skip it, together with everything up to Sync. So what was noted in this segment holds for
/// the rest of it; what was noted in an earlier one is unsure until it is answered.
#[derive(Debug, Default)]
pub struct ServerStatements {
    places: HashMap<StatementId, Entry, RandomState>,
    /// How many of the statements in the map are being closed.
    leaving: usize,
    uses: u64,
    segment: u32,
    /// The statement that the unnamed portal was last bound to, and in which transaction.
    unnamed_portal: Option<(StatementId, u64)>,
}

/// One statement: when it was last used, and whether it is surely there.
#[derive(Clone, Copy, Debug)]
struct Entry {
    used: u64,
    /// The transaction in which a named portal was opened from it; such a statement is not
    /// evicted before that transaction ends.
    portal_in: u64,
    standing: Certainty,
}

/// Whether a statement is surely on the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Certainty {
    Settled,
    /// Its Parse was sent in this segment.
    Arriving(u32),
    /// Its Close was sent in this segment.
    Leaving(u32),
}

/// Whether a server connection has a prepared statement at the moment when the next message is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatementLookup {
    /// The server has the statement, or an error makes it skip the next message too.
    Here,
    /// The server does not have the statement (it is not listed, or its Close was sent in this
    /// segment), so that it must be parsed there first.
    Missing,
    /// That depends on replies to an earlier segment (behind whose Sync the next message stands):
    /// the client's message waits for them.
    Unsure,
}

/// The kind of portal to which a statement is bound, with the number of the transaction
/// ([`Server::transaction`](crate::server::Server::transaction)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Portal {
    /// The unnamed portal, which the next Bind to it closes. The number is that of the transaction.
    Unnamed(u64),
    /// A named portal, which lasts until it is closed or the transaction of this number ends.
    Named(u64),
}

impl ServerStatements {
    /// Whether the server has the statement `id` when the next message is run. Asked before a Bind
    /// or Describe is forwarded. The statement does not count as used by that.
    #[inline]
    pub fn find(&self, id: StatementId) -> StatementLookup {
        match self.places.get(&id).map(|place| place.standing) {
            None => StatementLookup::Missing,
            Some(Certainty::Settled) => StatementLookup::Here,
            Some(Certainty::Arriving(segment)) if segment == self.segment => StatementLookup::Here,
            Some(Certainty::Leaving(segment)) if segment == self.segment => {
                StatementLookup::Missing
            }
            Some(Certainty::Arriving(_) | Certainty::Leaving(_)) => StatementLookup::Unsure,
        }
    }

    /// Notes that a portal is bound to `id`: it counts as used now, and is not evicted while the
    /// portal is open: until the transaction ends, or for the unnamed portal until the next Bind to
    /// it. An id that is not listed is passed over.
    #[inline]
    pub fn bind(&mut self, id: StatementId, portal: Portal) {
        let Some(place) = self.places.get_mut(&id) else { return };
        self.uses += 1;
        place.used = self.uses;
        match portal {
            Portal::Unnamed(transaction) => self.unnamed_portal = Some((id, transaction)),
            Portal::Named(transaction) => place.portal_in = transaction,
        }
    }

    /// Notes that a Parse of `id` was sent: the statement is there for the rest of the segment, and
    /// unsure behind that until it is answered. It counts as just used. No limit is checked: the
    /// caller makes room before ([`Self::to_evict`]).
    pub fn insert(&mut self, id: StatementId) {
        self.uses += 1;
        let standing = Certainty::Arriving(self.segment);
        self.place(id, Entry { used: self.uses, portal_in: 0, standing });
    }

    /// Notes that the Parse of `id` has succeeded (ParseComplete): the statement is surely there.
    /// Ignored if `id` is not listed or its Close was sent.
    pub fn arrived(&mut self, id: StatementId) {
        if let Some(place) = self.places.get_mut(&id)
            && matches!(place.standing, Certainty::Arriving(_))
        {
            place.standing = Certainty::Settled;
        }
    }

    /// Takes `id` off the list, because its Parse has failed or was skipped; ignored if it is not
    /// listed.
    pub fn remove(&mut self, id: StatementId) {
        if let Some(place) = self.places.remove(&id) {
            self.leaving -= usize::from(place.is_leaving());
        }
    }

    /// Notes that a Close of `id` was sent: the statement no longer counts in [`Self::len`], but
    /// stays listed until [`Self::left`] or [`Self::stays`] tells what became of the Close. Ignored
    /// if it is not listed.
    pub fn leave(&mut self, id: StatementId) {
        if let Some(place) = self.places.get(&id).copied() {
            self.place(id, Entry { standing: Certainty::Leaving(self.segment), ..place });
        }
    }

    /// Takes `id` off the list, because its Close has succeeded (CloseComplete). Ignored if no
    /// Close was noted.
    pub fn left(&mut self, id: StatementId) {
        if self.places.get(&id).is_some_and(Entry::is_leaving) {
            self.remove(id);
        }
    }

    /// Notes that the Close of `id` was skipped, because a message in front of it has failed: the
    /// statement is surely there, and counts as just used. An id that is not listed is added.
    pub fn stays(&mut self, id: StatementId) {
        self.uses += 1;
        let standing = Certainty::Settled;
        self.place(id, Entry { used: self.uses, portal_in: 0, standing });
    }

    /// Notes that a Sync was sent, behind which the next segment begins: statements of the segment
    /// before are unsure until they are answered.
    #[inline]
    pub const fn end_segment(&mut self) {
        self.segment = self.segment.wrapping_add(1);
    }

    /// The least recently used statement, to be closed so that one more fits within `limit`; `None`
    /// if there is room (fewer than `limit` are there, of which 0 counts as 1) or none may go.
    /// Statements that a portal of `transaction` uses, that are not surely there, or that are among
    /// `kept` (sorted) stay. The caller sends the Close and calls [`Self::leave`]. Walks the whole
    /// list, which happens only when a full server is given a statement that it does not have.
    #[must_use]
    pub fn to_evict(
        &self,
        limit: usize,
        transaction: u64,
        kept: &[StatementId],
    ) -> Option<StatementId> {
        if self.len() < limit.max(1) {
            return None;
        }
        self.places
            .iter()
            .filter(|(id, place)| {
                self.is_sure(place)
                    && place.portal_in < transaction
                    && self
                        .unnamed_portal
                        .is_none_or(|(used, when)| used != **id || when < transaction)
                    && kept.binary_search(id).is_err()
            })
            .min_by_key(|(_, place)| place.used)
            .map(|(id, _)| *id)
    }

    /// Takes all statements off the list, because the server has none any more (DISCARD ALL,
    /// DEALLOCATE ALL).
    pub fn clear(&mut self) {
        self.places.clear();
        self.leaving = 0;
        self.unnamed_portal = None;
    }

    /// How many statements the server has, with those whose Parse is not answered and without those
    /// whose Close was sent.
    #[must_use]
    pub fn len(&self) -> usize {
        self.places.len() - self.leaving
    }

    /// Whether the server has no prepared statement, but for those whose Close was sent.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether a statement that an earlier segment has parsed is not confirmed yet, so that it may
    /// become one to evict: a client's message waits for that when [`Self::to_evict`] finds none on
    /// a full server. Statements whose Close was sent do not count.
    #[must_use]
    pub fn any_unsure(&self) -> bool {
        let arriving = |place: &Entry| matches!(place.standing, Certainty::Arriving(_));
        self.places.values().any(|place| arriving(place) && !self.is_sure(place))
    }

    /// Whether it is there when the next message is run, or that message is skipped too.
    fn is_sure(&self, place: &Entry) -> bool {
        match place.standing {
            Certainty::Settled => true,
            Certainty::Arriving(segment) => segment == self.segment,
            Certainty::Leaving(_) => false,
        }
    }

    fn place(&mut self, id: StatementId, place: Entry) {
        self.leaving += usize::from(place.is_leaving());
        if let Some(before) = self.places.insert(id, place) {
            self.leaving -= usize::from(before.is_leaving());
        }
    }
}

impl Entry {
    const fn is_leaving(&self) -> bool {
        matches!(self.standing, Certainty::Leaving(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_goes_first_but_never_under_an_open_portal() {
        let mut server = ServerStatements::default();
        for n in 1..=3 {
            server.insert(StatementId(n));
        }
        assert_eq!(server.to_evict(4, 9, &[]), None);
        server.bind(StatementId(1), Portal::Named(9));
        assert_eq!(server.to_evict(3, 9, &[]), Some(StatementId(2)));
        server.bind(StatementId(2), Portal::Named(9));
        server.bind(StatementId(3), Portal::Unnamed(9));
        assert_eq!(server.to_evict(3, 9, &[]), None, "all are in use by this transaction");
        assert_eq!(server.to_evict(3, 10, &[]), Some(StatementId(1)));
        let kept = [StatementId(1), StatementId(2)];
        assert_eq!(server.to_evict(3, 10, &kept), Some(StatementId(3)), "they cannot come again");
    }

    #[test]
    fn what_an_earlier_segment_asked_for_is_unsure_until_it_is_answered() {
        let (mut server, id) = (ServerStatements::default(), StatementId(1));
        server.insert(id);
        assert_eq!(server.find(id), StatementLookup::Here);
        server.end_segment();
        assert_eq!(server.find(id), StatementLookup::Unsure);
        server.arrived(id);
        assert_eq!(server.find(id), StatementLookup::Here);
        server.leave(id);
        assert_eq!((server.find(id), server.len()), (StatementLookup::Missing, 0));
        server.end_segment();
        assert_eq!(server.find(id), StatementLookup::Unsure);
        server.stays(id);
        assert_eq!((server.find(id), server.len()), (StatementLookup::Here, 1));
        server.leave(id);
        server.left(id);
        assert_eq!((server.find(id), server.len()), (StatementLookup::Missing, 0));
    }
}
