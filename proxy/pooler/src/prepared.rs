//! Prepared statements: what a client calls them, what the servers call them, who has which.
//!
//! Two clients share a server's statement only when its text, its parameter types, the settings
//! that matter to Parse and the count of schema changes seen are all equal.

use std::cell::Cell;
use std::hash::Hasher;
use std::rc::{Rc, Weak};

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use siphasher::sip128::{Hasher128, SipHasher13};

/// Every name that the proxy gives on a server starts so; a client's own name that starts so too
/// is never forwarded as it is.
pub const SERVER_NAME_PREFIX: &[u8] = b"pgimbal_";

/// Names that one client may hold at a time. A driver's cache holds some hundreds; the bound keeps
/// one client from filling memory.
pub const CLIENT_STATEMENTS_LIMIT: usize = 65_536;

/// The identity of a statement on every worker: a keyed 128-bit hash of all that must be equal.
/// A client cannot aim for a collision without the process's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StatementId(pub u128);

/// The process's secret key for [`StatementId`].
#[derive(Clone, Copy)]
pub struct StatementKey(pub [u8; 16]);

impl StatementKey {
    /// A seed for tables that hash what clients choose.
    #[must_use]
    pub const fn seed(&self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        u64::from_le_bytes([a, b, c, d, e, f, g, h])
    }
}

impl std::fmt::Debug for StatementKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("StatementKey(***)")
    }
}

/// A statement that may live on several servers and be known to several clients.
#[derive(Debug)]
pub struct Statement {
    /// Its identity.
    pub id: StatementId,
    /// The identity of what it was parsed from, which several statements may share.
    pub content: StatementId,
    /// The body of its Parse behind the name: text, NUL, parameter types. `None` when the text is
    /// above the limit: then it lives on one server only.
    pub body: Option<Box<[u8]>>,
    /// The settings under which it was parsed, as far as they matter to Parse.
    pub settings: u64,
    /// What executing it means to the session, or nothing.
    pub kind: StatementKind,
    /// What its rows look like, as a hash of the server's description, once that has come.
    pub rows: Cell<Option<u64>>,
}

/// Whether executing a statement changes more than rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatementKind {
    /// Nothing that the session must know of.
    Plain,
    /// It changes session state, or ends a transaction: the text is judged when it is bound.
    Special,
}

impl Statement {
    /// The text of the statement, without its NUL; empty when it was not kept.
    #[must_use]
    pub fn text(&self) -> &[u8] {
        self.body.as_deref().map_or(&[], |body| {
            let end = body.iter().position(|&b| b == 0).unwrap_or(body.len());
            &body[..end]
        })
    }

    /// Appends the statement's name on the servers, without a NUL.
    pub fn write_server_name(&self, out: &mut Vec<u8>) {
        write_server_name(self.id, out);
    }
}

/// Appends the server-side name of `id`, without a NUL.
pub fn write_server_name(id: StatementId, out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    out.extend_from_slice(SERVER_NAME_PREFIX);
    for byte in id.0.to_be_bytes() {
        out.push(DIGITS[usize::from(byte >> 4)]);
        out.push(DIGITS[usize::from(byte & 15)]);
    }
}

/// A worker's statements: of each text, types and settings the newest, while any client knows it.
///
/// A client's Parse always reaches the server, under a name of its own, and is described there:
/// when its rows look as those of the newest statement do, the client is given that one to share,
/// otherwise (the schema has changed) its own becomes the newest. So nobody meets "cached plan must
/// not change result type" on a statement that it has just parsed.
#[derive(Debug)]
pub struct StatementTable {
    key: StatementKey,
    worker: u16,
    parses: u64,
    known: HashMap<StatementId, Weak<Statement>, RandomState>,
    sweep_at: usize,
}

impl StatementTable {
    /// An empty table; equal keys give equal identities on every worker.
    #[must_use]
    pub fn new(key: StatementKey, worker: u16) -> Self {
        Self { key, worker, parses: 0, known: HashMap::default(), sweep_at: 256 }
    }

