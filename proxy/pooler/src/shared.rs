//! What the workers share about a pool: counts and the first server's welcome.
//!
//! Checkout and check-in touch one atomic of the worker's own; everything else here is used when a
//! connection opens, closes or moves.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use crate::ids::WorkerId;

/// Server connections against a limit that several pools share.
#[derive(Debug, Default)]
pub struct SharedCount(AtomicU32);

impl SharedCount {
    /// Takes one if fewer than `limit` are taken.
    fn take(&self, limit: u32) -> bool {
        self.0.fetch_update(Relaxed, Relaxed, |n| (n < limit).then_some(n + 1)).is_ok()
    }

    fn give_back(&self) {
        self.0.fetch_sub(1, Relaxed);
    }

    /// How many are taken.
    #[must_use]
    pub fn get(&self) -> u32 {
        self.0.load(Relaxed)
    }
}

/// What all pools of one database share, on every worker.
#[derive(Debug, Default)]
pub struct SharedDatabase {
    /// Its server connections.
    pub open: SharedCount,
    schema_changes: AtomicU64,
}

impl SharedDatabase {
    /// How many changes of the schema have passed through; part of a statement's identity.
    #[must_use]
    pub fn schema_changes(&self) -> u64 {
        self.schema_changes.load(Relaxed)
    }

    /// Notes a change: statements parsed from now on are parsed anew.
    pub fn schema_changed(&self) {
        self.schema_changes.fetch_add(1, Relaxed);
    }
}

/// One worker's part of a pool, seen by the others.
#[derive(Debug, Default)]
pub struct Share {
    /// Its server connections, idle or not.
    pub open: AtomicU32,
    /// Its idle server connections.
    pub idle: AtomicU32,
    /// Its clients of this pool.
    pub sessions: AtomicU32,
}

/// What a server said of itself at login: the settings it reports. The first login to a pool waits
/// for it; later ones get this copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Welcome {
    /// ParameterStatus, name and value.
    pub parameters: Vec<(Box<[u8]>, Box<[u8]>)>,
}

/// One pool as all workers see it.
#[derive(Debug)]
pub struct SharedPool {
    open: SharedCount,
    pinned: SharedCount,
    /// Each worker's part, by worker number.
    pub shares: Box<[Share]>,
    /// What is shared with the other pools of the database.
    pub database: Arc<SharedDatabase>,
    user_open: Arc<SharedCount>,
    welcome: Mutex<Option<Arc<Welcome>>>,
    /// A limit above the pool's stands in the way: idle connections of sibling pools must go.
    pub crowded: AtomicBool,
}

/// The limits for one more server connection.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Of the pool.
    pub pool: u32,
    /// Of the database, all pools together.
    pub database: u32,
    /// Of the user, over all databases.
    pub user: u32,
}

impl SharedPool {
    /// A pool that `workers` workers may use.
    #[must_use]
    pub fn new(workers: usize, database: Arc<SharedDatabase>, user: Arc<SharedCount>) -> Self {
        Self {
            open: SharedCount::default(),
            pinned: SharedCount::default(),
            shares: (0..workers).map(|_| Share::default()).collect(),
            database,
            user_open: user,
            welcome: Mutex::new(None),
            crowded: AtomicBool::new(false),
        }
    }

    /// Takes the place of one more server connection of `worker`'s, if every limit allows it.
    pub fn open(self: &Arc<Self>, worker: WorkerId, limits: Limits) -> Option<Slot> {
        if !self.open.take(limits.pool) {
            return None;
        }
        if !self.database.open.take(limits.database) {
            self.open.give_back();
            self.crowded.store(true, Relaxed);
            return None;
        }
        if !self.user_open.take(limits.user) {
            self.database.open.give_back();
            self.open.give_back();
            self.crowded.store(true, Relaxed);
            return None;
        }
        self.share(worker).open.fetch_add(1, Relaxed);
        Some(Slot { pool: Arc::clone(self), worker })
    }

    /// Takes one of the `limit` places for pinned sessions.
    pub fn pin(self: &Arc<Self>, limit: u32) -> Option<PinSlot> {
        self.pinned.take(limit).then(|| PinSlot(Arc::clone(self)))
    }

    /// Server connections of the pool, those being opened included.
    #[must_use]
    pub fn open_count(&self) -> u32 {
        self.open.get()
    }

    /// Server connections that pinned sessions hold.
    #[must_use]
    pub fn pinned_count(&self) -> u32 {
        self.pinned.get()
    }

    /// One worker's part.
    #[must_use]
    pub fn share(&self, worker: WorkerId) -> &Share {
        &self.shares[usize::from(worker.0)]
    }

    /// The first server's welcome, once there was one.
    #[must_use]
    pub fn welcome(&self) -> Option<Arc<Welcome>> {
        self.welcome.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Keeps what the newest server connection said.
    pub fn set_welcome(&self, welcome: Welcome) {
        let mut kept = self.welcome.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.as_deref() != Some(&welcome) {
            *kept = Some(Arc::new(welcome));
        }
    }
}

/// The place of one server connection; given back when it is dropped.
#[derive(Debug)]
pub struct Slot {
    pool: Arc<SharedPool>,
    worker: WorkerId,
}

impl Slot {
    /// The connection moves to another worker.
    pub fn move_to(&mut self, worker: WorkerId) {
        self.pool.share(self.worker).open.fetch_sub(1, Relaxed);
        self.worker = worker;
        self.pool.share(worker).open.fetch_add(1, Relaxed);
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.pool.share(self.worker).open.fetch_sub(1, Relaxed);
        self.pool.user_open.give_back();
        self.pool.database.open.give_back();
        self.pool.open.give_back();
    }
}

/// The place of one pinned session; given back when it is dropped.
#[derive(Debug)]
pub struct PinSlot(Arc<SharedPool>);

impl Drop for PinSlot {
    fn drop(&mut self) {
        self.0.pinned.give_back();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_comes_back_on_every_path() {
        let database = Arc::new(SharedDatabase::default());
        let user = Arc::new(SharedCount::default());
        let pool = Arc::new(SharedPool::new(2, Arc::clone(&database), Arc::clone(&user)));
        let limits = Limits { pool: 2, database: 2, user: 1 };
        let mut slot = pool.open(WorkerId(0), limits).unwrap();
        assert!(pool.open(WorkerId(1), limits).is_none(), "the user's limit");
        assert_eq!((pool.open_count(), database.open.get(), user.get()), (1, 1, 1));
        slot.move_to(WorkerId(1));
        assert_eq!(pool.share(WorkerId(0)).open.load(Relaxed), 0);
        assert_eq!(pool.share(WorkerId(1)).open.load(Relaxed), 1);
        drop(slot);
        assert_eq!((pool.open_count(), database.open.get(), user.get()), (0, 0, 0));
        assert_eq!(pool.share(WorkerId(1)).open.load(Relaxed), 0);
    }
}
