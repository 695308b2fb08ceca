//! The server connections of a worker.

use slab::Slab;

use super::Server;
use crate::ids::ServerId;

/// The server connections of a worker. An id that none has any more finds nothing: the serial
/// number is checked here, once.
#[derive(Debug, Default)]
pub(crate) struct Servers {
    slab: Slab<Server>,
}

impl Servers {
    /// The server connection of this id, unless it is gone.
    #[inline]
    pub(crate) fn get(&self, id: ServerId) -> Option<&Server> {
        self.slab.get(id.index()).filter(|server| server.id == id)
    }

    /// As [`Self::get`], to be changed.
    #[inline]
    pub(crate) fn get_mut(&mut self, id: ServerId) -> Option<&mut Server> {
        self.slab.get_mut(id.index()).filter(|server| server.id == id)
    }

    /// Takes a server connection in: `make` gets its id.
    pub(crate) fn insert(
        &mut self,
        serial: u32,
        make: impl FnOnce(ServerId) -> Server,
    ) -> ServerId {
        let entry = self.slab.vacant_entry();
        let id = ServerId { slot: entry.key() as u32, serial };
        entry.insert(make(id));
        id
    }

    /// Takes a server connection out, unless it is gone.
    pub(crate) fn remove(&mut self, id: ServerId) -> Option<Server> {
        self.get(id)?;
        Some(self.slab.remove(id.index()))
    }

    /// All of them, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Server> {
        self.slab.iter().map(|(_, server)| server)
    }

    /// As [`Self::iter`], to be changed.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Server> {
        self.slab.iter_mut().map(|(_, server)| server)
    }
}