    /// A number for a list of names and values, equal on every worker.
    pub fn fingerprint<'a>(&self, values: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> u64 {
        let mut hasher = SipHasher13::new_with_key(&self.key.0);
        for (name, value) in values {
            for part in [name, value] {
                hasher.write_usize(part.len());
                hasher.write(part);
            }
        }
        // Zero stands for "no settings".
        hasher.finish128().h1.max(1)
    }

    /// The one statement of this Parse body (text, NUL, types) under `settings` and after
    /// `schema_changes` changes of the schema.
    pub fn intern(
        &mut self,
        body: &[u8],
        settings: u64,
        schema_changes: u64,
        kind: impl FnOnce(&[u8]) -> StatementKind,
    ) -> Rc<Statement> {
        let id = self.identify(body, settings, schema_changes);
        if let Some(known) = self.known.get(&id).and_then(Weak::upgrade) {
            return known;
        }
        let end = body.iter().position(|&b| b == 0).unwrap_or(body.len());
        let statement = Rc::new(Statement {
            id,
            content: id,
            body: Some(body.into()),
            settings,
            kind: kind(&body[..end]),
            rows: Cell::new(None),
        });
        self.make_newest(&statement);
        statement
    }

    /// The statement of a client's Parse: one of its own until it is described.
    pub fn parse(
        &mut self,
        body: &[u8],
        settings: u64,
        schema_changes: u64,
        kind: impl FnOnce(&[u8]) -> StatementKind,
    ) -> Rc<Statement> {
        let content = self.identify(body, settings, schema_changes);
        // Some server may still have one under the name that the content alone would give.
        self.parses += 1;
        let mut hasher = SipHasher13::new_with_key(&self.key.0);
        hasher.write(&content.0.to_le_bytes());
        hasher.write_u16(self.worker);
        hasher.write_u64(self.parses);
        let end = body.iter().position(|&b| b == 0).unwrap_or(body.len());
        Rc::new(Statement {
            id: StatementId(hasher.finish128().as_u128()),
            content,
            body: Some(body.into()),
            settings,
            kind: kind(&body[..end]),
            rows: Cell::new(None),
        })
    }

    /// The server has described a statement that a client has just parsed; `rows` stands for what
    /// it said. Returns the statement to use instead, if there is one with the same rows.
    pub fn described(&mut self, statement: &Rc<Statement>, rows: u64) -> Option<Rc<Statement>> {
        statement.rows.set(Some(rows));
        let newest = self.known.get(&statement.content).and_then(Weak::upgrade);
        match newest {
            Some(newest) if Rc::ptr_eq(&newest, statement) => None,
            Some(newest) if newest.rows.get() == Some(rows) => Some(newest),
            _ => {
                self.make_newest(statement);
                None
            }
        }
    }

    fn make_newest(&mut self, statement: &Rc<Statement>) {
        self.sweep();
        self.known.insert(statement.content, Rc::downgrade(statement));
    }

    fn identify(&self, body: &[u8], settings: u64, schema_changes: u64) -> StatementId {
        let mut hasher = SipHasher13::new_with_key(&self.key.0);
        hasher.write_u64(settings);
        hasher.write_u64(schema_changes);
        hasher.write(body);
        StatementId(hasher.finish128().as_u128())
    }

    /// Drops what no client knows any more, each time the table has doubled.
    fn sweep(&mut self) {
        if self.known.len() >= self.sweep_at {
            self.known.retain(|_, statement| statement.strong_count() > 0);
            self.sweep_at = (self.known.len() * 2).max(256);
        }
    }
}

/// What one client's names mean.
#[derive(Debug, Default)]
pub struct ClientStatements {
    names: HashMap<Box<[u8]>, Rc<Statement>, RandomState>,
}

impl ClientStatements {
    /// What `name` means.
    #[inline]
    pub fn get(&self, name: &[u8]) -> Option<&Rc<Statement>> {
        self.names.get(name)
    }

    /// Gives `name` a meaning or takes it away; returns what it meant before.
    pub fn set(&mut self, name: &[u8], statement: Option<Rc<Statement>>) -> Option<Rc<Statement>> {
        match statement {
            Some(statement) => self.names.insert(name.into(), statement),
            None => self.names.remove(name),
        }
    }

    /// Names in use.
    #[must_use]
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether no name is in use.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Whether a statement without a kept text is among them.
    #[must_use]
    pub fn any_unkept(&self) -> bool {
        self.names.values().any(|statement| statement.body.is_none())
    }

    /// Whether a kept statement was parsed under other settings than `settings`.
    #[must_use]
    pub fn any_under_other(&self, settings: u64) -> bool {
        self.names.values().any(|s| s.body.is_some() && s.settings != settings)
    }
}

