//! Names of the things that a worker's core keeps.
//!
//! An id is a slot in a slab and the serial of its tenant, so that a late wake-up or reply for a
//! tenant that has left is recognised instead of reaching the next one.

/// A client session of this worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SessionId {
    /// Slot in the worker's slab.
    pub slot: u32,
    /// The tenant's serial number.
    pub serial: u32,
}

/// A server connection of this worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ServerId {
    /// Slot in the worker's slab.
    pub slot: u32,
    /// The tenant's serial number.
    pub serial: u32,
}

/// A pool: one database and one user, with this worker's share of its server connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PoolId(pub u32);

/// A cluster, as this worker numbers those it has met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClusterId(pub u16);

/// A worker of the process, counted from zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkerId(pub u16);

impl SessionId {
    /// The slot as an index.
    #[must_use]
    pub const fn index(self) -> usize {
        self.slot as usize
    }
}

impl ServerId {
    /// The slot as an index.
    #[must_use]
    pub const fn index(self) -> usize {
        self.slot as usize
    }
}

impl ClusterId {
    /// The cluster as an index.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl PoolId {
    /// The pool as an index.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}
