//! Names of the things that a worker's core keeps.
//!
//! An id is a slot in a slab and the serial of its tenant, so that a late wake-up or reply for a
//! tenant that has left is recognised instead of reaching the next one.

/// Identifies a client session of one worker. An id whose session has left finds nothing: a slot is
/// given to the next session, but with another serial number. Another worker may have an equal id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SessionId {
    /// The index of the session in the worker's slab, from 0. A slot is reused once its session has
    /// left.
    pub slot: u32,
    /// The serial number of the session on its worker. Sessions and server connections count from 1
    /// together; the count wraps after 2^32. 0 stands for no session.
    pub serial: u32,
}

/// Identifies a server connection of one worker. An id whose connection is gone finds nothing: a
/// slot is given to the next connection, but with another serial number. A connection that moves to
/// another worker gets a new id there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ServerId {
    /// The index of the server connection in the worker's slab, from 0. A slot is reused once its
    /// connection is gone.
    pub slot: u32,
    /// The serial number of the server connection on its worker. Sessions and server connections
    /// count from 1 together; the count wraps after 2^32.
    pub serial: u32,
}

/// Identifies a pool of one worker: an index from 0, different on each worker. A pool is one
/// database, one user and one place in a cluster. When a pool is retired (`Action::Retired`), its
/// number is given to the next new pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PoolId(pub u32);

/// Identifies a cluster on one worker: an index from 0, in the order in which the worker has met
/// the clusters. Another worker may number them otherwise. A number is never given to another
/// cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClusterId(pub u16);

/// Identifies a worker of the process: an index from 0. A worker is a thread with its own sessions,
/// server connections and part of each pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkerId(pub u16);

impl SessionId {
    /// Returns the session's slot as an index into the worker's slab, from 0. It is not checked
    /// that the session still has the slot.
    #[must_use]
    pub const fn index(self) -> usize {
        self.slot as usize
    }
}

impl ServerId {
    /// Returns the server connection's slot as an index into the worker's slab, from 0. It is not
    /// checked that the connection still has the slot.
    #[must_use]
    pub const fn index(self) -> usize {
        self.slot as usize
    }
}

impl ClusterId {
    /// Returns the cluster's number as an index into the worker's list of clusters, from 0.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl PoolId {
    /// Returns the pool's number as an index into the worker's list of pools, from 0, retired ones
    /// included.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}