/// The statements that one server connection has; the least recently used goes first.
///
/// A request in a pipeline is noted before it is answered, and an error in front of it makes the
/// server skip it, together with everything up to Sync. So what was noted in this segment holds
/// for the rest of it; what was noted in an earlier one is unsure until it is answered.
#[derive(Debug, Default)]
pub struct ServerStatements {
    places: HashMap<StatementId, Place, RandomState>,
    /// How many of the places are about to be left.
    leaving: usize,
    uses: u64,
    segment: u32,
    /// What the unnamed portal was last bound to, and in which transaction.
    unnamed_portal: Option<(StatementId, u64)>,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    used: u64,
    /// The transaction in which a named portal was opened from it; such a statement is not
    /// evicted before that transaction ends.
    portal_in: u64,
    standing: Standing,
}

/// How sure it is that a statement is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Settled,
    /// Its Parse was sent in this segment.
    Arriving(u32),
    /// Its Close was sent in this segment.
    Leaving(u32),
}

/// Whether a server has a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// It has, when the next message is run.
    Here,
    /// It has not.
    Missing,
    /// That depends on replies which are still owed.
    Unsure,
}

/// The portal that a statement is bound to, and the number of the transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Portal {
    /// The unnamed portal, which the next Bind to it closes.
    Unnamed(u64),
    /// A named portal.
    Named(u64),
}

impl ServerStatements {
    /// Whether the server has `id`.
    #[inline]
    pub fn find(&self, id: StatementId) -> Found {
        match self.places.get(&id).map(|place| place.standing) {
            None => Found::Missing,
            Some(Standing::Settled) => Found::Here,
            Some(Standing::Arriving(segment)) if segment == self.segment => Found::Here,
            Some(Standing::Leaving(segment)) if segment == self.segment => Found::Missing,
            Some(Standing::Arriving(_) | Standing::Leaving(_)) => Found::Unsure,
        }
    }

    /// Notes that a portal is bound to `id`, if that is listed.
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

    /// A Parse of `id` was sent.
    pub fn insert(&mut self, id: StatementId) {
        self.uses += 1;
        let standing = Standing::Arriving(self.segment);
        self.place(id, Place { used: self.uses, portal_in: 0, standing });
    }

    /// The Parse of `id` has succeeded.
    pub fn arrived(&mut self, id: StatementId) {
        if let Some(place) = self.places.get_mut(&id)
            && matches!(place.standing, Standing::Arriving(_))
        {
            place.standing = Standing::Settled;
        }
    }

    /// The Parse of `id` has failed or was skipped.
    pub fn remove(&mut self, id: StatementId) {
        if let Some(place) = self.places.remove(&id) {
            self.leaving -= usize::from(place.is_leaving());
        }
    }

    /// A statement that nobody is expected to bind again is the first to go.
    pub fn demote(&mut self, id: StatementId) {
        if let Some(place) = self.places.get_mut(&id) {
            place.used = 0;
        }
    }

    /// A Close of `id` was sent.
    pub fn leave(&mut self, id: StatementId) {
        if let Some(place) = self.places.get(&id).copied() {
            self.place(id, Place { standing: Standing::Leaving(self.segment), ..place });
        }
    }

    /// The Close of `id` has succeeded.
    pub fn left(&mut self, id: StatementId) {
        if self.places.get(&id).is_some_and(Place::is_leaving) {
            self.remove(id);
        }
    }

    /// The Close of `id` was skipped.
    pub fn stays(&mut self, id: StatementId) {
        self.uses += 1;
        let standing = Standing::Settled;
        self.place(id, Place { used: self.uses, portal_in: 0, standing });
    }

    /// A Sync was sent.
    #[inline]
    pub const fn end_segment(&mut self) {
        self.segment = self.segment.wrapping_add(1);
    }

    /// The statement to close so that one more fits within `limit`, if one must go and no portal
    /// of `transaction` uses it. Walks the list, which happens only when a full server is given
    /// a statement that it does not have.
    #[must_use]
    pub fn to_evict(&self, limit: usize, transaction: u64) -> Option<StatementId> {
        if self.len() < limit.max(1) {
            return None;
        }
        self.places
            .iter()
            .filter(|(id, place)| {
                self.is_sure(place)
                    && place.portal_in < transaction
                    && self.unnamed_portal.is_none_or(|(used, when)| used != **id || when < transaction)
            })
            .min_by_key(|(_, place)| place.used)
            .map(|(id, _)| *id)
    }

    /// The server has none any more.
    pub fn clear(&mut self) {
        self.places.clear();
        self.leaving = 0;
        self.unnamed_portal = None;
    }

    /// Statements on the server.
    #[must_use]
    pub fn len(&self) -> usize {
        self.places.len() - self.leaving
    }

