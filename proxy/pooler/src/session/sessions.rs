//! The sessions of a worker.

use std::hash::BuildHasher;
use std::time::Duration;

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use slab::Slab;

use super::Session;
use super::drain::time::DrainTime;
use crate::ids::SessionId;

/// The limits that hold for all sessions of a worker, from the configuration. A reload replaces
/// them.
#[derive(Clone, Copy, Debug)]
pub struct SessionOptions {
    /// How long a client may send nothing while its session has no server connection; after that it
    /// is dismissed with 57P05 (`client_idle_timeout`). `None` for ever.
    pub client_idle_timeout: Option<Duration>,
    /// How long a client may leave unread what was written to it while its session has a server
    /// connection; after that it is dismissed with 08006 (`client_stall_timeout`).
    pub client_stall_timeout: Duration,
}

/// Whether the worker still serves its clients, or dismisses them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Service {
    /// Clients are served.
    Open,
    /// The process ends: clients go within this time.
    Draining(DrainTime),
}

/// The sessions of a worker. An id that a session no longer has finds nothing: the serial number is
/// checked here, once.
#[derive(Debug)]
pub(crate) struct Sessions {
    slab: Slab<Session>,
    /// By the hash of the process id that their clients know them by, which several may share.
    by_process: HashTable<SessionId>,
    hasher: RandomState,
    options: SessionOptions,
    service: Service,
    /// The slot from which [`Self::next_to_look_at`] goes on.
    looked_at: usize,
}

impl Sessions {
    pub(crate) fn new(options: SessionOptions) -> Self {
        Self {
            slab: Slab::new(),
            by_process: HashTable::new(),
            hasher: RandomState::default(),
            options,
            service: Service::Open,
            looked_at: 0,
        }
    }

    /// The session of this id, unless it has left.
    #[inline]
    pub(crate) fn get(&self, id: SessionId) -> Option<&Session> {
        self.slab.get(id.index()).filter(|session| session.id == id)
    }

    /// As [`Self::get`], to be changed.
    #[inline]
    pub(crate) fn get_mut(&mut self, id: SessionId) -> Option<&mut Session> {
        self.slab.get_mut(id.index()).filter(|session| session.id == id)
    }

    /// The session whose cancel key has this process id and secret. The secrets of all sessions
    /// with that process id are compared, each in constant time.
    pub(crate) fn of_key(&self, process_id: u32, secret: &[u8]) -> Option<&Session> {
        let hash = self.hasher.hash_one(process_id);
        let sessions = self.by_process.iter_hash(hash).filter_map(|id| self.get(*id));
        sessions
            .filter(|session| session.key.process_id == process_id && session.key.matches(secret))
            .last()
    }

    /// Takes a session in: `make` gets its id.
    pub(crate) fn insert(
        &mut self,
        serial: u32,
        make: impl FnOnce(SessionId) -> Session,
    ) -> SessionId {
        let entry = self.slab.vacant_entry();
        let id = SessionId { slot: entry.key() as u32, serial };
        let session = make(id);
        let hash = self.hasher.hash_one(session.key.process_id);
        entry.insert(session);
        let (slab, hasher) = (&self.slab, &self.hasher);
        self.by_process.insert_unique(hash, id, |id| {
            hasher.hash_one(slab.get(id.index()).map_or(0, |session| session.key.process_id))
        });
        id
    }

    /// Takes a session out, unless it has left.
    pub(crate) fn remove(&mut self, id: SessionId) -> Option<Session> {
        self.get(id)?;
        let session = self.slab.remove(id.index());
        let hash = self.hasher.hash_one(session.key.process_id);
        if let Ok(entry) = self.by_process.find_entry(hash, |of| *of == id) {
            entry.remove();
        }
        Some(session)
    }

    /// All of them, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Session> {
        self.slab.iter().map(|(_, session)| session)
    }

    /// Those in the next `slots` of the table; behind the last slot it begins anew.
    pub(crate) fn next_to_look_at(&mut self, slots: usize) -> Vec<SessionId> {
        let from = if self.looked_at < self.slab.capacity() { self.looked_at } else { 0 };
        self.looked_at = from.saturating_add(slots);
        let next = (from..self.looked_at.min(self.slab.capacity())).map(|slot| self.slab.get(slot));
        next.flatten().map(Session::id).collect()
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.slab.is_empty()
    }

    /// What holds for all of them.
    pub(crate) const fn options(&self) -> &SessionOptions {
        &self.options
    }

    /// A reload has changed what holds for all of them.
    pub(crate) const fn set_options(&mut self, options: SessionOptions) {
        self.options = options;
    }

    /// Whether the worker still takes in what comes.
    pub(crate) const fn service(&self) -> Service {
        self.service
    }

    /// From now on clients go, within this time.
    pub(crate) const fn begin_to_drain(&mut self, time: DrainTime) {
        self.service = Service::Draining(time);
    }
}