    /// Whether the server has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether statements that an earlier segment asked for may turn out to be there.
    #[must_use]
    pub fn any_unsure(&self) -> bool {
        let arriving = |place: &Place| matches!(place.standing, Standing::Arriving(_));
        self.places.values().any(|place| arriving(place) && !self.is_sure(place))
    }

    /// Whether it is there when the next message is run, or that message is skipped too.
    fn is_sure(&self, place: &Place) -> bool {
        match place.standing {
            Standing::Settled => true,
            Standing::Arriving(segment) => segment == self.segment,
            Standing::Leaving(_) => false,
        }
    }

    fn place(&mut self, id: StatementId, place: Place) {
        self.leaving += usize::from(place.is_leaving());
        if let Some(before) = self.places.insert(id, place) {
            self.leaving -= usize::from(before.is_leaving());
        }
    }
}

impl Place {
    const fn is_leaving(&self) -> bool {
        matches!(self.standing, Standing::Leaving(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> StatementTable {
        StatementTable::new(StatementKey([7; 16]), 0)
    }

    #[test]
    fn equal_parses_share_and_any_difference_separates() {
        let mut table = table();
        let plain = |_: &[u8]| StatementKind::Plain;
        let a = table.intern(b"select 1\0\0\0", 1, 0, plain);
        assert!(Rc::ptr_eq(&a, &table.intern(b"select 1\0\0\0", 1, 0, plain)));
        assert_ne!(a.id, table.intern(b"select 2\0\0\0", 1, 0, plain).id);
        assert_ne!(a.id, table.intern(b"select 1\0\0\x01\0\0\0\x17", 1, 0, plain).id);
        assert_ne!(a.id, table.intern(b"select 1\0\0\0", 2, 0, plain).id);
        assert_ne!(a.id, table.intern(b"select 1\0\0\0", 1, 1, plain).id);
        assert_eq!(a.text(), b"select 1");
    }

    #[test]
    fn behaviour_19_a_parse_shares_the_newest_statement_with_the_same_rows() {
        let mut table = table();
        let plain = |_: &[u8]| StatementKind::Plain;
        let body = b"select * from t\0\0\0";
        let first = table.parse(body, 1, 0, plain);
        assert!(table.described(&first, 10).is_none());
        let second = table.parse(body, 1, 0, plain);
        assert_ne!(first.id, second.id);
        assert!(Rc::ptr_eq(&table.described(&second, 10).unwrap(), &first));
        let third = table.parse(body, 1, 0, plain);
        assert!(table.described(&third, 11).is_none(), "the rows look otherwise now");
        let fourth = table.parse(body, 1, 0, plain);
        assert!(Rc::ptr_eq(&table.described(&fourth, 11).unwrap(), &third));
    }

    #[test]
    fn statements_that_nobody_knows_are_swept() {
        let mut table = table();
        for n in 0..10_000_u32 {
            let text = format!("select {n}\0\0\0");
            let _ = table.intern(text.as_bytes(), 0, 0, |_| StatementKind::Plain);
        }
        assert!(table.known.len() <= 256, "{} left", table.known.len());
    }

    #[test]
    fn the_least_recently_used_goes_first_but_never_under_an_open_portal() {
        let mut server = ServerStatements::default();
        for n in 1..=3 {
            server.insert(StatementId(n));
        }
        assert_eq!(server.to_evict(4, 9), None);
        server.bind(StatementId(1), Portal::Named(9));
        assert_eq!(server.to_evict(3, 9), Some(StatementId(2)));
        server.bind(StatementId(2), Portal::Named(9));
        server.bind(StatementId(3), Portal::Unnamed(9));
        assert_eq!(server.to_evict(3, 9), None, "all are in use by this transaction");
        assert_eq!(server.to_evict(3, 10), Some(StatementId(1)));
    }

    #[test]
    fn what_an_earlier_segment_asked_for_is_unsure_until_it_is_answered() {
        let (mut server, id) = (ServerStatements::default(), StatementId(1));
        server.insert(id);
        assert_eq!(server.find(id), Found::Here);
        server.end_segment();
        assert_eq!(server.find(id), Found::Unsure);
        server.arrived(id);
        assert_eq!(server.find(id), Found::Here);
        server.leave(id);
        assert_eq!((server.find(id), server.len()), (Found::Missing, 0));
        server.end_segment();
        assert_eq!(server.find(id), Found::Unsure);
        server.stays(id);
        assert_eq!((server.find(id), server.len()), (Found::Here, 1));
        server.leave(id);
        server.left(id);
        assert_eq!((server.find(id), server.len()), (Found::Missing, 0));
    }
}
